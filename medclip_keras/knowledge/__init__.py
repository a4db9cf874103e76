"""Report text to labels: concept tables, sections, sentences, mentions, label states. No TensorFlow."""

import importlib.resources

TABLES = importlib.resources.files(__name__) / "tables"  # concept tables and word lists, data files
