"""The contrastive losses over pairs, of CLIP and of ConVIRT: an image's own text, and no other, is right."""

from typing import NamedTuple

from keras import ops

from medclip_keras.objectives.precision import at_least_float32

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
    if image_embeddings.shape[0] != text_embeddings.shape[0]:
        raise ValueError(
            "`text_embeddings` must be one for each image. Received: "
            f"{text_embeddings.shape[0]} for {image_embeddings.shape[0]} images. Draw pairs."
        )
    v, t = at_least_float32(image_embeddings), at_least_float32(text_embeddings)
    logits = ops.cast(logit_scale, v.dtype) * ops.matmul(v, ops.transpose(t))  # (num_pairs, num_pairs)
    image_to_text = -ops.mean(ops.diagonal(ops.log_softmax(logits, axis=1)))
    text_to_image = -ops.mean(ops.diagonal(ops.log_softmax(logits, axis=0)))
    return InfoNCE(image_weight * image_to_text + (1 - image_weight) * text_to_image, logits)


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
