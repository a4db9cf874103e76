"""From image bytes to encoder inputs, in the graph; shared by Beam jobs, training and serving.

There are two value ranges. Stored images are uint8 in [0, 255], one channel, black 0. Encoder inputs are
float32, `(x / 255 - 0.5863) / 0.2795`, by the statistics of MedCLIP's released code.
"""

import functools
import math

import tensorflow as tf

from medclip_keras.config import IMAGE_STATISTICS, AugmentConfig
from medclip_keras.preprocess.orientation import names_orientation, orientation_of, upright
from medclip_keras.preprocess.warp import change_colours, warp
from medclip_keras.sources.rows import MAX_PIXELS, MAX_SIDE

(MEAN,), (STANDARD_DEVIATION,) = IMAGE_STATISTICS["medclip"]
_NORMALISATION = 1.0 / (255.0 * STANDARD_DEVIATION), -MEAN / STANDARD_DEVIATION  # scale and offset
BLURRED_SIDE = 224  # `AugmentConfig.blur_sigma` is in pixels of this side; other sides in proportion
MAX_SQUARE = 8192  # side of the largest square that a picture is padded to: MAX_PIXELS again
# Of files that a server decodes; the first is half of MAX_PIXELS in 16 bits, not compressed.
MAX_FILE_BYTES = 2**26
MAX_PASSES = (
    100  # over a JPEG file's pixels; progressive files have about ten, and few bytes can ask for many
)
MAX_COMPRESSED_TEXTS = 20  # chunks of a PNG file, of 8 MB each when decompressed
DECODED_AT_ONCE = 4  # of a batch: each takes up to a gigabyte
_TOO_LARGE = f"a picture of more than {MAX_PIXELS:,} pixels, or {MAX_SIDE:,} a side"
STORED_PER_CROP = 256 / 224  # the paper crops 224 of 256; other sizes in proportion
# One uniform random number an image for each; the order decides which number of the seed it is.
_DRAWS = (
    "flip", "angle", "shift_x", "shift_y", "scale", "corner_x", "corner_y", "brightness", "contrast", "share",
    "blur",
)  # fmt: skip


def decode_to_square(file_bytes: tf.Tensor, size: int) -> tf.Tensor:
    """Decode a JPEG or PNG file to a gray square, for records and serving.

    The picture is turned upright by its EXIF orientation, centred on a black square of its longer side, then
    resized (bicubic, antialiased). 16-bit PNG files keep their full range: 65535 becomes 255. Colour (also
    CMYK and palettes) becomes luminance, transparency is ignored, and an animation is its first picture.

    Memory is bounded: sizes are read from the header, and larger files than `MAX_PIXELS`, `MAX_SIDE` are
    refused before they are decoded.

    Args:
        file_bytes: () string, the whole file.
        size: side of the result in pixels.

    Returns:
        (size, size, 1) uint8 in [0, 255].

    Raises:
        tf.errors.InvalidArgumentError: neither JPEG nor PNG, truncated, corrupt or too large.
    """
    return tf.cond(
        tf.io.is_jpeg(file_bytes),
        lambda: _decode_jpeg(file_bytes, size),
        lambda: _decode_png(file_bytes, size),
    )


def picture_to_square(picture: tf.Tensor, size: int) -> tf.Tensor:
    """`decode_to_square` of decoded pixels (height, width) uint16, 65535 white, as of a 16-bit PNG file."""
    return _resize_to_square(_scale_16_bits(picture[..., None]), size)


def why_undecoded(error: tf.errors.InvalidArgumentError) -> str:
    """The reason why `decode_to_square` refused a file."""
    return _TOO_LARGE if _TOO_LARGE in str(error) else "not a whole JPEG or PNG file"


def decode_all_to_squares(file_bytes: tf.Tensor, size: int) -> tf.Tensor:
    """`decode_to_square` of each file of a batch: (B,) string to (B, size, size, 1) uint8."""
    return tf.map_fn(
        lambda one: decode_to_square(one, size),
        file_bytes,
        fn_output_signature=tf.TensorSpec((size, size, 1), tf.uint8),
    )


def decode_readable(file_bytes: tf.Tensor, size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """`decode_to_square` of each file that can be decoded: one unreadable file does not lose the others.

    Args:
        file_bytes: (B,) string, whole files. Those over `MAX_FILE_BYTES`, `MAX_PASSES` or
            `MAX_COMPRESSED_TEXTS` are not decoded.
        size: side of the results in pixels.

    Returns:
        (B, size, size, 1) uint8 in [0, 255], black where a file is not decoded, and (B,) bool, whether it is.
    """
    num_files = tf.size(file_bytes, tf.int64)

    def decode(position: tf.Tensor, one: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.control_dependencies([tf.debugging.Assert(_is_cheap(one), [_TOO_LARGE])]):
            return position, decode_to_square(one, size)

    files = tf.data.Dataset.from_tensor_slices(file_bytes).enumerate()
    decoded = files.map(decode, num_parallel_calls=DECODED_AT_ONCE).ignore_errors()
    nothing = tf.data.Dataset.from_tensors((num_files, tf.zeros((size, size, 1), tf.uint8)))
    batch = decoded.concatenate(nothing).batch(num_files + 1)  # a dataset must not be empty
    positions, squares = batch.get_single_element()
    positions, shape = positions[:-1, None], tf.stack([num_files, size, size, 1])
    is_decoded = tf.scatter_nd(positions, tf.ones_like(positions[:, 0], tf.int32), num_files[None]) > 0
    return tf.ensure_shape(tf.scatter_nd(positions, squares[:-1], shape), (None, size, size, 1)), is_decoded


def for_evaluation(images: tf.Tensor, image_size: int) -> tf.Tensor:
    """Bring stored images to the encoder's size and statistics, without random changes.

    Args:
        images: (B, S, S, 1) uint8 in [0, 255].
        image_size: side that the encoder sees; by a bicubic antialiased resize if it is not S.

    Returns:
        (B, image_size, image_size, 1) float32, normalised.

    >>> import numpy as np
    >>> black_and_white = np.uint8([0, 255])[:, None, None, None]
    >>> [f"{x:.4f}" for x in for_evaluation(black_and_white, 1).numpy().ravel()]
    ['-2.0977', '1.4801']
    """
    return normalise(_resize(images, image_size))


def augment(images: tf.Tensor, image_size: int, config: AugmentConfig, seeds: tf.Tensor) -> tf.Tensor:
    """Change training images at random: flip, affine map, crop, then brightness, contrast and blur.

    With u_1 … u_11 uniform in [0, 1), drawn per image from its own seed, and c the image's centre, the pixel
    at p of the result is read (bilinear, black outside) at

        q = c + R(angle)^-1 (g p + o - c - t) / k,   mirrored if u < flip

    where o is the crop's corner, g the share of its side that is kept and enlarged, t the translation and k
    the scale. Then, x in [0, 1] and m its mean,

        x' = clip(f (x - m) + m + b, 0, 1),

    blurred by a Gaussian if `config.blur_sigma` is not zero (as ConVIRT, Zhang et al., MLHC 2022).

    An image's result is a pure function of the image and its seed, independent of the rest of the batch.

    Follows: the transforms of MedCLIP's released code (values of `AugmentConfig`).
    Departs: flip, affine map and crop are one projective transform, so pixels are resampled once and not
        twice; colour changes come last, on the crop, and brightness adds, torchvision multiplies.

    Args:
        images: (B, S, S, 1) uint8 in [0, 255].
        image_size: side that the encoder sees, at most S. With `config.crop` it is the side of a random
            window of the stored image, which is first resized, as in `for_evaluation`, if it is more than
            256/224 times as large; without, the whole image is resized to it.
        config: ranges of the random values.
        seeds: (B, 2) int32, one seed an image.

    Returns:
        (B, image_size, image_size, 1) float32, normalised.
    """
    side = min(images.shape[1], round(image_size * STORED_PER_CROP)) if config.crop else image_size
    images = _resize(images, side)  # (B, side, side, 1)
    draws = dict(zip(_DRAWS, tf.unstack(_uniform_per_image(seeds, len(_DRAWS)), axis=1), strict=True))
    transforms = _crop_transforms(draws, side, image_size, config)  # (B, 8)
    images = warp(images, transforms, image_size)  # (B, image_size, image_size, 1)
    shift = 255.0 * config.brightness * (2.0 * draws["brightness"] - 1.0)
    factor = 1.0 + config.contrast * (2.0 * draws["contrast"] - 1.0)
    summand = (1.0 - factor) * tf.reduce_mean(images, axis=(1, 2, 3)) + shift  # (B,)
    if max(config.blur_sigma) == 0:
        return change_colours(images, factor, summand, *_NORMALISATION)
    images = change_colours(images, factor, summand)
    lowest, highest = (sigma * image_size / BLURRED_SIDE for sigma in config.blur_sigma)
    return normalise(_blur(images, lowest + (highest - lowest) * draws["blur"], highest))


def normalise(images: tf.Tensor) -> tf.Tensor:
    """Map uint8 or float32 in [0, 255], of any shape, to float32 `(x / 255 - mean) / standard deviation`."""
    scale, offset = _NORMALISATION
    return tf.cast(images, tf.float32) * scale + offset


def _resize(images: tf.Tensor, image_size: int) -> tf.Tensor:
    """Resize stored images to a side, float32; unchanged at their own side."""
    if images.shape[1] == image_size and images.shape[2] == image_size:
        return images
    resized = tf.image.resize(images, (image_size, image_size), method="bicubic", antialias=True)
    return tf.clip_by_value(resized, 0.0, 255.0)  # bicubic overshoots at edges


def _uniform_per_image(seeds: tf.Tensor, num_values: int) -> tf.Tensor:
    # A generator per image, not one per batch: a batch's composition must not matter.
    return tf.map_fn(
        lambda seed: tf.random.stateless_uniform((num_values,), seed, alg="philox"),
        seeds,
        fn_output_signature=tf.TensorSpec((num_values,), tf.float32),
    )  # (B, num_values)


def _crop_transforms(
    draws: dict[str, tf.Tensor], side: int, image_size: int, config: AugmentConfig
) -> tf.Tensor:
    """The map from the result's pixels to the stored image's, in the form of ImageProjectiveTransformV3."""
    mirrored = draws["flip"] < config.flip
    angle = math.radians(config.rotation_degrees) * (2.0 * draws["angle"] - 1.0)
    shift_x, shift_y = (config.translation * side * (2.0 * draws[n] - 1.0) for n in ("shift_x", "shift_y"))
    smallest, largest = config.scale
    scale = smallest + (largest - smallest) * draws["scale"]
    least, most = config.crop_share
    share = least + (most - least) * draws["share"]  # (B,)
    room = tf.floor(side - 1.0 - share * (image_size - 1.0)) + 1.0  # corners whose last pixel is in the image
    corner_x, corner_y = (tf.floor(draws[name] * room) for name in ("corner_x", "corner_y"))

    centre = (side - 1) / 2.0
    cosine, sine = tf.cos(angle) / scale, tf.sin(angle) / scale
    offset_x, offset_y = corner_x - centre - shift_x, corner_y - centre - shift_y
    # q_x = cosine * (share * x + offset_x) + sine * (share * y + offset_y) + centre, and its mirror image.
    sign = tf.where(mirrored, -1.0, 1.0)
    rows = [
        sign * cosine * share,
        sign * sine * share,
        sign * (cosine * offset_x + sine * offset_y) + centre,
        -sine * share,
        cosine * share,
        -sine * offset_x + cosine * offset_y + centre,
        tf.zeros_like(angle),
        tf.zeros_like(angle),
    ]
    return tf.stack(rows, axis=1)  # (B, 8)


def _blur(images: tf.Tensor, sigmas: tf.Tensor, highest: float) -> tf.Tensor:
    """Blur images (B, S, S, 1) by Gaussians of widths (B,); edges are mirrored."""
    radius = min(math.ceil(3 * highest), images.shape[1] - 1)
    offsets = tf.range(-radius, radius + 1, dtype=tf.float32)
    weights = tf.exp(-(offsets[:, None] ** 2) / (2.0 * tf.maximum(sigmas, 1e-3) ** 2))  # (taps, B)
    weights /= tf.reduce_sum(weights, axis=0)
    # The images become the channels of one image, so that each has its own kernel.
    channels = tf.transpose(images, (3, 1, 2, 0))  # (1, S, S, B)
    channels = tf.pad(channels, [[0, 0], [radius, radius], [radius, radius], [0, 0]], mode="REFLECT")
    for kernel in (weights[:, None, :, None], weights[None, :, :, None]):
        channels = tf.nn.depthwise_conv2d(channels, kernel, strides=(1, 1, 1, 1), padding="VALID")
    return tf.transpose(channels, (3, 1, 2, 0))  # (B, S, S, 1)


def _is_cheap(file_bytes: tf.Tensor) -> tf.Tensor:
    """Whether a file takes little time to decode for its size; few bytes can ask for hours: () bool."""

    def occurs_at_most(times: int, *markers: bytes) -> tf.Tensor:
        return tf.add_n([tf.size(tf.strings.split(file_bytes, one)) - 1 for one in markers]) <= times

    return tf.cond(
        tf.strings.length(file_bytes) > MAX_FILE_BYTES,
        lambda: False,
        lambda: tf.cond(
            tf.io.is_jpeg(file_bytes),
            lambda: occurs_at_most(MAX_PASSES, b"\xff\xda"),
            lambda: occurs_at_most(MAX_COMPRESSED_TEXTS, b"zTXt", b"iTXt"),
        ),
    )


def _decode_jpeg(file_bytes: tf.Tensor, size: int) -> tf.Tensor:
    shape = tf.image.extract_jpeg_shape(file_bytes)  # height, width, colours; by the header alone
    is_cmyk, may_be_turned = shape[2] == 4, names_orientation(file_bytes)
    decode = functools.partial(tf.io.decode_jpeg, file_bytes, dct_method="INTEGER_ACCURATE")

    def carefully() -> tf.Tensor:
        with tf.control_dependencies([_refuse_large(shape[:2])]):
            gray = tf.cond(
                is_cmyk, lambda: tf.image.rgb_to_grayscale(decode(channels=3)), lambda: decode(channels=1)
            )  # (height, width, 1)
        return _resize_to_square(upright(gray, orientation_of(file_bytes, may_be_turned)), size)

    is_plain = tf.reduce_all(shape[:2] <= MAX_SQUARE) & ~is_cmyk & ~may_be_turned
    return tf.cond(is_plain, lambda: _resize_at_once(decode(channels=1), size), carefully)


def _decode_png(file_bytes: tf.Tensor, size: int) -> tf.Tensor:
    # A file that ends in its header is read as if zeros followed: an error would print the file's bytes.
    header = tf.strings.join([tf.strings.substr(file_bytes, 0, 25), tf.constant(bytes(25))])
    sides = tf.io.decode_raw(tf.strings.substr(header, 16, 8), tf.int32, little_endian=False)  # of IHDR
    is_deep, may_be_turned = tf.strings.substr(header, 24, 1) == b"\x10", names_orientation(file_bytes)
    decode = functools.partial(tf.io.decode_png, file_bytes, channels=1)

    def carefully() -> tf.Tensor:
        sides_of_png = tf.where(tf.strings.substr(header, 12, 4) == b"IHDR", sides, 0)
        with tf.control_dependencies([_refuse_large(sides_of_png)]):
            gray = tf.cond(
                is_deep,
                lambda: _scale_16_bits(decode(dtype=tf.uint16)),
                lambda: tf.cast(decode(dtype=tf.uint8), tf.float32),
            )  # (height, width, 1)
        return _resize_to_square(upright(gray, orientation_of(file_bytes, may_be_turned)), size)

    is_plain = tf.reduce_all(sides <= MAX_SQUARE) & ~is_deep & ~may_be_turned
    return tf.cond(is_plain, lambda: _resize_at_once(decode(dtype=tf.uint8), size), carefully)


def _refuse_large(sides: tf.Tensor) -> tf.Operation:
    fits = (tf.reduce_max(sides) <= MAX_SIDE) & (tf.reduce_prod(tf.cast(sides, tf.int64)) <= MAX_PIXELS)
    return tf.debugging.Assert(fits, [_TOO_LARGE])


def _scale_16_bits(gray: tf.Tensor) -> tf.Tensor:
    return tf.cast(gray, tf.float32) / 257.0


def _resize_to_square(gray: tf.Tensor, size: int) -> tf.Tensor:
    """Resize (height, width, 1) of any sides, centred on a black square, to (size, size, 1) uint8."""
    height, width = tf.shape(gray)[0], tf.shape(gray)[1]

    def long_side_first() -> tf.Tensor:  # the square itself would take side**2 pixels
        is_tall = height > width
        thin = _resize_smoothly(gray, tf.where(is_tall, size, height), tf.where(is_tall, width, size))
        padding = _margins(height, width) * tf.where(is_tall, [[0], [1], [0]], [[1], [0], [0]])
        return _stored(_resize_smoothly(tf.pad(thin, padding), size, size), size)

    is_small = tf.maximum(height, width) <= MAX_SQUARE
    return tf.cond(is_small, lambda: _resize_at_once(gray, size), long_side_first)


def _resize_at_once(gray: tf.Tensor, size: int) -> tf.Tensor:
    padding = _margins(tf.shape(gray)[0], tf.shape(gray)[1])
    return _stored(_resize_smoothly(tf.pad(gray, padding), size, size), size)


def _margins(height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """The padding that makes a picture a square: (3, 2) int32."""
    side = tf.maximum(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    return tf.stack([[top, side - height - top], [left, side - width - left], [0, 0]])


def _resize_smoothly(picture: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    return tf.image.resize(picture, (height, width), method="bicubic", antialias=True)


def _stored(square: tf.Tensor, size: int) -> tf.Tensor:
    return tf.ensure_shape(tf.saturate_cast(tf.round(square), tf.uint8), (size, size, 1))
