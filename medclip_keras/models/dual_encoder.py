"""Two towers into one space: embeddings of unit length, and the learned scale of their cosines."""

import math

import keras
from keras import ops

from medclip_keras.config import ModelConfig
from medclip_keras.models.image_encoder import ImageEncoder
from medclip_keras.models.text_encoder import TextEncoder


class DualEncoder(keras.Model):
    """Image and text encoder with a learned temperature.

    Follows: Wang et al., EMNLP 2022, section 3.2; Radford et al., ICML 2021, for the clamped logit scale.

    Args:
        config: sizes, backbones and presets.
        vocabulary_size: number of word pieces.
        max_tokens: the longest sentence in word pieces, [CLS] and [SEP] included.
    """

    def __init__(self, config: ModelConfig, vocabulary_size: int, max_tokens: int, **kwargs):
        super().__init__(**kwargs)
        self.config = config
        self.image_encoder = ImageEncoder(config.image, config.projection_dim, name="image_encoder")
        self.text_encoder = TextEncoder(
            config.text, config.projection_dim, vocabulary_size, max_tokens, name="text_encoder"
        )
        self.log_logit_scale = self.add_weight(
            name="log_logit_scale",
            shape=(),
            initializer=keras.initializers.Constant(math.log(1 / config.initial_temperature)),
            constraint=lambda log_scale: ops.minimum(log_scale, math.log(config.max_logit_scale)),
            dtype="float32",
            autocast=False,
        )

    def build_towers(self) -> "DualEncoder":
        """Creates every weight; afterwards the model can be saved, restored and counted."""
        size = self.config.image.image_size
        self.encode_images(ops.zeros((1, size, size, 1)))
        self.encode_tokens(ops.zeros((1, 4), "int32"), ops.ones((1, 4), "int32"))
        self.built = True
        return self

    def encode_images(self, images, training=False):
        """Images float (B, S, S, 1), normalised, to embeddings float32 (B, D) of unit length."""
        return _unit_length(self.image_encoder(images, training=training))

    def encode_tokens(self, token_ids, padding_mask, training=False):
        """Token ids and mask, int (B, T), to embeddings float32 (B, D) of unit length."""
        inputs = {"token_ids": token_ids, "padding_mask": padding_mask}
        return _unit_length(self.text_encoder(inputs, training=training))

    def logit_scale(self):
        """1/tau, a float32 scalar; the optimizer keeps it at or under `config.max_logit_scale`."""
        return ops.exp(self.log_logit_scale)

    def call(self, inputs, training=False):
        """{"images", "token_ids", "padding_mask"} to {"image_embeddings", "text_embeddings"}."""
        return {
            "image_embeddings": self.encode_images(inputs["images"], training),
            "text_embeddings": self.encode_tokens(inputs["token_ids"], inputs["padding_mask"], training),
        }


def _unit_length(embeddings_unnormalized):
    x = ops.cast(embeddings_unnormalized, "float32")
    return x / ops.sqrt(ops.maximum(ops.sum(x * x, axis=-1, keepdims=True), 1e-12))
