"""What a study writes and the report reads: records and tables."""
