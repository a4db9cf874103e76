"""The losses: a function is its equation."""
