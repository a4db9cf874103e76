"""Checks of finished records: statistics, schema, anomalies, and their page."""
