"""An image in any form, as the file that a server takes or as the square that records store."""

import functools
import os
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import PIL.Image
import PIL.ImageOps
from etils import epath

from medclip_keras.errors import refusal, require
from medclip_keras.evaluation.arrays import Array
from medclip_keras.sources.rows import MAX_PIXELS, ImageContent

Image: TypeAlias = str | os.PathLike[str] | bytes | PIL.Image.Image | Array


def read_square(image: Image, size: int) -> Array:
    """Bring an image to the gray square that records store: uint8 (size, size, 1).

    Raises:
        ValueError: an image that cannot be read.
    """
    import tensorflow as tf

    from medclip_keras.preprocess.images import picture_to_square, why_undecoded

    content = _content(image)
    try:
        if isinstance(content, bytes):
            square: Array = _decoder(size)(content).numpy()
        else:
            square = picture_to_square(content, size).numpy()
    except tf.errors.InvalidArgumentError as error:
        raise ValueError(
            f"it is {why_undecoded(error).replace('JPEG or PNG', 'JPEG, PNG or DICOM')}"
        ) from None
    return square


def read_file(image: Image) -> bytes:
    """Return an image as the bytes of a JPEG or PNG file: both kinds unchanged, DICOM as PNG, without loss.

    Raises:
        ValueError: an image that cannot be read.
    """
    content = _content(image)
    if not isinstance(content, bytes):
        return _png(content)
    require(len(content) <= MAX_PIXELS, "image", f"a file of at most {MAX_PIXELS:,} bytes", len(content))
    return content


def _content(image: Image) -> ImageContent:
    """The JPEG or PNG file of an image, or the picture of a DICOM file.

    Raises:
        ValueError: an image that cannot be read.
    """
    from medclip_keras.sources.dicom import decode_file  # half a second

    if isinstance(image, bytes):
        return decode_file(image)
    if not isinstance(image, str | os.PathLike):
        return _png(image)
    try:
        return decode_file(epath.Path(image).read_bytes(), os.fspath(image))
    except OSError as error:
        raise ValueError(error.strerror or type(error).__name__) from None


@functools.cache
def _decoder(size: int) -> Callable[[bytes], Any]:
    """`decode_to_square` as a traced function: single operations take twice the time."""
    import tensorflow as tf

    from medclip_keras.preprocess.images import decode_to_square

    signature = [tf.TensorSpec((), tf.string)]
    return tf.function(functools.partial(decode_to_square, size=size), input_signature=signature)


def _png(image: PIL.Image.Image | Array) -> bytes:
    """A picture as a PNG file: no value is lost, and arrays and files meet the same decoder."""
    import imagecodecs

    if isinstance(image, PIL.Image.Image):
        image = PIL.ImageOps.exif_transpose(image)  # as a file of it is turned
        if image.mode.startswith("I"):  # 16 bits
            image = np.clip(np.asarray(image), 0, 65535).astype(np.uint16)
        else:
            image = np.asarray(image.convert("L" if image.mode in ("1", "L", "LA") else "RGB"))
    form = "a path, bytes, a PIL image, or an array (H, W), (H, W, 1) or (H, W, 3) of uint8 or uint16"
    if not isinstance(image, np.ndarray):
        raise refusal("images", form, type(image).__name__)
    image = image[..., None] if image.ndim == 2 else image
    fits = (
        image.ndim == 3 and image.shape[2] in (1, 3) and image.dtype in (np.uint8, np.uint16) and image.size
    )
    require(bool(fits), "images", form, (image.shape, str(image.dtype)), "Scale floats to 0 … 65535, uint16.")
    content = imagecodecs.png_encode(image.squeeze(axis=2) if image.shape[2] == 1 else image, level=1)
    return bytes(content)
