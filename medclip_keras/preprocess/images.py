"""Image bytes to what the image encoder sees, in the graph; Beam jobs, training and serving share these.

Two value ranges occur. Stored images are uint8 in [0, 255], one channel, black 0. Encoder inputs are float32,
`(x / 255 - 0.5863) / 0.2795`, the statistics of MedCLIP's released code.
"""

import tensorflow as tf

MEAN = 0.5863
STANDARD_DEVIATION = 0.2795


def decode_to_square(file_bytes: tf.Tensor, size: int) -> tf.Tensor:
    """Decodes a JPEG or PNG file to a gray square: what a record stores, and what serving starts from.

    The picture is centred on a black square of its longer side, then resized (bicubic, antialiased).
    16-bit PNG files keep their full range: 65535 becomes 255. Colour becomes luminance.

    Args:
        file_bytes: () string, the whole file.
        size: side of the result in pixels.

    Returns:
        (size, size, 1) uint8 in [0, 255].

    Raises:
        tf.errors.InvalidArgumentError: neither JPEG nor PNG, truncated or corrupt.
    """
    gray = tf.cond(
        tf.io.is_jpeg(file_bytes), lambda: _decode_jpeg(file_bytes), lambda: _decode_png(file_bytes)
    )  # (height, width, 1)
    square = _pad_to_square(gray)  # (side, side, 1)
    resized = tf.image.resize(square, (size, size), method="bicubic", antialias=True)  # (size, size, 1)
    return tf.saturate_cast(tf.round(resized), tf.uint8)


def decode_all_to_squares(file_bytes: tf.Tensor, size: int) -> tf.Tensor:
    """Decodes a batch of files; `decode_to_square` of each.

    Args:
        file_bytes: (B,) string.
        size: side of the results in pixels.

    Returns:
        (B, size, size, 1) uint8 in [0, 255].
    """
    return tf.map_fn(
        lambda one: decode_to_square(one, size),
        file_bytes,
        fn_output_signature=tf.TensorSpec((size, size, 1), tf.uint8),
    )


def _decode_jpeg(file_bytes: tf.Tensor) -> tf.Tensor:
    gray = tf.io.decode_jpeg(file_bytes, channels=1, dct_method="INTEGER_ACCURATE")
    return tf.cast(gray, tf.float32)


def _decode_png(file_bytes: tf.Tensor) -> tf.Tensor:
    # 8-bit files come back as value * 257, so that one division serves both depths without a loss.
    gray = tf.io.decode_png(file_bytes, channels=1, dtype=tf.uint16)
    return tf.cast(gray, tf.float32) / 257.0


def _pad_to_square(image: tf.Tensor) -> tf.Tensor:
    height, width = tf.shape(image)[0], tf.shape(image)[1]
    side = tf.maximum(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    paddings = [[top, side - height - top], [left, side - width - left], [0, 0]]
    return tf.pad(image, paddings)
