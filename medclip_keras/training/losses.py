"""From what a model says of the global batch to its loss: one row an objective.

Adding an objective is a function in `objectives`, a name in `config.PAIRING`, and a row of `OBJECTIVES`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import tensorflow as tf

from medclip_keras.config import ObjectiveConfig
from medclip_keras.objectives import gloria as local
from medclip_keras.objectives import info_nce as pairs
from medclip_keras.objectives.mixed_matching import mixed_matching
from medclip_keras.objectives.semantic_matching import semantic_matching
from medclip_keras.objectives.sigmoid_matching import (
    INITIAL_LOG_LOGIT_SCALE,
    INITIAL_LOGIT_BIAS,
    sigmoid_matching,
)


class Loss(NamedTuple):
    """What training and its callbacks want of any objective; float32.

    Attributes:
        loss: scalar.
        kl: scalar, the loss less the entropy of its targets, which no model can remove; the loss itself where
            the target is the own pair and nothing else.
        logits: (num_images, num_texts).
        similarity: (num_images, num_texts), how much each image and text belong together by the objective.
    """

    loss: tf.Tensor
    kl: tf.Tensor
    logits: tf.Tensor
    similarity: tf.Tensor


@dataclass(frozen=True)
class Terms:
    """The variables that an objective learns, and what the labels are compared by.

    Attributes:
        logit_scale: float32 scalar, 1/tau.
        logit_bias: float32 scalar; 0 where the objective has none.
        config: the run's switches.
        concept_kernel: (num_findings, num_findings) or None.
    """

    logit_scale: tf.Tensor
    logit_bias: tf.Tensor | float
    config: ObjectiveConfig
    concept_kernel: object

    @property
    def matching(self) -> dict:
        """Keyword arguments that the objectives on labels share."""
        return {"similarity": self.config.similarity, "concept_kernel": self.concept_kernel}


@dataclass(frozen=True)
class Objective:
    """How an objective is computed in training.

    Attributes:
        compute: the whole batch {"image_embeddings", …, "image_labels", …} and `Terms` → `Loss`.
        needs: what of the outputs and of the batch it looks at.
        fixed_logit_scale: 1/tau, where the paper fixes it.
        initial_logit_scale: 1/tau to learn from; None: `model.initial_temperature`.
        initial_logit_bias: where a bias is learned.
        local_features: whether the encoders must give regions and words.
    """

    compute: Callable[[dict, Terms], Loss]
    needs: tuple[str, ...]
    fixed_logit_scale: float | None = None
    initial_logit_scale: float | None = None
    initial_logit_bias: float | None = None
    local_features: bool = False


def _of_labels(batch: dict) -> tuple:
    return batch["image_labels"], batch["text_labels"]


def _known(batch: dict) -> dict:
    return {"image_known": batch["image_known"], "text_known": batch["text_known"]}


def _embeddings(batch: dict) -> tuple:
    return batch["image_embeddings"], batch["text_embeddings"]


def _semantic_matching(batch: dict, terms: Terms) -> Loss:
    temperature = terms.config.target_temperature
    found = semantic_matching(
        *_embeddings(batch),
        terms.logit_scale,
        *_of_labels(batch),
        target_temperature=temperature,
        **_known(batch),
        **terms.matching,
    )
    return Loss(*found)


def _sigmoid_matching(batch: dict, terms: Terms) -> Loss:
    found = sigmoid_matching(
        *_embeddings(batch),
        terms.logit_scale,
        terms.logit_bias,
        *_of_labels(batch),
        **_known(batch),
        **terms.matching,
    )
    return Loss(*found)


def _mixed_matching(batch: dict, terms: Terms) -> Loss:
    same_study = tf.equal(batch["image_study"][:, None], batch["text_study"][None])
    found = mixed_matching(
        *_embeddings(batch),
        terms.logit_scale,
        *_of_labels(batch),
        same_study,
        instance_weight=terms.config.instance_weight,
        target_temperature=terms.config.target_temperature,
        **_known(batch),
        **terms.matching,
    )
    return Loss(*found)


def _info_nce(batch: dict, terms: Terms) -> Loss:
    found = pairs.info_nce(*_embeddings(batch), terms.logit_scale)
    return _of_own_pairs(found.loss, found.logits)


def _convirt(batch: dict, terms: Terms) -> Loss:
    found = pairs.convirt(*_embeddings(batch))
    return _of_own_pairs(found.loss, found.logits)


def _gloria(batch: dict, terms: Terms) -> Loss:
    most = tf.cast(tf.reduce_max(tf.reduce_sum(batch["word_mask"], axis=1)), tf.int32)
    words, mask = (batch[name][:, :most] for name in ("words", "word_mask"))  # the rest is padding
    found = local.gloria(*_embeddings(batch), batch["regions"], words, mask)
    return _of_own_pairs(found.loss, found.logits)


def _of_own_pairs(loss: tf.Tensor, logits: tf.Tensor) -> Loss:
    return Loss(loss, loss, logits, tf.eye(tf.shape(logits)[0]))


_EMBEDDINGS = ("image_embeddings", "text_embeddings")
_LABELS = ("image_labels", "text_labels", "image_known", "text_known")

OBJECTIVES: dict[str, Objective] = {
    "semantic_matching": Objective(_semantic_matching, (*_EMBEDDINGS, *_LABELS)),
    "sigmoid_matching": Objective(
        _sigmoid_matching,
        (*_EMBEDDINGS, *_LABELS),
        initial_logit_scale=math.exp(INITIAL_LOG_LOGIT_SCALE),
        initial_logit_bias=INITIAL_LOGIT_BIAS,
    ),
    "mixed_matching": Objective(_mixed_matching, (*_EMBEDDINGS, *_LABELS, "image_study", "text_study")),
    "info_nce": Objective(_info_nce, _EMBEDDINGS),
    "convirt": Objective(_convirt, _EMBEDDINGS, fixed_logit_scale=1 / pairs.CONVIRT_TEMPERATURE),
    "gloria": Objective(
        _gloria,
        (*_EMBEDDINGS, "regions", "words", "word_mask"),
        fixed_logit_scale=local.LOGIT_SCALE,
        local_features=True,
    ),
}
