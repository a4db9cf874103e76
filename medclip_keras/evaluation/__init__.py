"""What a model is worth: zero-shot classification and retrieval, with intervals, beside chance."""
