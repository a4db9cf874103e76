"""The semantic matching loss of MedCLIP: what image and sentence share says how close they must be."""

from typing import NamedTuple

import keras
from keras import ops


class SemanticMatching(NamedTuple):
    """Losses and what a reader wants to look at; all float32.

    Attributes:
        loss: scalar, the mean of both directions.
        kl: scalar, the mean Kullback-Leibler divergence of the prediction from the soft target: the loss less
            the targets' entropy, which no model can remove. 0 is perfect.
        logits: (num_images, num_texts).
        similarity: (num_images, num_texts), that of the labels.
    """

    loss: object
    kl: object
    logits: object
    similarity: object


def label_similarity(image_labels, text_labels, image_known=None, text_known=None, similarity="cosine"):
    """Similarity of the label vectors of every image and every text.

    With a_i the labels of image i, b_j those of text j:

        s_ij = <a_i, b_j> / (|a_i| |b_j|)      0 where either vector is zero
        s_ij = <a_i, b_j>                      with `similarity="dot"`

    A concept that is not known on one side of a pair leaves both vectors and both norms of that pair.

    Follows: Wang et al., EMNLP 2022, section 3.3 (cosine); their released code takes the dot product.

    Args:
        image_labels: float (num_images, num_findings), multi-hot {0, 1} or signed {-1, 0, 1}.
        text_labels: float (num_texts, num_findings), in the same coding.
        image_known: float (num_images, num_findings) in {0, 1}; None: all known.
        text_known: float (num_texts, num_findings) in {0, 1}; None: all known.
        similarity: "cosine" or "dot".

    Returns:
        float32 (num_images, num_texts); in [-1, 1] for the cosine.

    >>> import numpy as np
    >>> a = np.array([[1, 0, 0], [1, 1, 0]], "float32")
    >>> b = np.array([[1, 0, 0], [0, 0, 1], [0, 0, 0]], "float32")
    >>> np.round(label_similarity(a, b), 3)
    array([[1.   , 0.   , 0.   ],
           [0.707, 0.   , 0.   ]], dtype=float32)
    """
    a, b = _at_least_float32(image_labels), _at_least_float32(text_labels)
    known_a = ops.ones_like(a) if image_known is None else ops.cast(image_known, a.dtype)
    known_b = ops.ones_like(b) if text_known is None else ops.cast(text_known, b.dtype)
    a, b = a * known_a, b * known_b
    dot = ops.matmul(a, ops.transpose(b))  # (num_images, num_texts)
    if similarity == "dot":
        return dot
    squared_norms = ops.matmul(a * a, ops.transpose(known_b)) * ops.matmul(known_a, ops.transpose(b * b))
    return dot / ops.sqrt(ops.where(squared_norms > 0, squared_norms, ops.ones_like(squared_norms)))


def soft_targets(similarity, target_temperature=1.0):
    """Distributions that the predictions are held to, one a row and one a column.

        y_ij = exp(s_ij / T) / sum_j exp(s_ij / T)      image i over texts
        z_ij = exp(s_ij / T) / sum_i exp(s_ij / T)      text j over images; not the transpose of y

    Follows: Wang et al., EMNLP 2022, equation 4. Departs: T, the paper has T = 1.

    Args:
        similarity: float (num_images, num_texts).
        target_temperature: T > 0; smaller is sharper.

    Returns:
        y and z, both float (num_images, num_texts): rows of y and columns of z sum to 1.
    """
    scaled = _at_least_float32(similarity) / target_temperature
    return ops.softmax(scaled, axis=1), ops.softmax(scaled, axis=0)


def semantic_matching(
    image_embeddings,
    text_embeddings,
    logit_scale,
    image_labels,
    text_labels,
    *,
    image_known=None,
    text_known=None,
    similarity="cosine",
    target_temperature=1.0,
):
    """Soft cross-entropy between what embeddings predict and what labels say, over the global batch.

    With v_i, t_j the embeddings of unit length, y and z the `soft_targets`, 1/tau the `logit_scale`:

        p_ij = exp(<v_i, t_j> / tau) / sum_j exp(<v_i, t_j> / tau)
        q_ij = exp(<v_i, t_j> / tau) / sum_i exp(<v_i, t_j> / tau)
        L_it = -1/num_images sum_i sum_j y_ij log p_ij
        L_ti = -1/num_texts  sum_j sum_i z_ij log q_ij
        L    = (L_it + L_ti) / 2

    Follows: Wang et al., EMNLP 2022, equations 4 to 7. Departs: the paper prints the sum of p over i;
    it is taken over the candidates j, as the released code does.

    Args:
        image_embeddings: float (num_images, D), L2-normalised.
        text_embeddings: float (num_texts, D), L2-normalised.
        logit_scale: float scalar, 1/tau.
        image_labels: float (num_images, num_findings).
        text_labels: float (num_texts, num_findings).
        image_known: float (num_images, num_findings) in {0, 1} or None.
        text_known: float (num_texts, num_findings) in {0, 1} or None.
        similarity: "cosine" (paper) or "dot" (released code).
        target_temperature: T of the soft targets.

    Returns:
        A `SemanticMatching` in float32 (float64 where the inputs are).

    >>> import numpy as np
    >>> v, t = np.eye(2, 3, dtype="float32"), np.eye(3, dtype="float32")
    >>> a, b = np.eye(2, 4, dtype="float32"), np.eye(3, 4, dtype="float32")
    >>> out = semantic_matching(v, t, 1.0, a, b)
    >>> bool(out.kl < 1e-6), out.logits.shape
    (True, TensorShape([2, 3]))
    """
    s = label_similarity(image_labels, text_labels, image_known, text_known, similarity)
    y, z = soft_targets(s, target_temperature)
    v, t = _at_least_float32(image_embeddings), _at_least_float32(text_embeddings)
    logits = ops.cast(logit_scale, v.dtype) * ops.matmul(v, ops.transpose(t))  # (num_images, num_texts)
    log_p, log_q = ops.log_softmax(logits, axis=1), ops.log_softmax(logits, axis=0)
    image_to_text = -ops.mean(ops.sum(y * log_p, axis=1))
    text_to_image = -ops.mean(ops.sum(z * log_q, axis=0))
    loss = (image_to_text + text_to_image) / 2
    entropy = -(ops.mean(ops.sum(y * ops.log(y), axis=1)) + ops.mean(ops.sum(z * ops.log(z), axis=0))) / 2
    return SemanticMatching(loss, loss - entropy, logits, s)


def _at_least_float32(x):
    x = ops.convert_to_tensor(x)
    return x if keras.backend.standardize_dtype(x.dtype) == "float64" else ops.cast(x, "float32")
