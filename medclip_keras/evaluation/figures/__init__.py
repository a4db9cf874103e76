"""Figures of an evaluation, drawn by Matplotlib without a display; none of them shows report text."""
