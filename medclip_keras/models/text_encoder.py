"""The text tower: BERT, three of its hidden states averaged over the words that are there."""

import functools

import keras
import keras_hub
from keras import layers, ops

from medclip_keras.config import TextEncoderConfig, require


def build_backbone(config: TextEncoderConfig, vocabulary_size: int, max_tokens: int) -> keras.Model:
    """BERT of the configured sizes with random weights, or that of the preset.

    BERT's published weights were trained with the exact gelu, keras-hub computes the tanh approximation:
    every layer gets the exact one.

    Raises:
        ValueError: a vocabulary that does not fit the preset's weights.
    """
    if config.preset:
        backbone = keras_hub.models.BertBackbone.from_preset(config.preset)
        require(
            backbone.vocabulary_size == vocabulary_size,
            "model.text.vocabulary",
            f"the {backbone.vocabulary_size} word pieces that the weights of {config.preset!r} know",
            vocabulary_size,
        )
    else:
        backbone = keras_hub.models.BertBackbone(
            vocabulary_size=vocabulary_size,
            num_layers=config.num_layers,
            num_heads=config.num_heads,
            hidden_dim=config.hidden_dim,
            intermediate_dim=config.intermediate_dim,
            dropout=config.dropout,
            max_sequence_length=config.max_positions or max(max_tokens, 8),
        )
    for layer in backbone.transformer_layers:
        layer._feedforward_intermediate_dense.activation = functools.partial(
            keras.activations.gelu, approximate=False
        )
    return backbone


class TextEncoder(keras.Model):
    """Sentences to embeddings: BERT, mean of hidden states 1, 2 and last, linear projection.

    Follows: the released code of Wang et al., EMNLP 2022. Departs: the mean runs over the words only, so an
    embedding does not depend on the padding of its batch; `pooling="padded_mean"` averages over padding too,
    as the released weights expect. A backbone of fewer than three layers averages those it has.
    """

    def __init__(
        self,
        config: TextEncoderConfig,
        projection_dim: int,
        vocabulary_size: int,
        max_tokens: int,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.pooling = config.pooling
        backbone = build_backbone(config, vocabulary_size, max_tokens)
        outputs = [layer.output for layer in backbone.transformer_layers]
        states = sorted({0, min(1, len(outputs) - 1), len(outputs) - 1})
        self.backbone = keras.Model(backbone.inputs, [outputs[i] for i in states], name="bert")
        self.projection = layers.Dense(projection_dim, use_bias=config.projection_bias, name="projection")

    def call(self, inputs, training=False):
        """Embeds tokenised sentences.

        Args:
            inputs: {"token_ids": int (B, T), "padding_mask": int (B, T), 1 where there is a word}.
            training: whether dropout is on.

        Returns:
            float (B, projection_dim), not normalised.
        """
        mask = inputs["padding_mask"]
        states = self.backbone(
            {
                "token_ids": inputs["token_ids"],
                "padding_mask": mask,
                "segment_ids": ops.zeros_like(inputs["token_ids"]),
            },
            training=training,
        )
        states = [states] if not isinstance(states, (list, tuple)) else states
        hidden = sum(states) / len(states)  # (B, T, hidden_dim)
        if self.pooling == "padded_mean":
            return self.projection(ops.mean(hidden, axis=1))
        weights = ops.cast(mask, hidden.dtype)[..., None]  # (B, T, 1)
        pooled = ops.sum(hidden * weights, axis=1) / ops.maximum(
            ops.sum(weights, axis=1), 1
        )  # (B, hidden_dim)
        return self.projection(pooled)  # (B, projection_dim)
