"""Parts of all losses: precision, logits of unit embeddings, cross-entropy in both directions."""

import keras
from keras import ops

from medclip_keras.objectives.loss import Loss, Tensor

_TINY = 1e-37  # the smallest normal float32 is a little smaller


def at_least_float32(x: Tensor) -> Tensor:
    """Cast to float32, whatever the encoders' precision; keep float64, for tests of the equations."""
    x = ops.convert_to_tensor(x)
    return x if keras.backend.standardize_dtype(x.dtype) == "float64" else ops.cast(x, "float32")


def image_text_logits(image_embeddings: Tensor, text_embeddings: Tensor, logit_scale: Tensor) -> Tensor:
    """Scaled cosine of every image with every text: <v_i, t_j> / tau.

    Args:
        image_embeddings: v, float (num_images, D), L2-normalised.
        text_embeddings: t, float (num_texts, D), L2-normalised.
        logit_scale: float scalar, 1/tau.

    Returns:
        (num_images, num_texts), float32; float64 for float64 embeddings.

    >>> import numpy as np
    >>> image_text_logits(np.eye(2, 3, dtype="float32"), np.eye(3, dtype="float32"), 5.0)[1].numpy()
    array([0., 5., 0.], dtype=float32)
    """
    v, t = at_least_float32(image_embeddings), at_least_float32(text_embeddings)
    return ops.cast(logit_scale, v.dtype) * ops.matmul(v, ops.transpose(t))


def cross_entropy(logits: Tensor, y: Tensor, z: Tensor, image_weight: float = 0.5) -> Tensor:
    """Cross-entropy of the predictions against targets, of images over texts and of texts over images.

    With the targets y (rows sum to 1) and z (columns sum to 1), and w the `image_weight`:

        p_ij = exp(logits_ij) / sum_j exp(logits_ij)      image i over texts
        q_ij = exp(logits_ij) / sum_i exp(logits_ij)      text j over images
        L_it = -1/num_images sum_i sum_j y_ij log p_ij
        L_ti = -1/num_texts  sum_j sum_i z_ij log q_ij
        L    = w L_it + (1 - w) L_ti

    Args:
        logits: float (num_images, num_texts), as y and z.
        y: targets of the images.
        z: targets of the texts.
        image_weight: w in [0, 1].

    >>> import numpy as np
    >>> y, z = np.full((2, 3), 1 / 3, "float32"), np.full((2, 3), 1 / 2, "float32")
    >>> value = cross_entropy(np.zeros((2, 3), "float32"), y, z)
    >>> round(float(value), 4), round((np.log(3) + np.log(2)) / 2, 4)
    (0.8959, 0.8959)
    """
    image_to_text = -ops.mean(ops.sum(y * ops.log_softmax(logits, axis=1), axis=1))
    text_to_image = -ops.mean(ops.sum(z * ops.log_softmax(logits, axis=0), axis=0))
    return image_weight * image_to_text + (1 - image_weight) * text_to_image


def soft_loss(logits: Tensor, y: Tensor, z: Tensor, similarity: Tensor) -> Loss:
    """`Loss` against soft targets: `cross_entropy`, and its excess over the targets' entropy."""
    loss = cross_entropy(logits, y, z)
    entropy = (ops.mean(ops.sum(minus_log(y), axis=1)) + ops.mean(ops.sum(minus_log(z), axis=0))) / 2
    return Loss(loss, loss - entropy, logits, similarity)


def minus_log(share: Tensor) -> Tensor:
    """-x log x of every x in [0, 1]; 0 at 0, to which far targets round, with a finite slope."""
    return -share * ops.log(ops.maximum(share, _TINY))
