"""Evaluation of a trained model: zero-shot classification, retrieval, linear probe, with intervals."""
