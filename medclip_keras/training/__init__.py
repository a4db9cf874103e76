"""From batches to checkpoints: the Keras model with its train_step, replicas, callbacks."""
