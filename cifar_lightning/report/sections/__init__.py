"""Each function makes one section of the report from a study's records."""
