"""The text tower: BERT, with some of its hidden states pooled over the tokens."""

import functools
from typing import NamedTuple

import keras
import keras_hub
from keras import layers, ops

from medclip_keras.config import TextEncoderConfig
from medclip_keras.errors import require
from medclip_keras.models.image_encoder import architecture_of, hidden_layer, load_preset
from medclip_keras.models.packages import PACKAGES, load_packaged
from medclip_keras.models.stages import depths, freeze, text_stages
from medclip_keras.objectives.loss import Tensor

HIDDEN_STATES = {  # number of layers → indices of the states to use
    "first_two_and_last": lambda n: sorted({0, min(1, n - 1), n - 1}),
    "last": lambda n: [n - 1],
    "last_four": lambda n: list(range(max(0, n - 4), n)),
}


def build_backbone(config: TextEncoderConfig, vocabulary_size: int, max_tokens: int) -> keras.Model:
    """Build BERT of the configured sizes with random weights, or load its preset.

    Every layer gets the exact gelu of BERT's published weights; keras-hub computes the tanh approximation.

    Raises:
        ValueError: a vocabulary of another size than the preset's, or texts longer than its positions.
    """
    if config.preset:
        packaged = config.preset in PACKAGES
        backbone = (
            load_packaged(config.preset)
            if packaged
            else load_preset(keras_hub.models.BertBackbone, config.preset)
        )
        size = backbone.vocabulary_size
        needed = f"the {size} word pieces of the weights of {config.preset!r}"
        require(size == vocabulary_size, "model.text.vocabulary", needed, vocabulary_size)
        positions = backbone.max_sequence_length
        needed = f"at most the {positions} positions of the weights of {config.preset!r}"
        require(max_tokens <= positions, "data.max_tokens", needed, max_tokens)
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


class TextFeatures(NamedTuple):
    """Outputs of the text tower for a batch, not normalised."""

    embeddings_unnormalized: Tensor  # (B, D), of whole texts
    words: Tensor = None  # (B, T, D), of words, word 0 first; None without local features
    word_mask: Tensor = None  # (B, T), 1 for a word; None likewise


class TextEncoder(keras.Model):
    """Sentences to embeddings: BERT, mean of hidden states 1, 2 and last, linear projection.

    Follows: the released code of Wang et al., EMNLP 2022. Departs: the mean leaves out padding;
    `pooling="padded_mean"` includes it, as the released weights expect. Smaller backbones use the states that
    they have.

    ConVIRT (Zhang et al., MLHC 2022) takes the maximum of the last state over the tokens, freezes the lower
    layers, and has a hidden layer in its projection. GLoRIA (Huang et al., ICCV 2021) sums the last four
    states, and the word pieces of a word to that word; Departs: [CLS], [SEP] and padding are no words, and
    words are projected by a matrix, as texts are.

    `projection_dim` is D, `max_tokens` is T, the longest text in word pieces; `projection` is "linear", or
    "mlp" with one hidden layer. With `local_features` words are computed, by `word_ids`.
    """

    def __init__(
        self,
        config: TextEncoderConfig,
        projection_dim: int,
        vocabulary_size: int,
        max_tokens: int,
        *,
        projection: str = "linear",
        local_features: bool = False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.pooling, self.local_features = config.pooling, local_features
        self.sums_states = config.hidden_states == "last_four"
        backbone = build_backbone(config, vocabulary_size, max_tokens)
        self.architecture = architecture_of(backbone) if config.preset else ""
        stages = text_stages(backbone)  # the embeddings, and each layer
        field, number = "model.text.frozen_layers", config.frozen_layers
        require(number < len(stages), field, f"at most {len(stages) - 1} layers", number)
        freeze(stages, number + bool(number), field)
        self.depths = depths(stages)
        outputs = [layer.output for layer in backbone.transformer_layers]
        states = HIDDEN_STATES[config.hidden_states](len(outputs))
        self.backbone = keras.Model(backbone.inputs, [outputs[i] for i in states], name="bert")
        self.hidden = hidden_layer(outputs[-1].shape[-1]) if projection == "mlp" else None
        self.projection = layers.Dense(projection_dim, use_bias=config.projection_bias, name="projection")
        if local_features:
            self.word_projection = layers.Dense(projection_dim, use_bias=False, name="word_projection")

    def call(self, inputs, training=False) -> TextFeatures:
        """Embed tokenised texts; with local features their words too.

        Args:
            inputs: {"token_ids": int (B, T), "padding_mask": int (B, T), 1 for a word piece}; with local
                features "word_ids": int (B, T), the index of the word that a piece belongs to, -1 for none.
            training: whether to use dropout.
        """
        hidden = self._hidden(inputs, training)
        embeddings = self.project(pool(hidden, inputs["padding_mask"], self.pooling))
        if not (self.local_features and "word_ids" in inputs):
            return TextFeatures(embeddings)
        words, word_mask = sum_into_words(self.word_projection(hidden), inputs["word_ids"])
        return TextFeatures(embeddings, words, word_mask)

    def _hidden(self, inputs, training):
        """States (B, T, hidden_dim), the mean or the sum of those in use."""
        tokens = {name: inputs[name] for name in ("token_ids", "padding_mask")}
        segments = {"segment_ids": ops.zeros_like(inputs["token_ids"])}
        states = self.backbone(tokens | segments, training=training and self.backbone.trainable)
        states = [states] if not isinstance(states, (list, tuple)) else states
        return sum(states) if self.sums_states else sum(states) / len(states)

    def features(self, inputs):
        """Pooled features (B, hidden_dim) of tokenised texts, as inference computes them."""
        return pool(self._hidden(inputs, training=False), inputs["padding_mask"], self.pooling)

    def project(self, pooled):
        """Embeddings (B, D), not normalised, of pooled features (B, hidden_dim)."""
        return self.projection(pooled if self.hidden is None else self.hidden(pooled))


def pool(hidden: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """Pool states (B, T, C) of word pieces to (B, C): mean, maximum, or mean over padding too."""
    if pooling == "padded_mean":
        return ops.mean(hidden, axis=1)
    there = ops.cast(mask, hidden.dtype)[..., None]  # (B, T, 1)
    if pooling == "max":
        lowest = ops.cast(-1e4, hidden.dtype)  # far below any state, and representable in float16
        return ops.max(hidden * there + lowest * (1 - there), axis=1)
    return ops.sum(hidden * there, axis=1) / ops.maximum(ops.sum(there, axis=1), 1)


def sum_into_words(pieces: Tensor, word_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Sum the states of word pieces into words.

    Args:
        pieces: float (B, T, D).
        word_ids: int (B, T), the index of the word that a piece belongs to, -1 for none.

    Returns:
        words (B, T, D), word k in row k and zeros after the last, and their mask (B, T) of the same dtype.

    >>> import numpy as np
    >>> words, mask = sum_into_words(np.array([[[9.0], [1], [2], [4], [9]]]), np.array([[-1, 0, 0, 1, -1]]))
    >>> np.ravel(words).tolist(), np.ravel(mask).tolist()
    ([3.0, 4.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0, 0.0])
    """
    pieces = ops.convert_to_tensor(pieces)
    belongs = ops.one_hot(word_ids, pieces.shape[1], dtype=pieces.dtype)  # (B, T pieces, T words), -1: zeros
    words = ops.einsum("bpw,bpd->bwd", belongs, pieces)
    return words, ops.max(belongs, axis=1)
