"""Decoding is one function for files of every kind, in bounded memory."""

import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from medclip_keras.preprocess import images
from medclip_keras.preprocess.images import (
    decode_all_to_squares,
    decode_to_square,
    picture_to_square,
)


def picture(height, width, seed=0):
    """A smooth random picture: noise of a coarse grid, enlarged."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 5), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.BICUBIC))


def encode(pixels, file_format, mode=None, **options):
    image = Image.fromarray(pixels)
    buffer = io.BytesIO()
    (image.convert(mode) if mode else image).save(buffer, file_format, **options)
    return buffer.getvalue()


def files():
    portrait, landscape = picture(50, 30), picture(28, 40, seed=1)
    colour = np.stack([portrait, portrait[::-1], portrait[:, ::-1]], axis=-1)
    return {
        "png_portrait": encode(portrait, "PNG"),
        "png_landscape": encode(landscape, "PNG"),
        "png_16_bit": encode(portrait.astype(np.uint16) * 257, "PNG"),
        "png_colour": encode(colour, "PNG"),
        "png_palette": encode(colour, "PNG", "P"),
        "png_alpha": encode(colour, "PNG", "RGBA"),
        "jpeg_portrait": encode(portrait, "JPEG"),
        "jpeg_landscape": encode(landscape, "JPEG", quality=60),
        "jpeg_colour": encode(colour, "JPEG"),
        "jpeg_progressive": encode(portrait, "JPEG", progressive=True),
    }


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_pixels_of_a_dicom_file_give_the_bytes_of_their_png_file(dtype):
    pixels = np.random.default_rng(4).integers(0, np.iinfo(dtype).max, (37, 52), dtype, endpoint=True)
    deep = pixels.astype(np.uint16) * (257 if dtype == np.uint8 else 1)
    from_file = decode_to_square(encode(pixels, "PNG"), 16)
    np.testing.assert_array_equal(picture_to_square(deep, 16), from_file)


def test_png_of_the_stored_size_keeps_every_value():
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    for depth in (pixels, pixels.astype(np.uint16) * 257):
        decoded = decode_to_square(encode(depth, "PNG"), 16)
        np.testing.assert_array_equal(decoded[..., 0], pixels)
    assert decoded.dtype == tf.uint8


def test_16_bit_values_are_divided_by_257_and_rounded():
    pixels = np.array([[0, 128, 129, 65535], [256, 257, 30000, 385], [386, 1, 2, 3], [9, 8, 7, 6]], np.uint16)
    decoded = decode_to_square(encode(pixels, "PNG"), 4)[..., 0]
    np.testing.assert_array_equal(decoded, np.round(pixels / 257))


def test_picture_is_centred_on_black():
    white = np.full((3, 6), 255, np.uint8)  # the odd row of padding goes below
    decoded = decode_to_square(encode(white, "PNG"), 6)[..., 0].numpy()
    np.testing.assert_array_equal(decoded.mean(axis=1), [0, 255, 255, 255, 0, 0])
    decoded = decode_to_square(encode(white.T.copy(), "PNG"), 6)[..., 0].numpy()
    np.testing.assert_array_equal(decoded.mean(axis=0), [0, 255, 255, 255, 0, 0])


def test_resize_agrees_with_pillow_s_antialiased_bicubic():
    pixels = picture(120, 90)
    padded = np.pad(pixels, ((0, 0), (15, 15)))
    expected = np.asarray(Image.fromarray(padded).resize((48, 48), Image.BICUBIC)).astype(int)
    decoded = decode_to_square(encode(pixels, "PNG"), 48).numpy()[..., 0].astype(int)
    assert np.abs(decoded - expected).max() <= 1  # Pillow rounds between its two passes
    plain = tf.image.resize(padded[..., None], (48, 48), method="bicubic", antialias=False)
    assert np.abs(plain.numpy()[..., 0] - expected).max() > 3  # so the test can tell


def test_bicubic_overshoot_is_clipped_not_wrapped():
    edge = np.repeat(np.uint8([[0, 0, 255, 255]]), 4, axis=0)
    decoded = decode_to_square(encode(edge, "PNG"), 16).numpy()[:, :, 0]
    assert (np.diff(decoded.astype(int), axis=1) >= 0).all()  # from black to white without a ring
    overshoot = tf.image.resize(edge[..., None], (16, 16), method="bicubic", antialias=True)
    assert overshoot.numpy().min() < -5


def test_jpeg_colour_becomes_luminance():
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 200
    for file_format in ("JPEG", "PNG"):
        decoded = decode_to_square(encode(red, file_format), 16).numpy()
        assert 40 <= decoded.min() <= decoded.max() <= 62  # .2126 x 200 (libpng) to .299 x 200 (JPEG)


def test_file_decodes_alike_one_by_one_batched_and_in_a_graph():
    contents = list(files().values())
    singles = np.stack([decode_to_square(content, 24) for content in contents])
    # 16 bit, alpha and progressive equal their plain twins.
    assert len({single.tobytes() for single in singles}) == 7
    np.testing.assert_array_equal(decode_all_to_squares(tf.constant(contents), 24), singles)
    graph = tf.function(lambda batch: decode_all_to_squares(batch, 24))
    np.testing.assert_array_equal(graph(tf.constant(contents)), singles)
    mapped = tf.data.Dataset.from_tensor_slices(contents).map(lambda content: decode_to_square(content, 24))
    assert mapped.element_spec.shape == (24, 24, 1)
    np.testing.assert_array_equal(np.stack(list(mapped)), singles)


def exif(orientation, order="MM"):
    """An EXIF header whose first directory has the orientation between two other numbers."""
    sign = {"MM": ">", "II": "<"}[order]
    entry = struct.Struct(f"{sign}HHIHH")
    entries = [entry.pack(0x0100, 3, 1, 6, 0), entry.pack(0x0112, 3, 1, orientation, 0)]
    entries += [entry.pack(0x8769, 3, 1, 8, 0)]
    return order.encode() + struct.pack(f"{sign}HIH", 42, 8, len(entries)) + b"".join(entries) + bytes(4)


def with_exif(content, header, before=b""):
    """A JPEG or PNG file with an EXIF header, after other segments or chunks."""
    if content.startswith(b"\xff\xd8"):
        segment = b"\xff\xe1" + struct.pack(">H", len(header) + 8) + b"Exif\0\0" + header
        return content[:20] + before + segment + content[20:]  # after JFIF's segment
    chunk = b"eXIf" + header
    chunk = struct.pack(">I", len(header)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return content[:33] + before + chunk + content[33:]


UPRIGHT = {  # by EXIF 3.0, table 4: which side of the stored picture is the top, and which the left
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.T,
    6: lambda p: np.rot90(p, -1),
    7: lambda p: p[::-1, ::-1].T,
    8: lambda p: np.rot90(p),
}


@pytest.mark.parametrize("order", ["MM", "II"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation_turns_the_picture_upright(orientation, order):
    pixels = picture(50, 31)
    for file_format in ("PNG", "JPEG"):
        stored = encode(pixels, file_format)
        seen = np.asarray(Image.open(io.BytesIO(stored)))
        upright = encode(np.ascontiguousarray(UPRIGHT[orientation](seen)), "PNG")
        turned = decode_to_square(with_exif(stored, exif(orientation, order)), 24)
        np.testing.assert_array_equal(turned, decode_to_square(upright, 24))
    deep = encode(pixels.astype(np.uint16) * 257, "PNG")
    upright = encode(np.ascontiguousarray(UPRIGHT[orientation](pixels)), "PNG")
    turned = decode_all_to_squares(tf.constant([with_exif(deep, exif(orientation, order))]), 24)
    np.testing.assert_array_equal(turned[0], decode_to_square(upright, 24))


def test_an_orientation_of_four_bytes_counts_as_that_of_two():
    content = encode(picture(50, 31), "JPEG")
    turned = decode_to_square(with_exif(content, exif(6)), 24)
    for order, sign in (("MM", ">"), ("II", "<")):
        short, long = (
            struct.pack(f"{sign}HHI{form}", 0x0112, kind, 1, 6) for kind, form in ((3, "H"), (4, "I"))
        )
        header = exif(6, order).replace(short + bytes(2), long)
        assert long in header
        np.testing.assert_array_equal(decode_to_square(with_exif(content, header), 24), turned)


def test_exif_is_found_after_other_segments_and_only_where_it_stands():
    jpeg, png = encode(picture(50, 31), "JPEG"), encode(picture(50, 31), "PNG")
    comment = b"\xff\xfe" + struct.pack(">H", 4002) + b"Exif\0\0" * 666 + bytes(4)
    text = b"tEXt" + b"Comment\0eXIf" * 300
    text = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    for content, before in ((jpeg, comment), (png, text)):
        turned = decode_to_square(with_exif(content, exif(8)), 24)
        np.testing.assert_array_equal(decode_to_square(with_exif(content, exif(8), before), 24), turned)
        plain = decode_to_square(content, 24)
        np.testing.assert_array_equal(decode_to_square(with_exif(content, b"", before), 24), plain)
        assert (turned != plain).numpy().any()


@pytest.mark.parametrize("kept", [*range(0, 30, 3), 46])
def test_damaged_exif_counts_as_none(kept):
    for orientation in (6, 7) if kept < 30 else (0, 9, 65535):
        header = exif(orientation)[:kept]
        for file_format in ("JPEG", "PNG"):
            content = encode(picture(50, 31), file_format)
            expected = decode_to_square(content, 24)
            np.testing.assert_array_equal(decode_to_square(with_exif(content, header), 24), expected)
    beyond = exif(6)[:4] + b"\xff" * 4 + exif(6)[8:]  # the directory's place
    np.testing.assert_array_equal(decode_to_square(with_exif(content, beyond), 24), expected)


def test_unusual_files_are_read_as_their_first_opaque_picture():
    pixels = picture(50, 30)
    expected = decode_to_square(encode(pixels, "PNG"), 24).numpy().astype(int)
    alpha = np.random.default_rng(0).integers(0, 256, pixels.shape, np.uint8)
    bits = np.where(pixels > 127, 255, 0).astype(np.uint8)
    both = io.BytesIO()
    frames = [Image.fromarray(pixels), Image.fromarray(pixels[::-1])]
    frames[0].save(both, "PNG", save_all=True, append_images=frames[1:])
    exact = {
        "gray and alpha": encode(np.stack([pixels, alpha], axis=-1), "PNG"),
        "palette of grays": encode(pixels, "PNG", "P"),
        "animated": both.getvalue(),
    }
    for name, content in exact.items():
        np.testing.assert_array_equal(decode_to_square(content, 24), expected, err_msg=name)
    one_bit = decode_to_square(encode(bits, "PNG", "1"), 24)
    np.testing.assert_array_equal(one_bit, decode_to_square(encode(bits, "PNG"), 24))
    cmyk = decode_to_square(encode(np.stack([pixels] * 3, axis=-1), "JPEG", "CMYK", quality=98), 24)
    assert np.abs(cmyk.numpy() - expected).max() <= 4


@pytest.mark.parametrize("file_format", ["PNG", "JPEG"])
@pytest.mark.parametrize("across", [1, 3])
def test_very_thin_pictures_are_the_line_that_they_are(file_format, across):
    """9,000 pixels, over the side up to which a square is padded: from black to white along a line."""
    ramp = np.tile(np.linspace(0, 255, 9000).astype(np.uint8), (across, 1))
    line = decode_to_square(encode(ramp, file_format), 90).numpy()[..., 0].astype(float)
    upright = decode_to_square(encode(np.ascontiguousarray(ramp.T), file_format), 90).numpy()[..., 0]
    np.testing.assert_allclose(upright.T, line, atol=1)
    thickness = across / 100  # of a pixel of the result; bicubic, so up to 1.5 pixels see it
    assert not np.delete(line, range(43, 48), axis=0).any()
    np.testing.assert_allclose(line.sum(axis=0), np.linspace(0, 255, 90) * thickness, atol=3)


def test_the_long_side_first_gives_the_pixels_of_the_padded_square(monkeypatch):
    for height, width in ((300, 40), (40, 300), (301, 300)):
        content = encode(picture(height, width), "PNG")
        at_once = decode_to_square(content, 32).numpy().astype(int)
        monkeypatch.setattr(images, "MAX_SQUARE", 256)
        difference = np.abs(decode_to_square(content, 32) - at_once)
        assert difference.max() <= (0 if height > width else 1)  # the order of sums
        monkeypatch.undo()


def blank_png(width, height, bits=8):
    """A black PNG file of any size, in a few bytes a row."""
    packing = zlib.compressobj(9)
    row = bytes(1 + width * bits // 8)
    data = b"".join(packing.compress(row) for _ in range(height)) + packing.flush()
    chunks = {b"IHDR": struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0), b"IDAT": data, b"IEND": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks.items()
    )


@pytest.mark.parametrize(("width", "height"), [(8193, 8192), (65536, 1), (1, 65536), (2**31 - 1, 2**31 - 1)])
def test_larger_pictures_are_refused_before_they_are_decoded(width, height):
    declared = blank_png(4, 4)
    declared = declared[:16] + struct.pack(">II", width, height) + declared[24:]  # so no pixel is decoded
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        decode_to_square(declared, 16)
    assert images.why_undecoded(error.value) == "a picture of more than 67,108,864 pixels, or 65,535 a side"
    with pytest.raises(tf.errors.InvalidArgumentError, match="more than 67,108,864 pixels"):
        tf.function(lambda batch: decode_all_to_squares(batch, 16))(tf.constant([blank_png(4, 4), declared]))


def test_a_large_jpeg_is_refused_before_it_is_decoded():
    content = bytearray(encode(picture(16, 16), "JPEG"))
    at = content.index(b"\xff\xc0") + 5
    content[at : at + 4] = struct.pack(">HH", 23000, 23000)
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        decode_to_square(bytes(content), 16)
    assert "more than 67,108,864 pixels" in images.why_undecoded(error.value)


MEMORY = """
import resource, sys
import tensorflow as tf
from medclip_keras.preprocess.images import decode_to_square
decode = tf.function(lambda one: decode_to_square(one, 256), input_signature=[tf.TensorSpec((), tf.string)])
first, *others = [open(path, "rb").read() for path in sys.argv[1:]]
decode(first)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for other in others:
    decode(other)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_thin_pictures_take_little_memory(tmp_path):
    sizes = ((300, 200), (65000, 1), (1, 65000), (30000, 1))
    for width, height in sizes:
        (tmp_path / f"{width}x{height}.png").write_bytes(blank_png(width, height))
    paths = [str(tmp_path / f"{width}x{height}.png") for width, height in sizes]
    run = subprocess.run([sys.executable, "-c", MEMORY, *paths], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 400  # MiB; 65,000 x 65,000 pixels of a padded square take 16 GiB


@pytest.mark.parametrize("name", ["png_portrait", "png_16_bit", "jpeg_portrait", "jpeg_colour"])
@pytest.mark.parametrize("missing", [1, 12, 200])
def test_truncated_file_is_an_invalid_argument(name, missing):
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode_to_square(files()[name][:-missing], 24)


def corrupt(content):
    changed = bytearray(content)
    changed[len(changed) // 2] ^= 4
    return bytes(changed)


OTHER_FILES = {"BMP": encode(picture(9, 9), "BMP"), "GIF": encode(picture(9, 9), "GIF"), "empty": b""}
OTHER_FILES["Git LFS pointer"] = b"version https://git-lfs.github.com/spec/v1\n"
OTHER_FILES["corrupt PNG"] = corrupt(files()["png_portrait"])


@pytest.mark.parametrize("name", OTHER_FILES)
def test_file_that_is_no_intact_jpeg_or_png_is_an_invalid_argument(name):
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode_to_square(OTHER_FILES[name], 24)
