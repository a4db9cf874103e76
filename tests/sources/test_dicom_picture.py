"""The picture of a DICOM file: what a screen would show."""

import importlib
import io
import sys

import imagecodecs
import numpy as np
import pydicom
import pytest
from dicom_files import (
    LOSSLESS,
    SECRETS,
    STORED,
    STRETCHED,
    compress,
    decode,
    encapsulate_frame,
    encode_frame,
    encode_jpeg,
    make,
    to_bytes,
)
from pydicom import uid
from pydicom.pixels import get_decoder

from medclip_keras.sources import dicom, dicom_jpeg
from medclip_keras.sources.rows import BadRowError


@pytest.mark.parametrize(
    ("stored", "bits", "expected"),
    [
        (STORED, 12, STRETCHED),
        (STORED + 200, 12, STRETCHED),
        (STORED.astype(np.int16) - 1000, 16, STRETCHED),
        ((STORED // 16 - 128).astype(np.int8), 8, np.round((STORED // 16) / (3885 // 16) * 65535)),
        ((STORED // 16 + 5).astype(np.uint8), 8, 257 * (STORED // 16 + 5)),
        (np.full((4, 6), 900, np.uint16), 12, np.zeros((4, 6))),
    ],
    ids=["deep", "offset", "signed", "signed bytes", "bytes keep their values", "constant is black"],
)
def test_pixels_are_stretched_from_the_least_to_the_greatest_unless_bytes(stored, bits, expected):
    np.testing.assert_array_equal(decode(make(stored, bits)), expected)


@pytest.mark.parametrize("bits", [8, 12])
def test_monochrome1_of_inverted_values_is_the_picture_of_monochrome2(bits):
    stored = STORED if bits == 12 else (STORED // 16).astype(np.uint8)
    inverted = (2**bits - 1 - stored).astype(stored.dtype)
    two, one = decode(make(stored, bits)), decode(make(inverted, bits, "MONOCHROME1"))
    np.testing.assert_array_equal(one, two)
    assert one[0, 0] == 0 < one[-1, -1]


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        # C.11.2.1.2.1: black up to c - 0.5 - (w - 1) / 2 = 1000, white above c - 0.5 + (w - 1) / 2 = 2000.
        ({"WindowCenter": [1500.5, 40], "WindowWidth": [1001, 80]}, np.clip((STORED - 1000.0) / 1000, 0, 1)),
        # Modality output -s + 4095: the window's black end is where stored values are high.
        (
            {"RescaleSlope": -1, "RescaleIntercept": 4095, "WindowCenter": 2595.5, "WindowWidth": 1001},
            np.clip((4095.0 - STORED - 2095) / 1000, 0, 1),
        ),
        (
            {"WindowCenter": 1500, "WindowWidth": 1000, "VOILUTFunction": "SIGMOID"},
            1 / (1 + np.exp(-4 * (STORED - 1500.0) / 1000)),
        ),
        ({"WindowCenter": 100, "WindowWidth": 0}, STORED / 3885),
    ],
    ids=["first", "after rescale", "sigmoid", "no width, no window"],
)
def test_windows_decide_what_is_black_and_white(elements, expected):
    np.testing.assert_allclose(decode(make(**elements)), np.round(expected * 65535), atol=1)


def test_the_voi_table_goes_before_a_window():
    table = (np.arange(4096) ** 2 // 4096).astype(np.uint16)
    item = pydicom.Dataset()
    item.LUTDescriptor, item.LUTData = [4096, 0, 12], table.tolist()
    item["LUTDescriptor"].VR = item["LUTData"].VR = "US"
    file = make(VOILUTSequence=[item], WindowCenter=100, WindowWidth=10)
    np.testing.assert_array_equal(decode(file), np.round(table[STORED] / 4095 * 65535))


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_and_does_not_stretch(photometric):
    stored = STORED.copy()
    stored[:, 0] = 4095
    picture = decode(make(stored, 12, photometric, PixelPaddingValue=4000, PixelPaddingRangeLimit=4095))
    assert not picture[:, 0].any()
    inner = STORED[:, 1:].astype(float)
    expected = (inner - inner.min()) / (inner.max() - inner.min())
    expected = 1 - expected if photometric == "MONOCHROME1" else expected
    np.testing.assert_array_equal(picture[:, 1:], np.round(expected * 65535))


def test_colour_becomes_luminance():
    stored = np.stack([STORED // 16, STORED // 32, STORED // 64], axis=-1).astype(np.uint8)
    expected = np.round(stored @ np.array([0.299, 0.587, 0.114]))
    np.testing.assert_array_equal(decode(make(stored, 8, "RGB")), 257 * expected)


@pytest.mark.parametrize("syntax", LOSSLESS)
def test_lossless_compression_changes_no_pixel(syntax):
    wide = np.tile(STORED, (4, 4))
    np.testing.assert_array_equal(decode(compress(make(wide), syntax)), decode(make(wide)))


@pytest.mark.parametrize("syntax", [uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit])
def test_jpeg_of_eight_bits_is_read(syntax):
    smooth = np.add.outer(np.arange(32) * 3, np.arange(48) * 2).astype(np.uint8)
    assert abs(decode(compress(make(smooth, 8), syntax)) / 257 - smooth).max() <= 3


@pytest.mark.parametrize("syntax", [uid.JPEGLossless, uid.JPEGLosslessSV1])
@pytest.mark.parametrize(
    ("stored", "bits"),
    [
        ((STORED // 16).astype(np.uint8), 8),
        (STORED // 16, 8),  # kept in 16 bits by the header, in 8 by JPEG
        (STORED * 16, 16),
        (STORED.astype(np.int16) - 2048, 12),
        (STORED.astype(np.int16) * 16 - 2**15, 16),
    ],
    ids=["8", "8_of_16", "16", "signed_12", "signed_16"],
)
def test_lossless_jpeg_of_other_depths(syntax, stored, bits):
    np.testing.assert_array_equal(decode(compress(make(stored, bits), syntax)), decode(make(stored, bits)))


def test_twelve_bit_jpeg_is_read_without_a_word(caplog):
    smooth = np.add.outer(np.arange(32) * 60, np.arange(48) * 45).astype(np.uint16)  # 0 … 3975
    white = 65535 / 3975
    error = decode(compress(make(smooth), uid.JPEGExtended12Bit)) - np.round(smooth * white)
    assert abs(error).max() <= 4 * white  # 4 stored values
    assert not caplog.records  # as of Pillow, which cannot, tried first


@pytest.mark.parametrize("syntax", dicom_jpeg.SYNTAXES)
def test_window_and_monochrome1_act_on_jpeg(syntax):
    smooth = np.add.outer(np.arange(32) * 60, np.arange(48) * 45).astype(np.uint16)
    elements = {"photometric": "MONOCHROME1", "WindowCenter": 1500.5, "WindowWidth": 1001}
    expected = np.round((1 - np.clip((smooth - 1000.0) / 1000, 0, 1)) * 65535)
    atol = 4 * 65.535 if syntax == uid.JPEGExtended12Bit else 1  # 4 stored values
    np.testing.assert_allclose(decode(compress(make(smooth, **elements), syntax)), expected, atol=atol)


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
def test_colours_of_lossless_jpeg_are_those_of_the_header(photometric):
    stored = np.stack([STORED // 16, STORED // 32, 255 - STORED // 64], axis=-1).astype(np.uint8)
    frame = imagecodecs.jpeg8_encode(stored, lossless=True, colorspace="RGB", outcolorspace="RGB")
    if photometric == "YBR_FULL":  # what makes it RGB are a marker of Adobe's and components of these names
        assert (frame[6:11], frame[18:20]) == (b"Adobe", b"\xff\xc3")
        names = {b"R\x11\0G\x11\0B\x11": b"\1\x11\0\2\x11\0\3\x11", b"\3R\0G\0B\0": b"\3\1\0\2\0\3\0"}
        frame = frame[:2] + encode_jpeg(STORED, 12, uid.JPEGExtended12Bit)[2:20] + frame[18:]
        assert frame[6:10] == b"JFIF"
        for rgb, numbers in names.items():
            frame = frame.replace(rgb, numbers)
    file = make(stored, 8, photometric)
    expected = decode(file)
    file.PlanarConfiguration = 1  # of the values before they were compressed: JPEG has one order
    encapsulate_frame(file, uid.JPEGLosslessSV1, frame)
    np.testing.assert_array_equal(decode(file), expected)


@pytest.mark.parametrize("syntax", dicom_jpeg.SYNTAXES)
@pytest.mark.parametrize("kept", [0.1, 0.6, 0.99])
def test_a_jpeg_picture_cut_short_in_a_whole_file_is_a_bad_row(syntax, kept):
    noise = np.random.default_rng(3).integers(0, 4096, (40, 60)).astype(np.uint16)
    file, frame = make(noise), encode_jpeg(noise, 12, syntax)
    encapsulate_frame(file, syntax, cut(frame, kept))
    with pytest.raises(BadRowError, match="the pixels of the DICOM file cannot be decoded"):
        decode(file)
    encapsulate_frame(file, syntax, frame + bytes(6))  # padding is nothing cut short
    assert decode(file).shape == (40, 60)


@pytest.mark.parametrize("syntax", [uid.JPEGLosslessSV1, uid.JPEGLSLossless, uid.JPEG2000Lossless])
def test_a_compressed_picture_of_another_size_is_a_bad_row(syntax):
    wide = np.tile(STORED, (4, 4))
    file = make(np.ascontiguousarray(wide.T))  # as many pixels
    encapsulate_frame(file, syntax, encode_frame(wide, 12, syntax))
    with pytest.raises(BadRowError, match="of another size than its header says"):
        decode(file)


def test_decoders_are_added_once_and_where_they_are_installed(monkeypatch):
    importlib.reload(dicom_jpeg)
    for syntax in dicom_jpeg.SYNTAXES:
        assert get_decoder(syntax).available_plugins.count(dicom_jpeg.PLUGIN) == 1
    assert dicom_jpeg.is_available(uid.JPEGLosslessSV1)
    assert not dicom_jpeg.is_available(uid.RLELossless)
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    assert not dicom_jpeg.is_available(uid.JPEGLosslessSV1)


def cut(file_bytes, kept):
    return file_bytes[: round(len(file_bytes) * kept)]


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda b: cut(b, 0.9), "cannot be decoded"),
        (lambda b: cut(b, 0.1), "not a whole DICOM file|no pixels"),
        (lambda b: b[:-400], "cannot be decoded|no pixels"),
        (lambda b: b"", "not a whole DICOM file"),
        (lambda b: b"\x89PNG\r\n\x1a\n" + bytes(300), "not a whole DICOM file"),
        (lambda b: b.replace(b"MONOCHROME2 ", b"PALETTE CLR "), "neither gray nor"),
        (lambda b: b.replace(b"MONOCHROME2", b"MONOCHROME7"), "neither gray nor"),
    ],
)
def test_damaged_files_are_bad_rows_without_the_patient(damage, sentence):
    with pytest.raises(BadRowError, match=sentence) as error:
        dicom.decode_dicom(damage(to_bytes(make())))
    assert not any(secret in str(error.value) for secret in SECRETS.values())


@pytest.mark.parametrize("syntax", [*LOSSLESS, uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit])
@pytest.mark.parametrize("kept", [0.5, 0.95])
def test_truncated_compressed_files_are_bad_rows(syntax, kept):
    noise = np.random.default_rng(3).integers(0, 256, (40, 60)).astype(np.uint8)
    file_bytes = compress(make(noise, 8), syntax)
    with pytest.raises(BadRowError, match=r"no pixels|cannot be decoded"):
        dicom.decode_dicom(cut(file_bytes, kept))


@pytest.mark.parametrize(
    ("syntax", "sentence"),
    [
        (uid.JPEGLosslessSV1, "JPEG Lossless.* lacks its decoder, which `pip install medclip_keras` brings"),
        (uid.MPEG2MPML, "no transfer syntax of pictures"),
    ],
)
def test_transfer_syntaxes_without_a_decoder_say_what_they_need(monkeypatch, syntax, sentence):
    monkeypatch.setattr(get_decoder(uid.JPEGLosslessSV1), "_available", {})  # as without dependencies
    file = pydicom.dcmread(io.BytesIO(compress(make(), uid.RLELossless)))
    file.file_meta.TransferSyntaxUID = syntax
    with pytest.raises(BadRowError, match=sentence):
        decode(file)


def test_several_frames_and_no_pixels_are_refused():
    file = make(np.stack([STORED, STORED]).reshape(16, 14), NumberOfFrames=2)
    with pytest.raises(BadRowError, match="several frames"):
        decode(file)
    file = make()
    del file.PixelData
    with pytest.raises(BadRowError, match="no pixels"):
        decode(file)
