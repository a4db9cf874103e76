"""The two encoders and the space they share."""
