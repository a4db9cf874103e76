"""The SavedModel: its signatures, and the proof that it answers as the trained model does."""
