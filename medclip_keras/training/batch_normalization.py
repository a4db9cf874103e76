"""Batch normalisation for training: one fused operation on one device, global statistics on several.

Keras composes it of moments and products, which takes two to three times as long on a CPU and keeps more of
the forward pass in memory.
"""

import keras
import tensorflow as tf
from keras import ops

from medclip_keras.errors import require


class FusedBatchNormalization(keras.layers.BatchNormalization):
    """Keras's layer, with one fused operation for images (B, H, W, C) in training."""

    def call(self, inputs, training=None, mask=None):
        """Normalise, as the base class; in training move the averages by the biased variance, as it does."""
        images = len(inputs.shape) == 4 and self.axis in (-1, 3) and self.scale and self.center
        if not (training and self.trainable and images) or self.renorm or mask is not None:
            return super().call(inputs, training=training, mask=mask)
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs,
            ops.cast(self.gamma, "float32"),
            ops.cast(self.beta, "float32"),
            epsilon=self.epsilon,
            is_training=True,
        )
        num_values = tf.cast(tf.size(inputs) // inputs.shape[-1], "float32")
        biased = variance * (num_values - 1) / num_values  # the operation returns the unbiased one
        for average, value in ((self.moving_mean, mean), (self.moving_variance, biased)):
            average.assign(average * self.momentum + value * (1.0 - self.momentum))
        return outputs


def prepare_batch_normalization(model: keras.Model) -> None:
    """Fuse batch normalisation on one device; use the global batch's statistics on several."""
    several = tf.distribute.get_strategy().num_replicas_in_sync > 1
    for layer in model._flatten_layers():
        if type(layer) is keras.layers.BatchNormalization:
            layer.synchronized = several
            layer.__class__ = type(layer) if several else FusedBatchNormalization


def require_compilable(model: keras.Model, jit_compile: bool) -> None:
    """Refuse towers under XLA if their batch normalisation exchanges statistics between replicas.

    Raises:
        ValueError: `jit_compile`, several replicas, and batch normalisation that is trained.
    """
    exchanges = any(
        isinstance(layer, keras.layers.BatchNormalization) and layer.synchronized and layer.trainable
        for layer in model._flatten_layers()
    )
    requirement = "false for batch normalisation on several devices"
    advice = (
        "XLA compiles no exchange between devices. Take a backbone without batch normalisation, such as "
        "swin_tiny, or one device."
    )
    require(not (jit_compile and exchanges), "train.jit_compile", requirement, jit_compile, advice)
