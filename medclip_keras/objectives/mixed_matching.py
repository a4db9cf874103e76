"""Semantic and instance matching in one: labels say what is alike, and a pair says what belongs together."""

from keras import ops

from medclip_keras.objectives.cross_entropy import cross_entropy, entropy, image_text_logits
from medclip_keras.objectives.semantic_matching import SemanticMatching, label_similarity, soft_targets


def mixed_matching(
    image_embeddings,
    text_embeddings,
    logit_scale,
    image_labels,
    text_labels,
    same_study,
    *,
    instance_weight=0.5,
    image_known=None,
    text_known=None,
    similarity="cosine",
    target_temperature=1.0,
    concept_kernel=None,
):
    """Soft cross-entropy as in `semantic_matching`, with a share of each target kept for the own study.

    With y and z the `soft_targets` of the labels, d the `same_study` and w the `instance_weight`:

        m_i  = 1 where image i has a text of its own study in the batch, otherwise 0;   n_j likewise of text j
        y'_ij = (1 - w m_i) y_ij + w m_i d_ij / sum_j d_ij        image i over texts
        z'_ij = (1 - w n_j) z_ij + w n_j d_ij / sum_i d_ij        text j over images
        L    = (L_it + L_ti) / 2                                  as in `semantic_matching`, against y' and z'

    Items without a partner keep the targets of their labels. w = 0 is `semantic_matching`; w = 1 with one
    text an image is `info_nce`.

    Follows: Wang et al., EMNLP 2022, equations 4 to 7, and Radford et al., ICML 2021 (CLIP), figure 3.
    Departs: neither mixes them. Labels cannot tell two studies with the same findings apart; d can.

    Args:
        image_embeddings: float (num_images, D), L2-normalised.
        text_embeddings: float (num_texts, D), L2-normalised.
        logit_scale: float scalar, 1/tau.
        image_labels: float (num_images, num_findings).
        text_labels: float (num_texts, num_findings).
        same_study: d, (num_images, num_texts), 1 where image and text are of one study, otherwise 0.
        instance_weight: w in [0, 1].
        image_known: float (num_images, num_findings) in {0, 1} or None.
        text_known: float (num_texts, num_findings) in {0, 1} or None.
        similarity: "cosine" or "dot".
        target_temperature: T of the soft targets.
        concept_kernel: NumPy float (num_findings, num_findings) of `label_similarity`, or None.

    Returns:
        A `SemanticMatching` in float32 (float64 where the inputs are); its kl is that from y' and z'.

    Raises:
        ValueError: an `instance_weight` outside of [0, 1]; a kernel that `label_similarity` refuses.

    >>> import numpy as np
    >>> v, t = np.eye(2, 3, dtype="float32"), np.eye(3, dtype="float32")
    >>> a, b = np.zeros((2, 4), "float32"), np.zeros((3, 4), "float32")  # no findings: uniform targets
    >>> own = np.eye(2, 3)  # the third text belongs to no image
    >>> log_p, log_q = np.log(np.e / (np.e + 2)), np.log(np.e / (np.e + 1))
    >>> out = mixed_matching(v, t, 1.0, a, b, own, instance_weight=1.0)
    >>> round(float(out.loss), 4), round(-(log_p + (2 * log_q + np.log(1 / 2)) / 3) / 2, 4)
    (0.4957, 0.4957)
    """
    if not 0 <= instance_weight <= 1:
        raise ValueError(
            f"`instance_weight` must be between 0 and 1. Received: {instance_weight}. 0 is semantic matching "
            "alone, 1 matches each item with its own study."
        )
    s = label_similarity(image_labels, text_labels, image_known, text_known, similarity, concept_kernel)
    d = ops.cast(same_study, s.dtype)
    y, z = (
        _mixed(target, d, instance_weight, axis)
        for target, axis in zip(soft_targets(s, target_temperature), (1, 0), strict=True)
    )
    logits = image_text_logits(image_embeddings, text_embeddings, logit_scale)  # (num_images, num_texts)
    loss = cross_entropy(logits, y, z)
    return SemanticMatching(loss, loss - entropy(y, z), logits, s)


def _mixed(target, d, weight, axis):
    """The share `weight` of a target is spread over the partners, where there are any."""
    num_partners = ops.sum(d, axis=axis, keepdims=True)
    share = weight * ops.cast(num_partners > 0, target.dtype)
    return (1 - share) * target + share * d / ops.maximum(num_partners, 1)
