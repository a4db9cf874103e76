"""What the replicas of a strategy tell each other; on one device every function here does nothing."""

import tensorflow as tf

from medclip_keras.errors import require


def make_strategy(name: str) -> tf.distribute.Strategy:
    """The strategy that `train.strategy` names; "auto" is mirrored where there is more than one GPU.

    Logical CPU devices count as devices for "mirrored", so that two replicas can be tried without a GPU.

    Raises:
        ValueError: "mirrored" with fewer than two devices.
    """
    gpus = tf.config.list_logical_devices("GPU")
    if name == "one_device" or (name == "auto" and len(gpus) < 2):
        return tf.distribute.get_strategy()
    devices = [d.name for d in gpus or tf.config.list_logical_devices("CPU")]
    require(len(devices) > 1, "train.strategy", "mirrored only where there are two devices or more", devices)
    return tf.distribute.MirroredStrategy(devices)


def num_replicas() -> int:
    """How many replicas compute this step together; 1 outside of a step (validation, export)."""
    context = tf.distribute.get_replica_context()
    return 1 if context is None else context.num_replicas_in_sync


def gather(x: tf.Tensor) -> tf.Tensor:
    """Every replica's `x` along the batch, (B, …) to (B * num_replicas, …); differentiable."""
    if num_replicas() == 1:
        return x
    return tf.distribute.get_replica_context().all_gather(x, axis=0)


def sum_over_replicas(gradient) -> tf.Tensor:
    """The sum of every replica's gradient, sparse ones made dense."""
    gradient = tf.convert_to_tensor(gradient)
    if num_replicas() == 1:
        return gradient
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, gradient)
