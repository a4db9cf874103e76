"""Report text to labels: concept tables, sections, sentences, mentions, states. No TensorFlow."""
