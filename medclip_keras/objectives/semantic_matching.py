"""The semantic matching loss of MedCLIP: shared labels set the target of every image-text pair."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from keras import ops

from medclip_keras.objectives.cross_entropy import at_least_float32, image_text_logits, soft_loss
from medclip_keras.objectives.loss import Loss, Tensor
from medclip_keras.objectives.tiled import OfTile, Rows, Targets, tiled_cross_entropy


def label_similarity(
    image_labels: Tensor,
    text_labels: Tensor,
    image_known: Tensor = None,
    text_known: Tensor = None,
    *,
    similarity: Literal["cosine", "dot"] = "cosine",
    concept_kernel: Tensor = None,
) -> Tensor:
    """Similarity of the label vectors of every image and every text.

    With a_i the labels of image i, b_j those of text j:

        s_ij = <a_i, b_j> / (|a_i| |b_j|)      0 if either vector is zero
        s_ij = <a_i, b_j>                      with `similarity="dot"`

    A concept that is unknown on one side of a pair leaves both vectors and both norms of that pair.

    With a `concept_kernel` K, concepts have weights, and related concepts have non-zero inner products:

        <a_i, b_j> = a_i^T K b_j,      |a_i|^2 = a_i^T K a_i,      |b_j|^2 = b_j^T K b_j

    so with the masks m_i, n_j of the known concepts of image i and of text j, the three are

        sum_kl K_kl (a_ik m_il) (n_jk b_jl)
        sum_kl K_kl (a_ik a_il) (n_jk n_jl)
        sum_kl K_kl (m_ik m_il) (b_jk b_jl)      with a_ik = 0 if m_ik = 0, and b_jk = 0 if n_jk = 0

    each a matrix product over the pairs (k, l) of concepts with non-zero K_kl; K = I is the cosine above.

    Follows: Wang et al., EMNLP 2022, section 3.3 (cosine); their released code takes the dot product.
    Departs: K, which `training.concept_kernel` computes from document frequencies and the concepts' tree.

    Args:
        image_labels: float (num_images, num_findings), multi-hot {0, 1} or signed {-1, 0, 1}.
        text_labels: float (num_texts, num_findings), in the same coding.
        image_known: float (num_images, num_findings) in {0, 1}; None: all known.
        text_known: float (num_texts, num_findings) in {0, 1}; None: all known.
        similarity: "cosine" or "dot".
        concept_kernel: NumPy float (num_findings, num_findings), symmetric positive definite, or
            (num_findings,), the diagonal of one; None: identity.

    Returns:
        float32 (num_images, num_texts); in [-1, 1] for the cosine.

    Raises:
        ValueError: a kernel of another shape, or one that is not symmetric positive definite.

    >>> import numpy as np
    >>> a = np.array([[1, 0, 0], [1, 1, 0]], "float32")
    >>> b = np.array([[1, 0, 0], [0, 0, 1], [0, 0, 0]], "float32")
    >>> related = np.array([[1, 0, 0.5], [0, 1, 0], [0.5, 0, 1]])  # the third concept is half the first
    >>> np.round(label_similarity(a, b, concept_kernel=related), 3)
    array([[1.   , 0.5  , 0.   ],
           [0.707, 0.354, 0.   ]], dtype=float32)
    """
    a, b = at_least_float32(image_labels), at_least_float32(text_labels)
    known_a = ops.ones_like(a) if image_known is None else ops.cast(image_known, a.dtype)
    known_b = ops.ones_like(b) if text_known is None else ops.cast(text_known, b.dtype)
    a, b = a * known_a, b * known_b
    if concept_kernel is None:
        dot = ops.matmul(a, ops.transpose(b))  # (num_images, num_texts)
        squared_a = ops.matmul(a * a, ops.transpose(known_b))
        squared_b = ops.matmul(known_a, ops.transpose(b * b))
    else:
        product = _kernel_product(concept_kernel, a.shape[-1])
        dot = product(a, known_a, known_b, b)
        squared_a = product(a, a, known_b, known_b)
        squared_b = product(known_a, known_a, b, b)
    if similarity == "dot":
        return dot
    squared_norms = squared_a * squared_b
    return dot / ops.sqrt(ops.where(squared_norms > 0, squared_norms, ops.ones_like(squared_norms)))


def similarity_of_tile(
    image_labels: Tensor,
    text_labels: Tensor,
    image_known: Tensor = None,
    text_known: Tensor = None,
    **options: Any,
) -> OfTile:
    """`label_similarity` of a tile's images and all texts."""

    def of_tile(rows: Rows) -> Tensor:
        known = None if image_known is None else rows(image_known)
        return label_similarity(rows(image_labels), text_labels, known, text_known, **options)

    return of_tile


def _kernel_product(kernel: Tensor, num_findings: int | None) -> Callable[..., Tensor]:
    """Return the function p, q (of images), r, t (of texts) → sum_kl K_kl (p_ik q_il) (r_jk t_jl)."""
    kernel = np.asarray(kernel)
    num_findings = num_findings or len(kernel)  # labels gathered from replicas have no static shape
    if kernel.shape == (num_findings,):
        ks = ls = np.arange(num_findings)
        values, positive = kernel, np.min(kernel) > 0
    else:
        fits = kernel.shape == (num_findings, num_findings) and np.allclose(kernel, kernel.T)
        positive = fits and np.linalg.eigvalsh(kernel)[0] > 0
        ks, ls = np.nonzero(kernel) if kernel.ndim == 2 else (np.arange(0),) * 2
        values = kernel[ks, ls]
    if not positive:
        raise ValueError(
            f"`concept_kernel` must be symmetric positive definite, of shape ({num_findings}, "
            f"{num_findings}). Received: shape {kernel.shape}. Make it with training.concept_kernel."
        )

    def product(p: Tensor, q: Tensor, r: Tensor, t: Tensor) -> Tensor:
        images = ops.take(p, ks, axis=1) * ops.take(q, ls, axis=1)  # (num_images, pairs of concepts)
        texts = ops.take(r, ks, axis=1) * ops.take(t, ls, axis=1)  # (num_texts, pairs of concepts)
        return ops.matmul(images * ops.cast(values, p.dtype), ops.transpose(texts))

    return product


def soft_targets(similarity: Tensor, target_temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """Target distributions of images over texts, and of texts over images.

        y_ij = exp(s_ij / T) / sum_j exp(s_ij / T)      image i over texts
        z_ij = exp(s_ij / T) / sum_i exp(s_ij / T)      text j over images; not the transpose of y

    Follows: Wang et al., EMNLP 2022, equation 4. Departs: T, the paper has T = 1.

    Args:
        similarity: float (num_images, num_texts).
        target_temperature: T > 0; smaller is sharper.

    Returns:
        y and z, both float (num_images, num_texts): rows of y and columns of z sum to 1.
    """
    scaled = at_least_float32(similarity) / target_temperature
    return ops.softmax(scaled, axis=1), ops.softmax(scaled, axis=0)


def semantic_matching(
    image_embeddings: Tensor,
    text_embeddings: Tensor,
    logit_scale: Tensor,
    image_labels: Tensor,
    text_labels: Tensor,
    *,
    image_known: Tensor = None,
    text_known: Tensor = None,
    similarity: Literal["cosine", "dot"] = "cosine",
    target_temperature: float = 1.0,
    concept_kernel: Tensor = None,
    tile_size: int = 0,
) -> Loss:
    """Soft cross-entropy between predictions from embeddings and targets from labels, on the global batch.

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
        target_temperature: T of the soft targets.
        tile_size: images a tile of the loss (`tiled`); 0: all at once.
        others: as in `label_similarity`.

    Returns:
        The loss; its kl is the mean divergence of the predictions from the soft targets.

    >>> import numpy as np
    >>> v, t = np.eye(2, 3, dtype="float32"), np.eye(3, dtype="float32")
    >>> a, b = np.eye(2, 4, dtype="float32"), np.eye(3, 4, dtype="float32")
    >>> out = semantic_matching(v, t, 1.0, a, b)
    >>> bool(out.kl < 1e-6), out.logits.shape
    (True, TensorShape([2, 3]))
    """
    labels = image_labels, text_labels, image_known, text_known
    if tile_size:
        s_of_tile = similarity_of_tile(*labels, similarity=similarity, concept_kernel=concept_kernel)
        targets = Targets(s_of_tile, target_temperature)
        return tiled_cross_entropy(image_embeddings, text_embeddings, logit_scale, targets, tile_size)
    s = label_similarity(*labels, similarity=similarity, concept_kernel=concept_kernel)
    y, z = soft_targets(s, target_temperature)
    logits = image_text_logits(image_embeddings, text_embeddings, logit_scale)  # (num_images, num_texts)
    return soft_loss(logits, y, z, s)
