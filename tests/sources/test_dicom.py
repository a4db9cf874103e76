"""DICOM: what a screen would show, and nothing of the header."""

import importlib
import io
import sys

import imagecodecs
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom import uid
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder

from medclip_keras.sources import dicom, dicom_jpeg
from medclip_keras.sources.rows import BadRowError, ImageRow

STORED = np.arange(0, 4096, 35, np.uint16)[:112].reshape(8, 14)  # 12 bits: 0, 35, … 3885
SECRETS = {"PatientName": "Doe^Jane", "PatientID": "ID-4711", "StudyDate": "20200229"}
LOSSLESS = [uid.RLELossless, uid.JPEG2000Lossless, uid.JPEGLSLossless, uid.JPEGLossless, uid.JPEGLosslessSV1]


def make(stored=STORED, bits=12, photometric="MONOCHROME2", **elements):
    """A DICOM file in memory, with a patient in its header."""
    file = pydicom.Dataset()
    file.file_meta = pydicom.dataset.FileMetaDataset()
    file.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    file.SOPClassUID, file.SOPInstanceUID = uid.DigitalXRayImageStorageForPresentation, uid.generate_uid()
    file.Rows, file.Columns = stored.shape[:2]
    file.SamplesPerPixel, file.PhotometricInterpretation = 3 if stored.ndim == 3 else 1, photometric
    if stored.ndim == 3:
        file.PlanarConfiguration = 0
    file.BitsAllocated, file.BitsStored, file.HighBit = 8 * stored.itemsize, bits, bits - 1
    file.PixelRepresentation = int(np.issubdtype(stored.dtype, np.signedinteger))
    file.update({**SECRETS, **elements})
    file.PixelData = stored.tobytes()
    return file


def to_bytes(file):
    buffer = io.BytesIO()
    file.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def decode(file, **options):
    picture = dicom.decode_dicom(file if isinstance(file, bytes) else to_bytes(file), **options)
    assert picture.dtype == np.uint16
    return picture.astype(int)


def read(path):
    return dicom.read_image(ImageRow("i", "s", "p", str(path)))


def compress(file, syntax):
    """The bytes of a file whose pixels are compressed."""
    if syntax in (uid.JPEGBaseline8Bit, *dicom_jpeg.SYNTAXES):
        encapsulate_frame(file, syntax, encode_jpeg(file.pixel_array, file.BitsStored, syntax))
    else:
        file.compress(syntax, generate_instance_uid=False)
    return to_bytes(file)


def encapsulate_frame(file, syntax, frame):
    file.PixelData = encapsulate([frame])
    file["PixelData"].VR = "OB"
    file.file_meta.TransferSyntaxUID = syntax


def encode_jpeg(stored, bits, syntax):
    """The stored values as a JPEG file; of negative ones, the lowest bits, as PS3.5 8.2.1 keeps them."""
    if syntax == uid.JPEGBaseline8Bit:
        jpeg = io.BytesIO()
        Image.fromarray(stored).save(jpeg, "JPEG", quality=95)
        return jpeg.getvalue()
    values = (stored.astype(np.int64) % 2**bits).astype(np.uint8 if bits <= 8 else np.uint16)
    if syntax == uid.JPEGLossless:  # by another encoder, with another predictor
        return imagecodecs.ljpeg_encode(values, bitspersample=bits)
    options = {"level": 98} if syntax == uid.JPEGExtended12Bit else {"lossless": True, "predictor": 1}
    return imagecodecs.jpeg8_encode(values, bitspersample=bits, **options)


def encode_frame(cells, bits, syntax):
    """Cells without a sign as a codestream of a precision, whatever the header says."""
    if syntax in dicom_jpeg.SYNTAXES:
        return encode_jpeg(cells, bits, syntax)
    if syntax == uid.JPEGLSLossless:
        return imagecodecs.jpegls_encode(cells)
    return imagecodecs.jpeg2k_encode(cells, reversible=True, level=0, codecformat="j2k")


STRETCHED = np.round(STORED / 3885 * 65535)


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


def test_only_elements_of_the_picture_are_parsed():
    file_bytes = to_bytes(make())
    assert all(secret.encode() in file_bytes for secret in SECRETS.values())
    assert not {*SECRETS} & {*dicom._read_header(file_bytes, dicom._PICTURE).dir()}


def test_burned_in_annotation_is_refused_unless_allowed(tmp_path, monkeypatch):
    path = tmp_path / "1.dcm"
    path.write_bytes(to_bytes(make(BurnedInAnnotation="YES")))
    monkeypatch.delenv(dicom.ALLOW_ANNOTATION, raising=False)
    with pytest.raises(BadRowError, match="burned into the picture; --allow_annotation"):
        read(path)
    np.testing.assert_array_equal(decode(path.read_bytes(), allow_annotation=True), decode(make()))
    monkeypatch.setenv(dicom.ALLOW_ANNOTATION, "1")
    np.testing.assert_array_equal(read(path), decode(make()))
    assert decode(make(BurnedInAnnotation="NO")).any()


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


def test_other_image_files_pass_as_they_are(tmp_path):
    (tmp_path / "1.jpg").write_bytes(b"\xff\xd8 pixels")
    assert read(tmp_path / "1.jpg") == b"\xff\xd8 pixels"
    (tmp_path / "no_suffix").write_bytes(to_bytes(make()))
    np.testing.assert_array_equal(read(tmp_path / "no_suffix"), decode(make()))
    (tmp_path / "1.dcm").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    with pytest.raises(BadRowError, match="not a whole DICOM file"):
        read(tmp_path / "1.dcm")


def test_views_are_told_by_the_header(tmp_path):
    path = tmp_path / "1.dcm"
    code = pydicom.Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "399067008", "SCT", "lateral"
    views = {"PA": "frontal", "AP": "frontal", "LL": "lateral", "RAO": ""}
    headers = [({"ViewPosition": position}, view) for position, view in views.items()]
    coded = {"ViewPosition": "", "ViewCodeSequence": [code]}
    for elements, view in (*headers, (coded, "lateral"), ({}, "")):
        path.write_bytes(to_bytes(make(**elements)))
        assert dicom.view_of_file(path) == view
    path.write_bytes(b"no DICOM")
    assert dicom.view_of_file(path) == ""


def test_the_real_pair_is_a_picture_and_its_negative(medclip_data):
    # Both files hold the same stored values; only the tag says which end is white.
    paths = sorted((medclip_data / "dicom").glob("*.dcm"))
    one, two = map(read, paths)
    assert one.shape == (1024, 1024)
    np.testing.assert_array_equal(one, 65535 - two)
    assert {dicom.view_of_file(path) for path in paths} == {"frontal"}
