"""The gray picture that a screen shows of a DICOM radiograph, by DICOM PS3.3 C.7.6.3.1.2, C.11.1 and C.11.2.

A cell is what the file keeps for a pixel. Its stored value is the `BitsStored` bits that end at `HighBit`,
with their sign; the bits beside them, such as an overlay's, do not count. Stored values pass the modality LUT
or rescale, then the VOI LUT or the first usable window; MONOCHROME1 is inverted; pixel padding is black.
Without LUT and window, up to 8 stored bits keep their values, and more are stretched from the least to the
greatest value in the picture.

Of headers that contradict themselves: a `HighBit` that the cells contradict, a rescale slope of 0 or without
a number, and a window without a number or width do not count; padding and table limits of the other sign are
read modulo their bits; a VOI LUT has as many bits as its descriptor says, or more where its entries need
them. Errors: an unknown VOI function; a VOI LUT whose entries all lie below a quarter of white.

Every step acts on single values, so it acts on the 2**16 possible cells and not on the pixels: a picture
needs some ten bytes a pixel, and less time.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels import get_decoder

from medclip_keras.sources import dicom_jpeg
from medclip_keras.sources.codestreams import size_of_codestream
from medclip_keras.sources.rows import BadRowError

ELEMENTS = (
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
)  # of a header, that decide the picture
_LUMINANCE = (0.299, 0.587, 0.114)  # of red, green, blue, as `preprocess.images` weighs colour
_AS_STORED = {  # pydicom's own corrections, which trust the codestream and not the header
    "correct_unused_bits": False,
    "apply_j2k_sign_correction": False,
    "apply_jls_sign_correction": False,
}

Floats = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.integer]


def gray_picture(header: Dataset) -> npt.NDArray[np.uint16]:
    """Decode the pixels of a header: (rows, columns) uint16, black 0 and white 65535.

    Raises:
        BadRowError: a header that has no one meaning.
        Exception: of any kind, for pixels that cannot be decoded.
    """
    cells = _cells(header)
    if cells.ndim == 3:
        return _to_16_bits(_luminance(cells, 2**header.BitsStored - 1), _white(header))
    shift = _shift(cells, header)
    if cells.itemsize > 2:  # too many possible cells for a table
        picture, white = _shown(cells, lambda: cells, shift, header)
        return _to_16_bits(picture, white)
    possible = np.arange(2 ** (8 * cells.itemsize), dtype=cells.dtype)
    picture, white = _shown(
        possible, lambda: possible[np.bincount(cells.ravel(), minlength=len(possible)) > 0], shift, header
    )
    return _to_16_bits(picture, white)[cells]


def _cells(header: Dataset) -> Numbers:
    """Raw unsigned cells of the pixels: (rows, columns), or (rows, columns, 3) of RGB."""
    syntax = header.file_meta.TransferSyntaxUID
    if syntax.is_encapsulated:
        frame = get_frame(header.PixelData, 0, number_of_frames=1)
        if size_of_codestream(frame) not in (None, (header.Rows, header.Columns)):
            raise BadRowError(
                "the compressed picture in the DICOM file is of another size than its header says"
            )
    plugin = dicom_jpeg.PLUGIN if syntax in dicom_jpeg.SYNTAXES else ""
    cells, _ = get_decoder(syntax).as_array(header, decoding_plugin=plugin, **_AS_STORED)
    return cells.view(f"u{cells.itemsize}")


def _luminance(colours: Numbers, white: int) -> Floats:
    gray = np.zeros(colours.shape[:2])
    for channel, weight in enumerate(_LUMINANCE):
        gray += weight * colours[..., channel]
    return np.clip(gray / white, 0.0, 1.0)


def _white(header: Dataset) -> int:
    """The gray levels above black of a picture without LUT and window."""
    return 255 if header.BitsStored <= 8 else 65535


def _to_16_bits(picture: Floats, white: int) -> npt.NDArray[np.uint16]:
    return np.round(picture * white).astype(np.uint16) * np.uint16(65535 // white)


def _shift(cells: Numbers, header: Dataset) -> int:
    """How many bits lie below the stored value; 0 if HighBit is not possible, or the cells contradict it."""
    shift = int(header.get("HighBit", header.BitsStored - 1)) + 1 - header.BitsStored
    if shift <= 0 or header.BitsStored + shift > 8 * cells.itemsize:
        return 0
    if not (cells & ((1 << shift) - 1)).any():
        return shift
    numbers = cells.astype(np.int64)
    in_lowest_bits = _signed(numbers, header.BitsStored, header) == _signed(
        numbers, 8 * cells.itemsize, header
    )
    return 0 if in_lowest_bits.all() else shift


def _shown(cells: Numbers, seen: Callable[[], Numbers], shift: int, header: Dataset) -> tuple[Floats, int]:
    """The gray of each cell, 0 black to 1, and the levels above black; `seen` lists the picture's cells."""
    stored, padding = _stored(cells, shift, header), _padding(cells, shift, header)
    values, white = _modality(stored, header), 65535
    voi = _voi_table(header, values) or _window(header)
    if voi is not None:
        picture = voi(values)
    elif header.BitsStored <= 8 and not header.PixelRepresentation and np.array_equal(values, stored):
        picture, white = stored / (2**header.BitsStored - 1), _white(header)
    else:
        inner = seen()[~_padding(seen(), shift, header)]
        picture = _stretch(values, _modality(_stored(inner, shift, header), header))
    if header.PhotometricInterpretation == "MONOCHROME1":
        picture = 1.0 - picture
    return np.where(padding, 0.0, picture), white


def _stretch(values: Floats, seen: Floats) -> Floats:
    """Map the least value in the picture to 0 and the greatest to 1; a constant picture becomes black."""
    if not seen.size or seen.min() == seen.max():
        return np.zeros(values.shape)
    return np.clip((values - seen.min()) / (seen.max() - seen.min()), 0.0, 1.0)


def _stored(cells: Numbers, shift: int, header: Dataset) -> npt.NDArray[np.int64]:
    """The stored values: other bits masked, the sign extended."""
    return _signed(cells.astype(np.int64) >> shift, header.BitsStored, header)


def _signed(numbers: npt.NDArray[np.int64], bits: int, header: Dataset) -> npt.NDArray[np.int64]:
    """The lowest bits of numbers, as the header's kind of integers."""
    numbers = numbers & ((1 << bits) - 1)
    return numbers - ((numbers >> (bits - 1)) << bits) if header.PixelRepresentation else numbers


def _padding(cells: Numbers, shift: int, header: Dataset) -> npt.NDArray[np.bool_]:
    """Mask of the padding: values from PixelPaddingValue to PixelPaddingRangeLimit, if any.

    Padding may lie outside of the stored bits, so whole cells are compared too.
    """
    value = header.get("PixelPaddingValue")
    if value in (None, ""):
        return np.zeros(cells.shape, bool)
    limit = header.get("PixelPaddingRangeLimit")
    ends = np.array([value, value if limit in (None, "") else limit], np.int64)
    whole = _between(
        _signed(cells.astype(np.int64), 8 * cells.itemsize, header), ends, 8 * cells.itemsize, header
    )
    if not header.PixelRepresentation and ends.max() >= 2**header.BitsStored:
        return whole
    return whole | _between(_stored(cells, shift, header), ends, header.BitsStored, header)


def _between(
    numbers: npt.NDArray[np.int64], ends: npt.NDArray[np.int64], bits: int, header: Dataset
) -> npt.NDArray[np.bool_]:
    low, high = np.sort(_signed(ends, bits, header))
    return (numbers >= low) & (numbers <= high)


def _modality(stored: npt.NDArray[np.int64], header: Dataset) -> Floats:
    if header.get("ModalityLUTSequence"):
        return _Table(header.ModalityLUTSequence[0], stored)(stored)
    slope, intercept = _number(header.get("RescaleSlope")), _number(header.get("RescaleIntercept"))
    return stored.astype(np.float64) * (slope or 1.0) + (intercept or 0.0)


def _number(element: Any) -> float | None:
    """The finite number of an element, if any."""
    if element in (None, ""):
        return None
    number = float(str(element))
    return number if math.isfinite(number) else None


class _Table:
    """A LUT of the header: its entries for values from `first` on, those at the ends for values beyond."""

    def __init__(self, item: Dataset, values: npt.NDArray[np.number]):
        """Read an item; `values` are the possible inputs, whose sign tells that of the first one."""
        num_entries, first, self.bits = (int(number) for number in item.LUTDescriptor)
        num_entries = num_entries % 2**16 or 2**16
        if first >= 2**15 and values.min() < 0:
            first -= 2**16
        elif first < 0 <= values.min():
            first += 2**16
        self.first, self.entries = first, _entries(item.LUTData, num_entries)

    def __call__(self, values: npt.NDArray[np.number]) -> Floats:
        """The entries of some values."""
        index = np.clip(np.round(values) - self.first, 0, len(self.entries) - 1).astype(np.int64)
        return self.entries[index].astype(np.float64)


def _entries(data: Any, num_entries: int) -> Numbers:
    """The entries of a LUT: numbers, or words of 8 or 16 bits."""
    if isinstance(data, bytes):
        data = np.frombuffer(data, "<u2" if len(data) >= 2 * num_entries else "u1")
    entries = np.atleast_1d(np.asarray(data, np.int64)) & 0xFFFF
    if len(entries) < num_entries:
        raise BadRowError("a lookup table of the DICOM file has fewer entries than it says")
    return entries[:num_entries]


def _voi_table(header: Dataset, values: Floats) -> Callable[[Floats], Floats] | None:
    if not header.get("VOILUTSequence"):
        return None
    table = _Table(header.VOILUTSequence[0], values)
    largest = int(table.entries.max())
    white = 2 ** max(table.bits, largest.bit_length()) - 1
    if 4 * largest <= white:
        raise BadRowError("the VOI LUT of the DICOM file makes the picture nearly black")
    return lambda inputs: table(inputs) / white


def _window(header: Dataset) -> Callable[[Floats], Floats] | None:
    """The function of the first usable window, if any; some devices write a width of 0."""
    function = str(header.get("VOILUTFunction") or "LINEAR").strip().upper()
    if function not in _WINDOWS:
        raise BadRowError("the DICOM file names an unknown VOI LUT function")
    centers, widths = (_numbers(header.get(name)) for name in ("WindowCenter", "WindowWidth"))
    for center, width in zip(centers, widths, strict=False):
        if center is not None and width is not None and width > 0 and (width >= 1 or function != "LINEAR"):
            return lambda values: _WINDOWS[function](values, center, width)
    return None


def _numbers(element: Any) -> list[float | None]:
    several = element if isinstance(element, list | tuple) or hasattr(element, "append") else [element]
    return [_number(one) for one in several]


def _linear(values: Floats, center: float, width: float) -> Floats:
    """PS3.3 C.11.2.1.2.1: black up to c - 0.5 - (w - 1) / 2, white above c - 0.5 + (w - 1) / 2."""
    if width == 1:
        return (values > center - 0.5).astype(np.float64)
    return _linear_exact(values, center - 0.5, width - 1)


def _linear_exact(values: Floats, center: float, width: float) -> Floats:
    return np.clip((values - center) / width + 0.5, 0.0, 1.0)


def _sigmoid(values: Floats, center: float, width: float) -> Floats:
    with np.errstate(over="ignore"):
        return 1.0 / (1.0 + np.exp(-4.0 * (values - center) / width))


_WINDOWS = {"LINEAR": _linear, "LINEAR_EXACT": _linear_exact, "SIGMOID": _sigmoid}
