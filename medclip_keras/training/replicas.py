"""Communication between the replicas of a strategy; no operation on one device."""

import keras
import tensorflow as tf

from medclip_keras.config import TrainConfig
from medclip_keras.errors import require


def make_strategy(config: TrainConfig) -> tf.distribute.Strategy:
    """Make the strategy that `train.strategy` names; "auto" is mirrored for two or more GPUs.

    Without a GPU, "mirrored" uses the logical CPU devices.

    Raises:
        ValueError: "mirrored" with fewer than two devices; a batch size that the replicas cannot share.
    """
    gpus = tf.config.list_logical_devices("GPU")
    if config.strategy == "one_device" or (config.strategy == "auto" and len(gpus) < 2):
        return tf.distribute.get_strategy()
    devices = [d.name for d in gpus or tf.config.list_logical_devices("CPU")]
    require(len(devices) > 1, "train.strategy", "one_device or auto with fewer than two devices", devices)
    shares = f"a multiple of the {len(devices)} replicas"
    require(config.batch_size % len(devices) == 0, "train.batch_size", shares, config.batch_size)
    return tf.distribute.MirroredStrategy(devices)


def num_replicas() -> int:
    """Number of replicas that share this step; 1 outside of a step (validation, export)."""
    context = tf.distribute.get_replica_context()
    return 1 if context is None else context.num_replicas_in_sync


def synchronize_batch_statistics(model: keras.Model) -> None:
    """Let batch normalisation take the statistics of the global batch, if the strategy has several replicas."""
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.synchronized = tf.distribute.get_strategy().num_replicas_in_sync > 1


def gather(x: tf.Tensor) -> tf.Tensor:
    """Concatenate every replica's `x` along the batch, (B, …) to (B * num_replicas, …); differentiable."""
    if num_replicas() == 1:
        return x
    return tf.distribute.get_replica_context().all_gather(x, axis=0)


def sum_over_replicas(gradient: tf.Tensor | tf.IndexedSlices) -> tf.Tensor:
    """Sum the gradients of all replicas; sparse ones become dense."""
    gradient = tf.convert_to_tensor(gradient)
    if num_replicas() == 1:
        return gradient
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, gradient)
