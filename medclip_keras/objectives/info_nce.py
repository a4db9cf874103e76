"""The contrastive losses over pairs, of CLIP and of ConVIRT: an image's own text, and no other, is right."""

from typing import NamedTuple

from keras import ops

from medclip_keras.objectives.cross_entropy import cross_entropy, image_text_logits

CONVIRT_TEMPERATURE = 0.1
CONVIRT_IMAGE_WEIGHT = 0.75


class InfoNCE(NamedTuple):
    """A loss and its logits, float32.

    Attributes:
        loss: scalar.
        logits: (num_pairs, num_pairs), rows are images.
    """

    loss: object
    logits: object


def info_nce(image_embeddings, text_embeddings, logit_scale, *, image_weight=0.5):
    """Cross-entropy of finding each image's own text, and each text's own image, among the batch's.

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
        An `InfoNCE` in float32 (float64 where the inputs are).

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
    return InfoNCE(cross_entropy(logits, own, own, image_weight), logits)


def own_text(logits):
    """The targets of a batch of pairs: 1 where a text is the image's own, the identity.

    Args:
        logits: float (num_pairs, num_pairs).

    Returns:
        A matrix of that shape and dtype.

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


def convirt(
    image_embeddings,
    text_embeddings,
    *,
    temperature=CONVIRT_TEMPERATURE,
    image_weight=CONVIRT_IMAGE_WEIGHT,
):
    """The loss of ConVIRT: `info_nce` at a fixed temperature, with more weight on the images' direction.

    Follows: Zhang et al., MLHC 2022, equations 2 to 4, with tau = 0.1 and lambda = 0.75.

    Args:
        image_embeddings: float (num_pairs, D), L2-normalised.
        text_embeddings: float (num_pairs, D), L2-normalised; row i belongs to image i.
        temperature: tau > 0.
        image_weight: lambda in [0, 1].

    Returns:
        An `InfoNCE`.

    >>> import numpy as np
    >>> v, t = np.eye(2, 3, dtype="float32"), np.eye(3, dtype="float32")[[0, 2]]
    >>> round(float(convirt(v, t).loss), 4)
    0.3466
    """
    return info_nce(image_embeddings, text_embeddings, 1 / temperature, image_weight=image_weight)
