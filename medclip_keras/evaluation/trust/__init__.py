"""May one trust the scores: calibration, thresholds, abstention, negation and the choice of prompts."""
