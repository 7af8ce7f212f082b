"""What `fit` costs a step, beside the loop that people write, a bare loop and the arithmetic alone."""
