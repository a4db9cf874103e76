"""InfoNCE, the loss of CLIP: an image's own text, and no other, is right."""

from keras import ops

from medclip_keras.objectives.cross_entropy import at_least_float32, cross_entropy, image_text_logits
from medclip_keras.objectives.loss import Loss, Tensor
from medclip_keras.objectives.tiled import OfTile, Targets, tiled_cross_entropy


def info_nce(
    image_embeddings: Tensor,
    text_embeddings: Tensor,
    logit_scale: Tensor,
    *,
    image_weight: float = 0.5,
    tile_size: int = 0,
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
        tile_size: images a tile of the loss (`tiled`); 0: all at once.

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
    if tile_size:
        targets = Targets(own=_own_of_tile(image_embeddings, text_embeddings))
        learned = image_embeddings, text_embeddings, logit_scale
        return tiled_cross_entropy(*learned, targets, tile_size, image_weight=image_weight)
    logits = image_text_logits(image_embeddings, text_embeddings, logit_scale)  # (num_pairs, num_pairs)
    own = own_text(logits)
    loss = cross_entropy(logits, own, own, image_weight)
    return Loss(loss, loss, logits, own)


def own_text(logits: Tensor) -> Tensor:
    """Targets of a batch of pairs, the identity matrix like logits (num_pairs, num_pairs).

    Raises:
        ValueError: another number of images than of texts.
    """
    _require_pairs(*logits.shape)
    return ops.eye(ops.shape(logits)[0], dtype=logits.dtype)


def _own_of_tile(image_embeddings: Tensor, text_embeddings: Tensor) -> OfTile:
    """`own_text` of a tile's images and all texts."""
    _require_pairs(image_embeddings.shape[0], text_embeddings.shape[0])
    index, dtype = ops.arange(ops.shape(text_embeddings)[0]), at_least_float32(image_embeddings).dtype
    return lambda rows: ops.cast(ops.equal(rows(index)[:, None], index[None]), dtype)


def _require_pairs(num_images: int | None, num_texts: int | None) -> None:
    if num_images != num_texts:
        raise ValueError(
            f"`text_embeddings` must be one for each image. Received: {num_texts} for {num_images} images. "
            "Draw pairs."
        )
