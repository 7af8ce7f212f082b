"""Files for use elsewhere, which predict what the checkpoint predicts; `test` and `predict` by such a file."""
