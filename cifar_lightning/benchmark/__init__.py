"""The speed of `fit` beside a baseline, a bare loop and the arithmetic alone."""
