"""The dual encoder: two towers with embeddings of unit length in one space, and a learned temperature."""

import math

import keras
from keras import ops

from medclip_keras.config import ModelConfig
from medclip_keras.models.image_encoder import ImageEncoder, ImageFeatures
from medclip_keras.models.text_encoder import TextEncoder, TextFeatures


class DualEncoder(keras.Model):
    """Image and text encoder with a learned temperature.

    Follows: Wang et al., EMNLP 2022, section 3.2; Radford et al., ICML 2021, for the clamped logit scale.

    `max_tokens` is the longest sentence in word pieces, [CLS] and [SEP] included. `local_features` adds
    regions of images and words of texts (GLoRIA). 1/tau starts at `initial_logit_scale`, else as
    `config.initial_temperature` says, and is trained if `learn_logit_scale`.
    """

    def __init__(
        self,
        config: ModelConfig,
        vocabulary_size: int,
        max_tokens: int,
        *,
        local_features: bool = False,
        initial_logit_scale: float | None = None,
        learn_logit_scale: bool = True,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.config, self.local_features = config, local_features
        dim, projection = config.projection_dim, config.projection
        self.image_encoder = ImageEncoder(
            config.image, dim, projection=projection, local_features=local_features, name="image_encoder"
        )
        self.text_encoder = TextEncoder(
            config.text,
            dim,
            vocabulary_size,
            max_tokens,
            projection=projection,
            local_features=local_features,
            name="text_encoder",
        )
        log_scale = math.log(initial_logit_scale or 1 / config.initial_temperature)
        self.log_logit_scale = self.add_weight(
            name="log_logit_scale",
            shape=(),
            initializer=keras.initializers.Constant(log_scale),
            constraint=lambda log_scale: ops.minimum(log_scale, math.log(config.max_logit_scale)),
            dtype="float32",
            autocast=False,
            trainable=learn_logit_scale,
        )

    def build_towers(self) -> "DualEncoder":
        """Create every weight, for saving, restoring and counting."""
        size = self.config.image.image_size
        ids, mask = ops.zeros((1, 4), "int32"), ops.ones((1, 4), "int32")
        inputs = {"images": ops.zeros((1, size, size, 1)), "token_ids": ids, "padding_mask": mask}
        self.call(inputs | ({"word_ids": ids} if self.local_features else {}))
        self.built = True
        return self

    def encode_images(self, images, training=False):
        """Embed images float (B, S, S, 1), normalised, as float32 (B, D) of unit length."""
        return _unit_length(self.image_encoder(images, training=training).embeddings_unnormalized)

    def describe_images(self, images):
        """Embed normalised images float (B, S, S, 1); their features before the projection too.

        Returns:
            {"image_embeddings" (B, D) of unit length, "image_features" (B, C)} float32.
        """
        tower = self.image_encoder(images)
        return {
            "image_embeddings": _unit_length(tower.embeddings_unnormalized),
            "image_features": ops.cast(tower.pooled, "float32"),
        }

    def encode_tokens(self, token_ids, padding_mask, training=False):
        """Embed token ids and mask, int (B, T), as float32 (B, D) of unit length."""
        inputs = {"token_ids": token_ids, "padding_mask": padding_mask}
        return _unit_length(self.text_encoder(inputs, training=training).embeddings_unnormalized)

    def logit_scale(self):
        """1/tau, a float32 scalar; the optimizer clamps it at `config.max_logit_scale`."""
        return ops.exp(self.log_logit_scale)

    def call(self, inputs, training=False):
        """Embed a batch.

        Args:
            inputs: {"images", "token_ids", "padding_mask"}, and "word_ids" with local features. In place of
                images or tokens, "image_features" or "text_features" (B, F): what the tower projects.
            training: whether the encoders are in training mode.

        Returns:
            {"image_embeddings", "text_embeddings"} float32 (B, D) of unit length; with local features also
            "regions" (B, num_regions, D), "words" (B, T, D) and "word_mask" (B, T), not normalised.
        """
        image, text = self._image(inputs, training), self._text(inputs, training)
        outputs = {
            "image_embeddings": _unit_length(image.embeddings_unnormalized),
            "text_embeddings": _unit_length(text.embeddings_unnormalized),
        }
        if self.local_features:
            outputs |= {"regions": image.regions, "words": text.words, "word_mask": text.word_mask}
        return outputs

    def _image(self, inputs, training) -> ImageFeatures:
        tower = self.image_encoder
        if (features := inputs.get("image_features")) is not None:
            return ImageFeatures(tower.project(features), features)
        return tower(inputs["images"], training=training and tower.trainable)

    def _text(self, inputs, training) -> TextFeatures:
        tower = self.text_encoder
        if (features := inputs.get("text_features")) is not None:
            return TextFeatures(tower.project(features))
        names = ("token_ids", "padding_mask", "word_ids")
        tokens = {k: inputs[k] for k in names if k in inputs}
        return tower(tokens, training=training and tower.trainable)


def _unit_length(embeddings_unnormalized):
    x = ops.cast(embeddings_unnormalized, "float32")
    return x / ops.sqrt(ops.maximum(ops.sum(x * x, axis=-1, keepdims=True), 1e-12))
