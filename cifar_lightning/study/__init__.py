"""The study: many runs, each a plain `fit`, and the records that they leave for the report."""
