"""Changes of training images, each compiled to one pass over the pixels.

TensorFlow's own operations take three times as long. The results are theirs to the bit: XLA would contract
`a * b + c` to one operation with one rounding, but not `abs(a * b) + c`, and no product here is negative.
"""

import tensorflow as tf

_FRAME = 2  # black pixels around an image, as many as are blended along a side


def warp(images: tf.Tensor, transforms: tf.Tensor, size: int) -> tf.Tensor:
    """Read images at affine positions: bilinear, black outside; to the bit as ImageProjectiveTransformV3.

    The pixel (x, y) of a result is read at

        (t_0 x + t_1 y + t_2, t_3 x + t_4 y + t_5)

    Args:
        images: (B, S, S, 1) uint8 or float32, not negative.
        transforms: (B, 8) float32, t_0 … t_7 of each image; t_6 and t_7 are 0.
        size: side of the results.

    Returns:
        (B, size, size, 1) float32.
    """
    framed = tf.pad(images[..., 0], [[0, 0], [_FRAME, _FRAME], [_FRAME, _FRAME]])
    numbers = tf.range(size, dtype=tf.float32)
    factors = tf.unstack(transforms, axis=1)  # each (B,)
    # These products are no part of the compiled function: it only adds them.
    products = [factors[n][:, None] * numbers for n in (0, 1, 3, 4)]  # each (B, size)
    return _read_between_pixels(framed, *products, factors[2], factors[5])[..., None]


@tf.function(jit_compile=True, autograph=False)
def _read_between_pixels(
    framed: tf.Tensor,
    x_by_x: tf.Tensor,
    x_by_y: tf.Tensor,
    y_by_x: tf.Tensor,
    y_by_y: tf.Tensor,
    x_offset: tf.Tensor,
    y_offset: tf.Tensor,
) -> tf.Tensor:
    """Blend the four pixels around each position (B, size, size) of images in a black frame (B, P, P)."""
    width = framed.shape[2]
    x = (x_by_x[:, None, :] + x_by_y[:, :, None]) + x_offset[:, None, None]  # (B, size, size)
    y = (y_by_x[:, None, :] + y_by_y[:, :, None]) + y_offset[:, None, None]
    left, top = tf.floor(x), tf.floor(y)
    right, bottom = left + 1.0, top + 1.0

    def place(position: tf.Tensor) -> tf.Tensor:
        """Index in the frame; positions further outside are read where it and its next are black."""
        return tf.cast(tf.clip_by_value(position, -_FRAME, width - 2.0 * _FRAME), tf.int32) + _FRAME

    pixels = tf.reshape(framed, (-1, width * width))
    places = place(top) * width + place(left)

    def read(offset: int) -> tf.Tensor:
        return tf.cast(tf.gather(pixels, places + offset, batch_dims=1), tf.float32)

    upper = tf.abs((right - x) * read(0)) + tf.abs((x - left) * read(1))
    lower = tf.abs((right - x) * read(width)) + tf.abs((x - left) * read(width + 1))
    return tf.abs((bottom - y) * upper) + tf.abs((y - top) * lower)


@tf.function(jit_compile=True, autograph=False)
def change_colours(
    images: tf.Tensor, factor: tf.Tensor, summand: tf.Tensor, scale: float = 1.0, offset: float = 0.0
) -> tf.Tensor:
    """Compute `scale * clip(factor * images + summand, 0, 255) + offset`.

    Args:
        images: (B, S, S, 1) float32, not negative.
        factor: (B,) float32, not negative.
        summand: (B,) float32.
        scale: positive.
        offset: added last.
    """
    factor, summand = factor[:, None, None, None], summand[:, None, None, None]
    clipped = tf.clip_by_value(tf.abs(factor * images) + summand, 0.0, 255.0)
    return tf.abs(clipped * scale) + offset
