"""Other methods as rows: the cases as files for them, and their results."""
