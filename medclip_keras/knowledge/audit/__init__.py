"""Audit of labels by a person: a sample of reports on one page and in one sheet, and its scores."""
