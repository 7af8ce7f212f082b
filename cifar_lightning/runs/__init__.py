"""A run folder on disk: its files, its checkpoints, and their repair after a kill."""
