"""TensorBoard's embedding projector: held-out images and sentences with their findings."""

import functools
import math
from collections.abc import Iterable, Sequence

import numpy as np
import PIL.Image
import tensorflow as tf
from etils import epath
from tensorboard.plugins import projector

from medclip_keras.config import IMAGE_STATISTICS
from medclip_keras.training.accumulation import in_chunks
from medclip_keras.training.model import MedCLIP

PHANTOM = "phantom"  # source of synthetic images, without patients
THUMBNAIL = 32  # pixels a side
_LARGEST = 8192 // THUMBNAIL  # most thumbnails along a side of TensorBoard's sprite image
_BLANK = 160  # gray level of a sentence's tile


def write_projector(
    model: MedCLIP,
    batches: Sequence[dict],
    names: Sequence[str],
    directory: epath.PathLike,
    *,
    thumbnails: bool = False,
) -> None:
    """Write held-out embeddings and their findings for `tensorboard --logdir`; no text, no identifier.

    The column "finding" has few values, so that TensorBoard offers it for colours: the one finding, "none" or
    "several"; "findings" names all.

    Args:
        model: with weights.
        batches: those of `records.batches.training_batches`.
        names: of the findings, in the order of the label vectors.
        directory: receives the files.
        thumbnails: show the images; only for drawn ones.
    """
    directory = epath.Path(directory)
    encode = functools.partial(model.encode, training=False)
    embed = tf.function(lambda batch: in_chunks(encode, batch, model.chunk_size))
    embeddings, labels, pictures = [], ["kind\tfinding\tfindings"], []
    for batch in batches:
        embedded = embed(batch)
        for kind in ("image", "text"):
            embeddings.append(embedded[f"{kind}_embeddings"].numpy())
            for row in np.asarray(batch[f"{kind}_labels"]):
                found = [name for name, value in zip(names, row, strict=True) if value > 0]
                one = found[0] if len(found) == 1 else "several" if found else "none"
                labels.append(f"{kind}\t{one}\t{', '.join(found) or 'none'}")
        if "images" in batch:  # else features of a frozen backbone
            pictures.append(_thumbnails(batch["images"]))
            pictures.append(np.full_like(pictures[-1], _BLANK))
    rows = ("\t".join(f"{x:.5f}" for x in row) for row in np.concatenate(embeddings))
    (directory / "embeddings.tsv").write_text("\n".join(rows) + "\n")
    (directory / "labels.tsv").write_text("\n".join(labels) + "\n")
    config = projector.ProjectorConfig()
    described = config.embeddings.add(
        tensor_name="held-out images and sentences", tensor_path="embeddings.tsv", metadata_path="labels.tsv"
    )
    if thumbnails and pictures and len(labels) - 1 <= _LARGEST**2:
        with (directory / "thumbnails.png").open("wb") as file:
            PIL.Image.fromarray(tiled(np.concatenate(pictures))).save(file, "PNG")
        described.sprite.image_path = "thumbnails.png"
        described.sprite.single_image_dim.extend([THUMBNAIL, THUMBNAIL])
    projector.visualize_embeddings(str(directory), config)


def _thumbnails(images: tf.Tensor) -> np.ndarray:
    """Normalised images float (B, S, S, 1) as gray uint8 (B, THUMBNAIL, THUMBNAIL)."""
    (mean,), (deviation,) = IMAGE_STATISTICS["medclip"]
    small = tf.image.resize(tf.cast(images, tf.float32), (THUMBNAIL, THUMBNAIL), antialias=True)
    return np.clip(255 * (small.numpy()[..., 0] * deviation + mean), 0, 255).astype(np.uint8)


def tiled(pictures: Iterable[np.ndarray]) -> np.ndarray:
    """Tile pictures (N, s, s) row by row into a square, as TensorBoard reads them.

    >>> tiled(np.arange(3).reshape(3, 1, 1)).tolist()
    [[0, 1], [2, 0]]
    """
    pictures = np.asarray(pictures)
    number, side = len(pictures), math.ceil(math.sqrt(len(pictures)))
    blank = np.zeros((side * side - number, *pictures.shape[1:]), pictures.dtype)
    grid = np.concatenate([pictures, blank]).reshape(side, side, *pictures.shape[1:])
    return np.block([list(row) for row in grid])
