"""The rows of every source: an image or a report by name, before its file is read."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from medclip_keras.knowledge.states import LabelState

MAX_PIXELS = (
    2**26
)  # of an image: film of 14 x 17 inches at 50 µm has 61 million, a detector at most 30 million
MAX_SIDE = 65535  # pixels: the longest that JPEG and DICOM can say
ImageContent = bytes | np.ndarray  # a JPEG or PNG file, or (rows, columns) uint16 pixels, 65535 white


@dataclass(frozen=True, slots=True)
class ImageRow:
    """One image of an archive; its pixels are read where its shard is written.

    Attributes:
        image_id: unique within the source.
        study_id: the examination; joins an image with its own report.
        patient_id: splits are made by it.
        path: the image file, as the source's `read_image` opens it.
        view: "frontal", "lateral" or "" where the archive does not say.
        labels: state of each concept that the archive labels, by concept name.
        split: "train", "valid" or "test" where the archive publishes a split, else "".
        number: of the row in the user's own table, 0 elsewhere; names a bad row to its owner.
    """

    image_id: str
    study_id: str
    patient_id: str
    path: str
    view: str = ""
    labels: Mapping[str, LabelState] = field(default_factory=dict)
    split: str = ""
    number: int = field(default=0, repr=False)  # not part of the order of equal rows


@dataclass(frozen=True, slots=True)
class ReportRow:
    """One report of an archive; `content` holds a text that came with the row, such as a table's cell.

    Attributes:
        report_id: unique within the source.
        study_id, patient_id, split, number: as those of an `ImageRow`.
        path: the report file, or the archive that holds it.
        content: the raw report where it is not a file of its own, else None.
    """

    report_id: str
    study_id: str
    patient_id: str
    path: str
    content: bytes | None = field(default=None, repr=False)
    split: str = ""
    number: int = field(default=0, repr=False)


class BadRowError(ValueError):
    """A row that cannot be read. The message carries no report text and no identifier."""
