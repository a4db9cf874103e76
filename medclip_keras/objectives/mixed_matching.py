"""Semantic and instance matching in one: shared labels and the own study both set the targets."""

import functools
from typing import Literal

from keras import ops

from medclip_keras.objectives.cross_entropy import at_least_float32, image_text_logits, soft_loss
from medclip_keras.objectives.loss import Loss, Tensor
from medclip_keras.objectives.semantic_matching import label_similarity, similarity_of_tile, soft_targets
from medclip_keras.objectives.tiled import Rows, Targets, tiled_cross_entropy


def mixed_matching(
    image_embeddings: Tensor,
    text_embeddings: Tensor,
    logit_scale: Tensor,
    image_labels: Tensor,
    text_labels: Tensor,
    *,
    image_study: Tensor,
    text_study: Tensor,
    instance_weight: float = 0.5,
    image_known: Tensor = None,
    text_known: Tensor = None,
    similarity: Literal["cosine", "dot"] = "cosine",
    target_temperature: float = 1.0,
    concept_kernel: Tensor = None,
    tile_size: int = 0,
) -> Loss:
    """Soft cross-entropy as in `semantic_matching`, with a share of each target kept for the own study.

    With y and z the `soft_targets` of the labels, w the `instance_weight`, and d_ij = 1 if image i and text j
    are of one study, else 0:

        m_i  = 1 if image i has a text of its own study in the batch, else 0;   n_j likewise of text j
        y'_ij = (1 - w m_i) y_ij + w m_i d_ij / sum_j d_ij        image i over texts
        z'_ij = (1 - w n_j) z_ij + w n_j d_ij / sum_i d_ij        text j over images
        L    = (L_it + L_ti) / 2                                  as in `semantic_matching`, against y' and z'

    Items without a partner keep the targets of their labels. w = 0 is `semantic_matching`; w = 1 with one
    text an image is `info_nce`.

    Follows: Wang et al., EMNLP 2022, equations 4 to 7, and Radford et al., ICML 2021 (CLIP), figure 3.
    Departs: neither mixes them. Labels cannot tell two studies with the same findings apart; d can.

    Args:
        image_study: int (num_images,), the study of each image.
        text_study: int (num_texts,), the study of each text.
        instance_weight: w in [0, 1].
        others: as in `semantic_matching`.

    Returns:
        The loss; its kl is the divergence of the predictions from y' and z'.

    Raises:
        ValueError: an `instance_weight` outside of [0, 1]; a kernel that `label_similarity` refuses.

    >>> import numpy as np
    >>> v, t = np.eye(2, 3, dtype="float32"), np.eye(3, dtype="float32")
    >>> a, b = np.zeros((2, 4), "float32"), np.zeros((3, 4), "float32")  # no findings: uniform targets
    >>> own = {"image_study": np.array([7, 8]), "text_study": np.array([7, 8, 9])}
    >>> log_p, log_q = np.log(np.e / (np.e + 2)), np.log(np.e / (np.e + 1))
    >>> out = mixed_matching(v, t, 1.0, a, b, **own, instance_weight=1.0)
    >>> round(float(out.loss), 4), round(-(log_p + (2 * log_q + np.log(1 / 2)) / 3) / 2, 4)
    (0.4957, 0.4957)
    """
    if not 0 <= instance_weight <= 1:
        raise ValueError(
            f"`instance_weight` must be between 0 and 1. Received: {instance_weight}. 0 is semantic matching "
            "alone, 1 matches each item with its own study."
        )
    labels = image_labels, text_labels, image_known, text_known
    if tile_size:
        s_of_tile = similarity_of_tile(*labels, similarity=similarity, concept_kernel=concept_kernel)
        dtype = at_least_float32(image_embeddings).dtype
        d_of_tile = functools.partial(_same_study, image_study, text_study, dtype)
        targets = Targets(s_of_tile, target_temperature, d_of_tile, instance_weight)
        return tiled_cross_entropy(image_embeddings, text_embeddings, logit_scale, targets, tile_size)
    s = label_similarity(*labels, similarity=similarity, concept_kernel=concept_kernel)
    d = ops.cast(ops.equal(image_study[:, None], text_study[None]), s.dtype)  # (num_images, num_texts)
    y, z = soft_targets(s, target_temperature)
    y, z = _mixed(y, d, instance_weight, axis=1), _mixed(z, d, instance_weight, axis=0)
    logits = image_text_logits(image_embeddings, text_embeddings, logit_scale)  # (num_images, num_texts)
    return soft_loss(logits, y, z, s)


def _same_study(image_study: Tensor, text_study: Tensor, dtype: str, rows: Rows) -> Tensor:
    """d of a tile's images and all texts."""
    return ops.cast(ops.equal(rows(image_study)[:, None], text_study[None]), dtype)


def _mixed(target: Tensor, d: Tensor, weight: float, axis: int) -> Tensor:
    """Spread the share `weight` of a target over the partners of its item, if it has any."""
    num_partners = ops.sum(d, axis=axis, keepdims=True)
    share = weight * ops.cast(num_partners > 0, target.dtype)
    return (1 - share) * target + share * d / ops.maximum(num_partners, 1)
