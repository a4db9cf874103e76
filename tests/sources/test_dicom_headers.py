"""DICOM headers of every kind, also those that contradict themselves: the right picture, or a reason."""

import imagecodecs
import numpy as np
import pydicom
import pytest
from dicom_files import (
    LOSSLESS,
    STORED,
    STRETCHED,
    decode,
    encapsulate_frame,
    encode_frame,
    encode_jpeg,
    make,
)
from pydicom import uid

from medclip_keras.sources import dicom
from medclip_keras.sources.rows import BadRowError

WIDE = np.tile(STORED, (4, 4))  # large enough for the encoder of JPEG 2000
STRETCHED_WIDE = np.tile(STRETCHED, (4, 4))
SIGNED = WIDE.astype(np.int16) - 2048
WINDOW = {"WindowCenter": 2000, "WindowWidth": 3001}  # C.11.2.1.2.1: from 499.5 to 3499.5
WINDOWED = np.round(np.clip((WIDE - 499.5) / 3000, 0, 1) * 65535)
SYNTAXES = [uid.ExplicitVRLittleEndian, *LOSSLESS]


def keep(cells, bits, syntax, **elements):
    """A file of cells, all of whose bits the syntax keeps, with a header of fewer bits."""
    file = make(cells, bits, **elements)
    whole = 8 * cells.itemsize
    if syntax == uid.RLELossless:
        file.BitsStored, file.HighBit = whole, whole - 1
        file.compress(syntax, generate_instance_uid=False)
        file.BitsStored, file.HighBit = bits, bits - 1
    elif syntax.is_encapsulated:
        encapsulate_frame(file, syntax, encode_frame(cells.view(f"u{cells.itemsize}"), whole, syntax))
    return file


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_bits_above_the_stored_ones_do_not_count(syntax, photometric):
    overlay = np.random.default_rng(0).integers(0, 16, WIDE.shape).astype(np.uint16) << 12
    expected = STRETCHED_WIDE if photometric == "MONOCHROME2" else 65535 - STRETCHED_WIDE
    picture = decode(keep(WIDE | overlay, 12, syntax, photometric=photometric))
    np.testing.assert_allclose(picture, expected, atol=1)


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("bits", [7, 12])
def test_the_sign_is_that_of_the_header_s_bits(syntax, bits):
    signed = SIGNED if bits == 12 else (SIGNED // 32).astype(np.int8)
    cells = signed & (2**bits - 1)  # two's complement in these bits, zeros above
    expected = np.round((signed - float(signed.min())) / (int(signed.max()) - int(signed.min())) * 65535)
    np.testing.assert_array_equal(decode(keep(cells, bits, syntax)), expected)


@pytest.mark.parametrize("stored", [SIGNED, WIDE], ids=["signed", "unsigned"])
def test_the_sign_of_the_codestream_does_not_count(stored):
    frame = imagecodecs.jpeg2k_encode(stored.astype(np.int16), reversible=True, level=0, codecformat="j2k")
    file = make(stored, 12)
    encapsulate_frame(file, uid.JPEG2000Lossless, frame)
    np.testing.assert_array_equal(decode(file), STRETCHED_WIDE)


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_values_below_a_high_bit_of_15_are_shifted_down(syntax):
    file = keep(WIDE << 4, 12, syntax, **WINDOW)
    file.HighBit = 15
    np.testing.assert_array_equal(decode(file), WINDOWED)


@pytest.mark.parametrize("high_bit", [12, 15, 7, 16, 40])
@pytest.mark.parametrize("stored", [WIDE, SIGNED], ids=["unsigned", "signed"])
def test_a_high_bit_that_the_cells_contradict_does_not_count(high_bit, stored):
    shifted = int(stored.min())
    file = make(stored, 12, WindowCenter=2000 + shifted, WindowWidth=3001)
    file.HighBit = high_bit
    np.testing.assert_array_equal(decode(file), WINDOWED)


def test_signed_values_below_a_high_bit_of_15_keep_their_sign():
    file = make(SIGNED << 4, 12, WindowCenter=2000 - 2048, WindowWidth=3001)
    file.HighBit = 15
    np.testing.assert_array_equal(decode(file), WINDOWED)


@pytest.mark.parametrize("slope", ["0", "-0.0", "NaN", "inf", "", None])
@pytest.mark.parametrize("intercept", ["0", "nan", ""])
def test_a_slope_of_zero_or_without_a_number_does_not_count(slope, intercept):
    file = make(WIDE, RescaleSlope=slope, RescaleIntercept=intercept, **WINDOW)
    np.testing.assert_array_equal(decode(file), WINDOWED)


def test_slope_and_intercept_act_alone():
    window = {"WindowCenter": 4000, "WindowWidth": 6001}
    np.testing.assert_allclose(decode(make(WIDE, RescaleSlope=2, **window)), WINDOWED, atol=6)
    moved = make(WIDE, RescaleIntercept=-1000, WindowCenter=1000, WindowWidth=3001)
    np.testing.assert_array_equal(decode(moved), WINDOWED)


@pytest.mark.parametrize(
    "elements",
    [
        {**WINDOW, "VOILUTFunction": ""},
        {**WINDOW, "VOILUTFunction": None},
        {**WINDOW, "VOILUTFunction": "LINEAR "},
        {"WindowCenter": 1999.5, "WindowWidth": 3000, "VOILUTFunction": "LINEAR_EXACT"},
        {"WindowCenter": [40, 2000], "WindowWidth": [0, 3001]},
        {"WindowCenter": ["nan", 2000], "WindowWidth": [80, 3001]},
        {"WindowCenter": [2000], "WindowWidth": [3001, 80]},
    ],
)
def test_the_first_usable_window_counts(elements):
    np.testing.assert_array_equal(decode(make(WIDE, **elements)), WINDOWED)


@pytest.mark.parametrize("width", [0, -5, "nan", "inf", None])
def test_a_window_without_a_width_is_none(width):
    np.testing.assert_array_equal(decode(make(WindowCenter=100, WindowWidth=width)), STRETCHED)


def test_a_window_of_width_one_is_a_threshold():
    expected = np.where(STORED > 1999.5, 65535, 0)
    np.testing.assert_array_equal(decode(make(WindowCenter=2000, WindowWidth=1)), expected)


def padded(stored, value):
    cells = stored.copy()
    cells[:, :5] = value
    inner = stored[:, 5:].astype(float)
    expected = np.round((inner - inner.min()) / (inner.max() - inner.min()) * 65535)
    return cells, np.pad(expected, ((0, 0), (5, 0)))


@pytest.mark.parametrize(
    ("stored", "bits", "cell", "padding"),
    [
        (SIGNED, 16, -2000, ("SS", -2000)),
        (SIGNED, 16, -2000, ("US", 63536)),  # the same 16 bits
        (SIGNED, 12, -2000, ("US", 2096)),  # the same 12 bits
        (WIDE, 12, 63536, ("US", 63536)),  # outside of the stored bits
        (WIDE, 12, 63536, ("SS", -2000)),
        (WIDE, 16, 65535, ("SS", -1)),
        (WIDE, 12, 4095, ("SS", -1)),
    ],
)
def test_padding_of_either_sign_is_black(stored, bits, cell, padding):
    cells, expected = padded(stored, cell)
    file = make(cells, bits)
    file.add_new("PixelPaddingValue", *padding)
    np.testing.assert_array_equal(decode(file), expected)


@pytest.mark.parametrize("padding", [("US", 65535), ("US", 4095), ("US", None)])
def test_padding_that_is_not_there_changes_nothing(padding):
    file = make(WIDE)
    file.add_new("PixelPaddingValue", *padding)
    np.testing.assert_array_equal(decode(file), STRETCHED_WIDE)


ALL = np.arange(4096)


def table(descriptor, data, kind="US"):
    item = pydicom.Dataset()
    item.add_new("LUTDescriptor", "US", descriptor)
    item.add_new("LUTData", kind, data)
    return [item]


@pytest.mark.parametrize(
    ("stored", "items", "expected"),
    [
        (WIDE, table([4096, 0, 16], (16384 + 8 * ALL).tolist()), 16384 + 8.0 * WIDE),
        (WIDE, table([4096, 0, 8], (50 + ALL // 82).tolist()), (50 + WIDE // 82) * 257.0),
        (WIDE, table([4096, 0, 8], ALL.tolist()), WIDE / 4095 * 65535),
        (WIDE, table([256, 1000, 8], list(range(256))), np.clip(WIDE - 1000.0, 0, 255) * 257),
        (WIDE, table([256, 1000, 8], bytes(range(256)), "OW"), np.clip(WIDE - 1000.0, 0, 255) * 257),
        (WIDE, table([4096, 0, 12], ALL.astype("<u2").tobytes(), "OW"), WIDE / 4095 * 65535),
        (SIGNED, table([4096, 2**16 - 2048, 12], ALL.tolist()), WIDE / 4095 * 65535),
        (WIDE * 16, table([0, 0, 16], np.arange(2**16).astype("<u2").tobytes(), "OW"), WIDE * 16.0),
        (WIDE, [], STRETCHED_WIDE),
    ],
    ids=[
        "narrow", "narrow 8", "too few bits", "few entries", "bytes", "words", "signed", "all", "no item",
    ],
)  # fmt: skip
def test_voi_tables_have_the_bits_of_their_descriptor(stored, items, expected):
    file = make(stored, 8 * stored.itemsize, VOILUTSequence=items)
    np.testing.assert_array_equal(decode(file), np.round(expected))
    file.PhotometricInterpretation = "MONOCHROME1"
    np.testing.assert_allclose(decode(file), 65535 - expected, atol=1)


def test_a_modality_table_goes_before_the_window():
    file = make(WIDE, ModalityLUTSequence=table([4096, 0, 12], ALL[::-1].tolist()), RescaleSlope=5, **WINDOW)
    np.testing.assert_array_equal(decode(file), np.round(np.clip((4095 - WIDE - 499.5) / 3000, 0, 1) * 65535))


def test_values_of_32_bits_are_stretched():
    np.testing.assert_array_equal(decode(make(WIDE.astype(np.uint32) * 1000, 32)), STRETCHED_WIDE)


COLOURS = np.stack([WIDE // 16, WIDE // 32, 255 - WIDE // 64], axis=-1).astype(np.uint8)
LUMINANCE = 257 * np.round(COLOURS @ np.array([0.299, 0.587, 0.114]))


@pytest.mark.parametrize("layout", ["by plane", "YBR", "RLE", "JPEG-LS", "JPEG 2000"])
def test_colours_of_any_layout_become_luminance(layout):
    file = make(COLOURS, 8, "RGB")
    if layout == "by plane":
        file.PlanarConfiguration, file.PixelData = 1, COLOURS.transpose(2, 0, 1).tobytes()
    elif layout == "YBR":
        file = make(pydicom.pixels.convert_color_space(COLOURS, "RGB", "YBR_FULL"), 8, "YBR_FULL")
    elif layout == "JPEG 2000":
        encapsulate_frame(file, uid.JPEG2000Lossless, encode_frame(COLOURS, 8, uid.JPEG2000Lossless))
        file.PhotometricInterpretation = "YBR_RCT"
    else:
        file.compress({"RLE": uid.RLELossless, "JPEG-LS": uid.JPEGLSLossless}[layout])
    np.testing.assert_allclose(decode(file), LUMINANCE, atol=257 * (layout == "YBR"))


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"Rows": 0}, "no pixels, or more than 67,108,864"),
        ({"Rows": 65535, "Columns": 65535}, "no pixels, or more than 67,108,864"),
        ({"BitsStored": 17}, "more bits than it allocates"),
        ({"BitsStored": 0}, "more bits than it allocates, or none"),
        ({"SamplesPerPixel": 3}, "neither gray nor of red, green and blue"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "neither gray nor of red, green and blue"),
        ({"PhotometricInterpretation": "RGB"}, "neither gray nor of red, green and blue"),
        ({"PhotometricInterpretation": None}, "neither gray nor of red, green and blue"),
        ({"BitsStored": None}, "does not describe its pixels"),
        ({"NumberOfFrames": 3}, "several frames"),
        ({"VOILUTFunction": "CUBIC", **WINDOW}, "unknown VOI LUT function"),
        ({"VOILUTSequence": table([4096, 0, 12], [1, 2, 3])}, "fewer entries than it says"),
        ({"VOILUTSequence": table([4096, 0, 16], ALL.tolist())}, "makes the picture nearly black"),
    ],
)
def test_headers_without_one_meaning_are_bad_rows(elements, reason):
    with pytest.raises(BadRowError, match=reason):
        decode(make(WIDE, **elements))


def test_a_codestream_larger_than_its_header_is_refused_before_it_is_decoded():
    file = make(STORED)
    frame = bytearray(encode_jpeg(WIDE, 12, uid.JPEGLosslessSV1))
    at = frame.index(b"\xff\xc3") + 5
    frame[at : at + 4] = (9000).to_bytes(2) * 2
    encapsulate_frame(file, uid.JPEGLosslessSV1, bytes(frame))
    with pytest.raises(BadRowError, match="of another size than its header says"):
        decode(file)


def test_a_deflated_bomb_is_refused_before_it_is_inflated(monkeypatch):
    file = make(np.zeros((400, 500), np.uint16))
    file.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    assert decode(file).shape == (400, 500)
    monkeypatch.setattr(dicom, "_MOST_BYTES", 300_000)
    with pytest.raises(BadRowError, match="inflates to more than 300,000 bytes"):
        decode(file)
