"""The report: a study's records as a document to read."""
