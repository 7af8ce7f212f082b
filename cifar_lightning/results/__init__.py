"""The records of a study, and tables of them for the report."""
