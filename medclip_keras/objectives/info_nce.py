"""InfoNCE, the loss of CLIP: an image's own text, and no other, is right."""

from keras import ops

from medclip_keras.objectives.cross_entropy import cross_entropy, image_text_logits
from medclip_keras.objectives.loss import Loss, Tensor


def info_nce(
    image_embeddings: Tensor, text_embeddings: Tensor, logit_scale: Tensor, *, image_weight: float = 0.5
) -> Loss:
    """Cross-entropy of finding each image's own text, and each text's own image, in the batch.

    With v_i, t_i the unit embeddings of pair i, 1/tau the `logit_scale` and w the `image_weight`:

        L_it = -1/N sum_i log( exp(<v_i, t_i> / tau) / sum_j exp(<v_i, t_j> / tau) )
        L_ti = -1/N sum_i log( exp(<v_i, t_i> / tau) / sum_j exp(<v_j, t_i> / tau) )
        L    = w L_it + (1 - w) L_ti

    Follows: Radford et al., ICML 2021 (CLIP), figure 3, where w = 1/2 and tau is learned.

    Args:
        image_embeddings: float (num_pairs, D), L2-normalised.
        text_embeddings: float (num_pairs, D), L2-normalised; row i belongs to image i.
        logit_scale: float scalar, 1/tau.
        image_weight: w in [0, 1], the share of the direction image to text.

    Returns:
        The loss of (num_pairs, num_pairs) logits.

    Raises:
        ValueError: another number of images than of texts.

    >>> import numpy as np
    >>> v = np.array([[1, 0, 0], [0, 1, 0]], "float32")
    >>> out = info_nce(v, v, 1.0)
    >>> round(float(out.loss), 4), round(float(np.log(1 + np.exp(-1))), 4)
    (0.3133, 0.3133)
    """
    logits = image_text_logits(image_embeddings, text_embeddings, logit_scale)  # (num_pairs, num_pairs)
    own = own_text(logits)
    loss = cross_entropy(logits, own, own, image_weight)
    return Loss(loss, loss, logits, own)


def own_text(logits: Tensor) -> Tensor:
    """Targets of a batch of pairs, the identity matrix like logits (num_pairs, num_pairs).

    Raises:
        ValueError: another number of images than of texts.
    """
    num_images, num_texts = logits.shape
    if num_images != num_texts:
        raise ValueError(
            f"`text_embeddings` must be one for each image. Received: {num_texts} for {num_images} images. "
            "Draw pairs."
        )
    return ops.eye(ops.shape(logits)[0], dtype=logits.dtype)
