"""Sigmoid matching: an independent binary classification per image-text pair, with targets from labels."""

from typing import Literal

from keras import ops

from medclip_keras.objectives.cross_entropy import image_text_logits, minus_log
from medclip_keras.objectives.loss import Loss, Tensor
from medclip_keras.objectives.semantic_matching import label_similarity, similarity_of_tile
from medclip_keras.objectives.tiled import tiled_binary_cross_entropy


def sigmoid_matching(
    image_embeddings: Tensor,
    text_embeddings: Tensor,
    logit_scale: Tensor,
    image_labels: Tensor,
    text_labels: Tensor,
    *,
    logit_bias: Tensor,
    image_known: Tensor = None,
    text_known: Tensor = None,
    similarity: Literal["cosine", "dot"] = "cosine",
    concept_kernel: Tensor = None,
    tile_size: int = 0,
) -> Loss:
    """Binary cross-entropy of every image with every text against the similarity of their labels.

    With v_i, t_j the embeddings of unit length, s the `label_similarity`, 1/tau the `logit_scale` and b the
    `logit_bias`, sigmoid(x) = 1 / (1 + exp(-x)):

        x_ij = <v_i, t_j> / tau + b
        g_ij = min(max(s_ij, 0), 1)                                         soft target
        e_ij = -g_ij log sigmoid(x_ij) - (1 - g_ij) log sigmoid(-x_ij)
        L    = (1/num_images + 1/num_texts) / 2 * sum_ij e_ij

    Without a softmax a target does not depend on the other pairs of the batch: a frequent finding keeps
    targets of 1.

    Follows: Zhai et al., ICCV 2023 (SigLIP), section 3.2, with the signs of algorithm 1; log(1/tau) and b are
    learned, from log 10 and -10.
    Departs: soft targets, theirs are 1 on the diagonal and 0 elsewhere; the mean over both directions, which
    equals their division by the batch size for as many texts as images.

    Args:
        logit_bias: float scalar, b.
        others: as in `semantic_matching`.

    Returns:
        The loss; its logits include the bias, its similarity is that of the labels before clipping.

    Raises:
        ValueError: a kernel that `label_similarity` refuses.

    >>> import numpy as np
    >>> v, t = np.eye(2, 3, dtype="float32"), np.eye(3, dtype="float32")
    >>> a, b = np.eye(2, 4, dtype="float32"), np.eye(3, 4, dtype="float32")
    >>> # Two of the six pairs match; all logits are 1 or -1.
    >>> out = sigmoid_matching(v, t, 2.0, a, b, logit_bias=-1.0)
    >>> round(float(out.loss), 4), round((1 / 2 + 1 / 3) / 2 * 6 * np.log(1 + np.exp(-1)), 4)
    (0.7832, 0.7832)
    """
    labels = image_labels, text_labels, image_known, text_known
    if tile_size:
        s_of_tile = similarity_of_tile(*labels, similarity=similarity, concept_kernel=concept_kernel)
        learned = image_embeddings, text_embeddings, logit_scale, logit_bias
        return tiled_binary_cross_entropy(*learned, s_of_tile, tile_size)
    s = label_similarity(*labels, similarity=similarity, concept_kernel=concept_kernel)
    g = ops.clip(s, 0, 1)
    products = image_text_logits(image_embeddings, text_embeddings, logit_scale)
    logits = products + ops.cast(logit_bias, products.dtype)  # (num_images, num_texts)
    loss = _per_item(g * ops.softplus(-logits) + (1 - g) * ops.softplus(logits))
    return Loss(loss, loss - _per_item(minus_log(g) + minus_log(1 - g)), logits, s)


def _per_item(pairs: Tensor) -> Tensor:
    """Mean over the images of their sums, and the same of the texts, halved."""
    return (ops.mean(ops.sum(pairs, axis=1)) + ops.mean(ops.sum(pairs, axis=0))) / 2
