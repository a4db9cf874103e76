"""The SavedModel for TensorFlow Serving: endpoints, export, validation in a clean process."""
