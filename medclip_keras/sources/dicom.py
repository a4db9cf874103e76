"""DICOM radiographs: a hospital's folder without a table, and the pixels of the files of any archive.

Layout on disk: a folder with DICOM files in it or below it, named in any way, with or without a suffix, as an
archive exports them (DICOM PS3.10; https://dicom.nema.org/medical/dicom/current/output/html/part10.html). A
file is an image where its Modality is CR, DX, DR, RG, OT or blank. Passed over, and counted by `passed_over`:
other modalities (structured reports among them), DICOMDIR, files that are neither DICOM nor named .dcm or
.dicom, hidden ones (of macOS, such as ._1.dcm), and links to nowhere without such a name. Other files that
cannot be read, or whose header is damaged, are bad rows.

An image is known by its path below the folder: exports repeat SOPInstanceUIDs. Of each header are read:
PatientID, the patient; StudyInstanceUID, the study, known by its patient too; ViewPosition and
ViewCodeSequence, the view. All are hashed like those of any private archive. Structured reports, text in a
header (ImageComments, descriptions), names and dates are not read. There are no labels: an image's come from
its study's report, with `decode_images --reports`, such as those of `fhir` or of a table. A file without a
patient or a study is a bad row, for splits are made by patient; so is a file of several frames. Refused
before any work: no folder, or one without an image.

Pixels: the picture is what a screen shows (`dicom_picture`). MIMIC-CXR-JPG also equalises histograms, so its
JPG files look different from the same studies' DICOM files: train on one of the two. Transfer syntaxes:
uncompressed, deflated, RLE, JPEG (baseline, extended, lossless), JPEG-LS, JPEG 2000 and high-throughput JPEG
2000.

A file whose header says that words are burned into its pixels (BurnedInAnnotation YES) is refused, unless
`decode_images --allow_annotation` accepts it: the job then sets the environment variable
MEDCLIP_ALLOW_ANNOTATION to 1 where it decodes. Other headers pass.
"""

import io
import itertools
import os
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import BinaryIO

import numpy as np
import pydicom
from etils import epath
from pydicom.dataset import Dataset
from pydicom.pixels import get_decoder
from pydicom.uid import DeflatedExplicitVRLittleEndian

from medclip_keras.errors import require
from medclip_keras.sources import dicom_picture
from medclip_keras.sources.files import is_hidden
from medclip_keras.sources.rows import MAX_PIXELS, BadRowError, ImageContent, ImageRow, own_study
from medclip_keras.sources.tables import identifier

# Its warnings would quote the values of identifiers.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE

CITATION = "The user's own data."
LICENCE = "The user's own."
PRIVATE = True  # keys need a salt of the owner's

ALLOW_ANNOTATION = "MEDCLIP_ALLOW_ANNOTATION"
SUFFIXES = (".dcm", ".dicom")

_PICTURE = ("BurnedInAnnotation", *dicom_picture.ELEMENTS)
_LONGEST_META = 4096  # bytes from a file's start that may hold its transfer syntax
_PIECE = 2**20
_MOST_BYTES = 3 * 2 * MAX_PIXELS  # of a deflated file: three colours of 16 bits
_VIEW = ("ViewPosition", "ViewCodeSequence")
_IDENTIFIERS = ("StudyInstanceUID", "PatientID", "Modality", *_VIEW)
_RADIOGRAPHS = ("CR", "DX", "DR", "RG", "OT", "")

_VIEW_OF_POSITION = {  # ViewPosition (0018,5101), and the meanings of its codes
    "frontal": ("AP", "PA", "antero-posterior", "postero-anterior"),
    "lateral": ("LL", "RL", "LATERAL", "XTABLE LATERAL", "LLAT", "RLAT", "left lateral", "right lateral"),
}
_POSITIONS = {name.lower(): view for view, names in _VIEW_OF_POSITION.items() for name in names}


def image_rows(path: epath.PathLike) -> Iterator[ImageRow]:
    """The radiographs in and below a folder, by the names of their files."""
    rows = (row for row in _rows_and_others(path) if isinstance(row, ImageRow))
    first = next(rows, None)
    require(first is not None, "input", "a folder with DICOM radiographs in it or below it", str(path))
    yield from itertools.chain((first,), rows)


def passed_over(path: epath.PathLike) -> dict[str, int]:
    """How many files of a folder are no radiographs, by their kind."""
    return dict(Counter(other for other in _rows_and_others(path) if isinstance(other, str)))


def read_image(row: ImageRow) -> ImageContent:
    """Read the image of a row: a JPEG or PNG file as it is, the picture of a DICOM file."""
    content = decode_file(epath.Path(row.path).read_bytes(), row.path)
    if not (row.patient_id and row.study_id):
        raise BadRowError("the header names no patient or no study")
    return content


def decode_file(file_bytes: bytes, path: str = "") -> ImageContent:
    """Return the pixels of a DICOM file, known by its content or its path; other files as they are."""
    if path.lower().endswith(SUFFIXES) or file_bytes[128:132] == b"DICM":
        return decode_dicom(file_bytes, allow_annotation=os.environ.get(ALLOW_ANNOTATION) == "1")
    return file_bytes


def decode_dicom(file_bytes: bytes, *, allow_annotation: bool = False) -> np.ndarray:
    """Decode a DICOM radiograph to gray pixels; 0 is displayed as black.

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
        return dicom_picture.gray_picture(header)
    except BadRowError:
        raise
    except Exception as error:  # whatever decoders raise on whatever a file holds
        reason = f"the pixels of the DICOM file cannot be decoded ({type(error).__name__})"
        raise BadRowError(reason) from None


def view_of_file(path: epath.PathLike) -> str:
    """The view in the header of a DICOM file: "frontal", "lateral", or "" if it does not say or is none."""
    with epath.Path(path).open("rb") as file:
        return _view_of_header(_read_identifiers(file, _VIEW))


def _rows_and_others(path: epath.PathLike) -> Iterator[ImageRow | str]:
    """A row for each radiograph below a folder, the kind of each other file."""
    root = epath.Path(path)
    require(root.is_dir(), "input", "a folder of DICOM files", str(path))
    for file in _files_below(root):
        yield _row_or_kind(file, str(file.relative_to(root)))


def _files_below(folder: epath.Path) -> Iterator[epath.Path]:
    for entry in sorted(folder.iterdir()):
        if entry.is_dir():
            yield from _files_below(entry)
        else:
            yield entry


def _row_or_kind(path: epath.Path, name: str) -> ImageRow | str:
    if is_hidden(name):
        return "hidden"
    is_named = name.lower().endswith(SUFFIXES)
    unread = ImageRow(name, "", "", str(path))  # a bad row: decoding will say why
    try:
        with path.open("rb") as file:
            is_dicom = file.read(132)[128:] == b"DICM"
            file.seek(0)
            if path.name.upper() == "DICOMDIR" or not (is_dicom or is_named):
                return "DICOMDIR" if path.name.upper() == "DICOMDIR" else "no DICOM file"
            header = _read_identifiers(file, _IDENTIFIERS)
    except FileNotFoundError:
        return unread if is_named else "link to nowhere"
    except OSError:
        return unread
    try:
        study, patient, modality = (str(header.get(element) or "") for element in _IDENTIFIERS[: -len(_VIEW)])
    except Exception:  # pydicom reads a value where it is asked for; a damaged one may raise anything
        return unread
    modality = modality.strip().upper()
    if modality not in _RADIOGRAPHS:
        return f"modality {modality}"
    patient, study = identifier(patient), identifier(study)
    study = own_study(patient, study) if patient and study else ""  # without them a bad row
    return replace(unread, study_id=study, patient_id=patient, view=_view_of_header(header))


def _read_identifiers(file: BinaryIO, elements: Sequence[str]) -> Dataset:
    """Some elements of a header; none of a damaged one: decoding will say so."""
    try:
        return pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(elements))
    except OSError:
        raise
    except Exception:
        return Dataset()


def _view_of_header(header: Dataset) -> str:
    try:
        codes = header.get("ViewCodeSequence") or ()
        meanings = [str(code.get("CodeMeaning", "")) for code in codes]
        views = [view_of_position(name) for name in (str(header.get("ViewPosition") or ""), *meanings)]
    except Exception:  # a damaged element
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
        _refuse_inflation(file_bytes)
        return pydicom.dcmread(io.BytesIO(file_bytes), specific_tags=list(elements))
    except BadRowError:
        raise
    except Exception as error:  # a broken file may break the parser anywhere
        raise BadRowError(f"not a whole DICOM file ({type(error).__name__})") from None


def _refuse_inflation(file_bytes: bytes) -> None:
    """Refuse a deflated file that inflates to more than the largest picture, before it is inflated."""
    if DeflatedExplicitVRLittleEndian.encode() not in file_bytes[:_LONGEST_META]:
        return
    start = 144 + int.from_bytes(file_bytes[140:144], "little")  # after preamble, prefix and group 2
    inflating, room = zlib.decompressobj(-zlib.MAX_WBITS), _MOST_BYTES
    for at in range(start, len(file_bytes), _PIECE):
        piece = file_bytes[at : at + _PIECE]
        while piece and room > 0:
            room -= len(inflating.decompress(piece, _PIECE))
            piece = inflating.unconsumed_tail
    if room <= 0:
        raise BadRowError(f"the DICOM file inflates to more than {_MOST_BYTES:,} bytes")


def _refuse_other_objects(header: Dataset) -> None:
    if "PixelData" not in header:
        raise BadRowError("no pixels: the DICOM file is truncated or no image")
    try:
        frames, samples = int(header.get("NumberOfFrames") or 1), int(header.get("SamplesPerPixel") or 1)
        num_pixels, bits = int(header.Rows) * int(header.Columns), int(header.BitsStored)
        allocated, kind = int(header.BitsAllocated), str(header.PhotometricInterpretation)
    except (AttributeError, TypeError, ValueError):
        raise BadRowError("the header of the DICOM file does not describe its pixels") from None
    if frames != 1:
        raise BadRowError("the DICOM file holds several frames, not one radiograph")
    if not (kind in ("MONOCHROME1", "MONOCHROME2") and samples == 1) and not (
        kind.startswith(("RGB", "YBR")) and samples == 3
    ):
        raise BadRowError("the DICOM file is neither gray nor of red, green and blue")
    if not 0 < num_pixels <= MAX_PIXELS:
        raise BadRowError(f"the DICOM file has no pixels, or more than {MAX_PIXELS:,}")
    if not 0 < bits <= allocated:
        raise BadRowError("the DICOM file stores more bits than it allocates, or none")


def _require_decoder(header: Dataset) -> None:
    try:
        decoder = get_decoder(header.file_meta.TransferSyntaxUID)
    except (AttributeError, NotImplementedError):
        raise BadRowError("the DICOM file names no transfer syntax of pictures") from None
    if not decoder.is_available:
        raise BadRowError(f"{decoder.UID.name} lacks its decoder, which `pip install medclip_keras` brings")
