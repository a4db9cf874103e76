"""Read image files: JPEG and PNG as bytes, DICOM radiographs as pixels.

Of a DICOM header, only the elements in `_PICTURE` and `_VIEW` are parsed: no name, date or identifier.

The picture is what a screen shows, by DICOM PS3.3 C.7.6.3.1.2, C.11.1 and C.11.2: stored values, modality LUT
or rescale, VOI LUT or the first window, then MONOCHROME1 inverted; pixel padding is black. Without LUT and
window, up to 8 stored bits keep their values, and more are stretched from the least to the greatest value in
the picture. MIMIC-CXR-JPG also equalises histograms, so its JPG files look different from the same studies'
DICOM files: train on one of the two.

Transfer syntaxes: uncompressed, deflated, RLE, JPEG (baseline, extended, lossless), JPEG-LS, JPEG 2000 and
high-throughput JPEG 2000.

A file whose header says that words are burned into its pixels (BurnedInAnnotation YES) is refused, unless
`decode_images --allow_annotation` accepts it: the job then sets the environment variable
MEDCLIP_ALLOW_ANNOTATION to 1 where it decodes. Other headers pass.
"""

import io
import os

import numpy as np
import pydicom
from etils import epath
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut, get_decoder, pixel_array

from medclip_keras.sources import dicom_jpeg
from medclip_keras.sources.rows import BadRowError, ImageContent, ImageRow

ALLOW_ANNOTATION = "MEDCLIP_ALLOW_ANNOTATION"
SUFFIXES = (".dcm", ".dicom")

_PICTURE = (
    "BurnedInAnnotation",
    "PhotometricInterpretation",
    "SamplesPerPixel",
    "PlanarConfiguration",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "ModalityLUTSequence",
    "RescaleSlope",
    "RescaleIntercept",
    "VOILUTSequence",
    "VOILUTFunction",
    "WindowCenter",
    "WindowWidth",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
    "PixelData",
)
_VIEW = ("ViewPosition", "ViewCodeSequence")
_LUMINANCE = (0.299, 0.587, 0.114)  # of red, green, blue, as `preprocess.images` weighs colour

_VIEW_OF_POSITION = {  # ViewPosition (0018,5101), and the meanings of its codes
    "frontal": ("AP", "PA", "antero-posterior", "postero-anterior"),
    "lateral": ("LL", "RL", "LATERAL", "XTABLE LATERAL", "LLAT", "RLAT", "left lateral", "right lateral"),
}
_POSITIONS = {name.lower(): view for view, names in _VIEW_OF_POSITION.items() for name in names}


def read_image(row: ImageRow) -> ImageContent:
    """Read the image of a row: a JPEG or PNG file as it is, the picture of a DICOM file."""
    return decode_file(epath.Path(row.path).read_bytes(), row.path)


def decode_file(file_bytes: bytes, path: str = "") -> ImageContent:
    """Return the pixels of a DICOM file, known by its content or its path; other files as they are."""
    if path.lower().endswith(SUFFIXES) or file_bytes[128:132] == b"DICM":
        return decode_dicom(file_bytes, allow_annotation=os.environ.get(ALLOW_ANNOTATION) == "1")
    return file_bytes


def decode_dicom(file_bytes: bytes, *, allow_annotation: bool = False) -> np.ndarray:
    """Decode a DICOM radiograph to gray pixels; black is what the screen shows black.

    Args:
        file_bytes: the whole file, of a transfer syntax listed above.
        allow_annotation: accept files whose header says BurnedInAnnotation YES.

    Returns:
        (rows, columns) uint16, 65535 white. Where up to 8 bits are stored and neither LUT nor window acts on
        them, the values are v * 257 for v in [0, 255].

    Raises:
        BadRowError: not DICOM, truncated, no single picture, a transfer syntax that cannot be read, or
            burned-in annotation.
    """
    header = _read_header(file_bytes, _PICTURE)
    burned_in = str(header.get("BurnedInAnnotation", "")).strip().upper() == "YES"
    if burned_in and not allow_annotation:
        raise BadRowError("words are burned into the picture; --allow_annotation accepts it")
    _refuse_other_objects(header)
    _require_decoder(header)
    try:
        picture, white = _picture(header)  # (rows, columns) in [0, 1]
    except Exception as error:  # whatever decoders raise on whatever a file holds
        reason = f"the pixels of the DICOM file cannot be decoded ({type(error).__name__})"
        raise BadRowError(reason) from None
    return np.round(picture * white).astype(np.uint16) * np.uint16(65535 // white)  # (rows, columns)


def view_of_file(path: epath.PathLike) -> str:
    """The view in the header of a DICOM file: "frontal", "lateral", or "" if it does not say or is none."""
    with epath.Path(path).open("rb") as file:
        try:
            header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(_VIEW))
            codes = header.get("ViewCodeSequence") or ()
            meanings = [str(code.get("CodeMeaning", "")) for code in codes]
            views = [view_of_position(name) for name in (str(header.get("ViewPosition") or ""), *meanings)]
        except OSError:
            raise
        except Exception:  # not DICOM: decoding will say so
            return ""
    return next(filter(None, views), "")


def view_of_position(position: str) -> str:
    """The view that a ViewPosition, or the meaning of a view code, names; "" for others, such as oblique.

    >>> view_of_position("PA"), view_of_position("LATERAL"), view_of_position("LAO")
    ('frontal', 'lateral', '')
    """
    return _POSITIONS.get(position.strip().lower(), "")


def _read_header(file_bytes: bytes, elements: tuple[str, ...]) -> Dataset:
    try:
        return pydicom.dcmread(io.BytesIO(file_bytes), specific_tags=list(elements))
    except Exception as error:  # a broken file may break the parser anywhere
        raise BadRowError(f"not a whole DICOM file ({type(error).__name__})") from None


def _refuse_other_objects(header: Dataset) -> None:
    if "PixelData" not in header:
        raise BadRowError("no pixels: the DICOM file is truncated or no image")
    if int(header.get("NumberOfFrames") or 1) > 1:
        raise BadRowError("the DICOM file holds several frames, not one radiograph")
    kind, samples = header.get("PhotometricInterpretation", ""), header.get("SamplesPerPixel", 1)
    if kind not in ("MONOCHROME1", "MONOCHROME2") and (samples != 3 or not kind.startswith(("RGB", "YBR"))):
        raise BadRowError("the DICOM file is neither gray nor of red, green and blue")


def _require_decoder(header: Dataset) -> None:
    try:
        decoder = get_decoder(header.file_meta.TransferSyntaxUID)
    except (AttributeError, NotImplementedError):
        raise BadRowError("the DICOM file names no transfer syntax of pictures") from None
    if not decoder.is_available:
        raise BadRowError(f"{decoder.UID.name} lacks its decoder, which `pip install medclip_keras` brings")


def _picture(header: Dataset) -> tuple[np.ndarray, int]:
    """The picture as (rows, columns) float in [0, 1], 0 black, and its white: 255 or 65535 levels."""
    plugin = dicom_jpeg.PLUGIN if header.file_meta.TransferSyntaxUID in dicom_jpeg.SYNTAXES else ""
    stored = pixel_array(header, decoding_plugin=plugin)  # colour is converted to red, green, blue
    full_range = (0, 2**header.BitsStored - 1)
    white = 255 if header.BitsStored <= 8 else 65535
    if header.get("SamplesPerPixel", 1) == 3:
        return _stretch(stored @ np.array(_LUMINANCE), *full_range), white
    padding = _padding(stored, header)
    values = apply_modality_lut(stored, header)
    if header.get("VOILUTSequence") or _has_window(header):
        white = 65535
        picture = _stretch(apply_voi_lut(values, header), *_output_range(header))
    elif header.BitsStored <= 8 and np.array_equal(values, stored) and not header.PixelRepresentation:
        picture = _stretch(values, *full_range)
    else:
        white = 65535
        seen = values[~padding]
        picture = _stretch(values, seen.min(), seen.max()) if seen.size else np.zeros(values.shape)
    if header.PhotometricInterpretation == "MONOCHROME1":
        picture = 1.0 - picture
    return np.where(padding, 0.0, picture), white


def _stretch(values: np.ndarray, black: float, white: float) -> np.ndarray:
    """Map black to 0 and white to 1, also if black is the greater value; a constant picture becomes black."""
    if black == white:
        return np.zeros(values.shape)
    return np.clip((values.astype(np.float64) - black) / (float(white) - float(black)), 0.0, 1.0)


def _padding(stored: np.ndarray, header: Dataset) -> np.ndarray:
    """Mask of the padding: values from PixelPaddingValue to PixelPaddingRangeLimit, if any."""
    value = header.get("PixelPaddingValue")
    if value is None:
        return np.zeros(stored.shape, bool)
    limit = header.get("PixelPaddingRangeLimit")
    low, high = sorted((value, value if limit is None else limit))
    return (stored >= low) & (stored <= high)


def _has_window(header: Dataset) -> bool:
    """Whether the header has a usable window; some devices write a width of 0."""
    if header.get("WindowCenter") in (None, "") or header.get("WindowWidth") in (None, ""):
        return False
    exact = str(header.get("VOILUTFunction") or "LINEAR").upper() != "LINEAR"
    width = float(np.atleast_1d(header.WindowWidth)[0])
    return width > 0 if exact else width >= 1


def _output_range(header: Dataset) -> tuple[float, float]:
    """The values of black and white after `apply_voi_lut`."""
    if header.get("VOILUTSequence"):
        num_entries, first, _ = header.VOILUTSequence[0].LUTDescriptor
        outputs = apply_voi_lut(np.arange(first, first + (num_entries or 2**16)), header)
        return outputs.min(), outputs.max()
    with np.errstate(over="ignore"):  # the sigmoid's exponential
        black, white = apply_voi_lut(np.array([-1e9, 1e9]), header)
    return black, white
