"""Each function draws one figure from plain numbers."""
