"""The loss of ConVIRT: InfoNCE at a fixed temperature, with more weight on the images' direction."""

from medclip_keras.objectives.info_nce import info_nce
from medclip_keras.objectives.loss import Loss, Tensor


def convirt(
    image_embeddings: Tensor,
    text_embeddings: Tensor,
    *,
    temperature: float = 0.1,
    image_weight: float = 0.75,
    tile_size: int = 0,
) -> Loss:
    """`info_nce` with the constants of ConVIRT.

    Follows: Zhang et al., MLHC 2022, equations 2 to 4, with tau = 0.1 and lambda = 0.75.

    Args:
        image_embeddings: float (num_pairs, D), L2-normalised.
        text_embeddings: float (num_pairs, D), L2-normalised; row i belongs to image i.
        temperature: tau > 0.
        image_weight: lambda in [0, 1].
        tile_size: as in `info_nce`.

    >>> import numpy as np
    >>> v, t = np.eye(2, 3, dtype="float32"), np.eye(3, dtype="float32")[[0, 2]]
    >>> round(float(convirt(v, t).loss), 4)
    0.3466
    """
    v, t, scale = image_embeddings, text_embeddings, 1 / temperature
    return info_nce(v, t, scale, image_weight=image_weight, tile_size=tile_size)
