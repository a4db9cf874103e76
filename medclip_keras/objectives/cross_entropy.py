"""What the losses share: logits of unit embeddings, and their cross-entropy against targets, both ways."""

from keras import ops

from medclip_keras.objectives.precision import at_least_float32

_TINY = 1e-37  # the smallest normal float32 is a little smaller


def image_text_logits(image_embeddings, text_embeddings, logit_scale):
    """How close every image and every text are: <v_i, t_j> / tau.

    Args:
        image_embeddings: v, float (num_images, D), L2-normalised.
        text_embeddings: t, float (num_texts, D), L2-normalised.
        logit_scale: float scalar, 1/tau.

    Returns:
        float32 (num_images, num_texts), float64 where the embeddings are.

    >>> import numpy as np
    >>> image_text_logits(np.eye(2, 3, dtype="float32"), np.eye(3, dtype="float32"), 5.0)[1].numpy()
    array([0., 5., 0.], dtype=float32)
    """
    v, t = at_least_float32(image_embeddings), at_least_float32(text_embeddings)
    return ops.cast(logit_scale, v.dtype) * ops.matmul(v, ops.transpose(t))


def cross_entropy(logits, y, z, image_weight=0.5):
    """Cross-entropy of the predictions against targets, of images over texts and of texts over images.

    With the targets y (rows sum to 1) and z (columns sum to 1), and w the `image_weight`:

        p_ij = exp(logits_ij) / sum_j exp(logits_ij)      image i over texts
        q_ij = exp(logits_ij) / sum_i exp(logits_ij)      text j over images
        L_it = -1/num_images sum_i sum_j y_ij log p_ij
        L_ti = -1/num_texts  sum_j sum_i z_ij log q_ij
        L    = w L_it + (1 - w) L_ti

    Args:
        logits: float (num_images, num_texts).
        y: float (num_images, num_texts), targets of the images.
        z: float (num_images, num_texts), targets of the texts.
        image_weight: w in [0, 1].

    Returns:
        A scalar.

    >>> import numpy as np
    >>> y, z = np.full((2, 3), 1 / 3, "float32"), np.full((2, 3), 1 / 2, "float32")
    >>> value = cross_entropy(np.zeros((2, 3), "float32"), y, z)
    >>> round(float(value), 4), round((np.log(3) + np.log(2)) / 2, 4)
    (0.8959, 0.8959)
    """
    image_to_text = -ops.mean(ops.sum(y * ops.log_softmax(logits, axis=1), axis=1))
    text_to_image = -ops.mean(ops.sum(z * ops.log_softmax(logits, axis=0), axis=0))
    return image_weight * image_to_text + (1 - image_weight) * text_to_image


def entropy(y, z, image_weight=0.5):
    """Entropy of the targets: what is left of `cross_entropy` where the predictions equal them.

    Args:
        y: float (num_images, num_texts), rows sum to 1.
        z: float (num_images, num_texts), columns sum to 1.
        image_weight: w of `cross_entropy`.

    Returns:
        A scalar.

    >>> import numpy as np
    >>> y, z = np.full((2, 3), 1 / 3, "float32"), np.full((2, 3), 1 / 2, "float32")
    >>> round(float(entropy(y, z)), 4), round((np.log(3) + np.log(2)) / 2, 4)
    (0.8959, 0.8959)
    """
    images, texts = ops.mean(ops.sum(minus_log(y), axis=1)), ops.mean(ops.sum(minus_log(z), axis=0))
    return image_weight * images + (1 - image_weight) * texts


def minus_log(share):
    """-x log x of every x in [0, 1]; 0 at 0, to which far targets round, with a finite slope."""
    return -share * ops.log(ops.maximum(share, _TINY))
