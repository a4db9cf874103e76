"""The rows of every source: an image or a report by name, before its file is read."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from medclip_keras.knowledge.states import LabelState

MAX_PIXELS = (
    2**26
)  # of an image: film of 14 x 17 inches at 50 µm has 61 million, a detector at most 30 million
MAX_SIDE = 65535  # pixels: the longest that JPEG and DICOM can say
UNKNOWN_AGE, OLDEST, _LONGEST_LIFE = -1, 90, 120  # years
_POSITIONS = {"ap": "AP", "aphorizontal": "AP", "apsupine": "AP", "pa": "PA"} | dict.fromkeys(
    ("lateral", "ll", "rl", "l", "leftlateral"), "LATERAL"
)
_SEXES = {"m": "M", "male": "M", "f": "F", "female": "F", "w": "F"}
_AGE = re.compile(r"0*(\d{1,3})(?:\.\d*)?\s*([YMWD]?)", re.IGNORECASE)
ImageContent = bytes | np.ndarray  # a JPEG or PNG file, or (rows, columns) uint16 pixels, 65535 white


def position_of(text: str) -> str:
    """The view position that an archive's code names; "" for others.

    >>> position_of("AP_horizontal"), position_of("LL"), position_of("oblique")
    ('AP', 'LATERAL', '')
    """
    return _POSITIONS.get(re.sub(r"[\s_-]", "", text.lower()), "")


def sex_of(text: str) -> str:
    """The sex that an archive's code names; "" for others.

    >>> sex_of("Female"), sex_of("m"), sex_of("Unknown")
    ('F', 'M', '')
    """
    return _SEXES.get(text.strip().lower(), "")


def age_of(text: str) -> int:
    """Age in whole years, at most 90, so that no very old person is identifiable; -1 if invalid.

    >>> [age_of(text) for text in ("57", "058Y", "11M", "94", "414", "", "old")]
    [57, 58, 0, 90, -1, -1, -1]
    """
    match = _AGE.fullmatch(text.strip())
    if not match:
        return UNKNOWN_AGE
    years = int(match[1]) if match[2].upper() in ("", "Y") else 0  # months, weeks, days
    return min(years, OLDEST) if years <= _LONGEST_LIFE else UNKNOWN_AGE


@dataclass(frozen=True, slots=True)
class ImageRow:
    """One image of an archive; its pixels are read where its shard is written.

    Attributes:
        image_id: unique within the source.
        study_id: the examination; joins an image with its own report.
        patient_id: splits are made by it.
        path: the image file, as the source's `read_image` opens it.
        view: "frontal", "lateral" or "" where the archive does not say.
        labels: state of each concept that the archive labels, by concept name; every other concept is
            unlabelled, unless the source `LABELS_ALL`.
        split: "train", "valid" or "test" where the archive publishes a split, else "".
        number: of the row in the user's own table, 0 elsewhere; names a bad row to its owner.
        view_position: "AP", "PA", "LATERAL" or "", of `position_of`.
        sex: "F", "M" or "" where the archive does not say, of `sex_of`.
        age: of the patient in years, of `age_of`; -1 where the archive does not say.
    """

    image_id: str
    study_id: str
    patient_id: str
    path: str
    view: str = ""
    labels: Mapping[str, LabelState] = field(default_factory=dict)
    split: str = ""
    number: int = field(default=0, repr=False)  # not part of the order of equal rows
    view_position: str = field(default="", repr=False)
    sex: str = field(default="", repr=False)
    age: int = field(default=UNKNOWN_AGE, repr=False)


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


def own_study(patient_id: str, study_id: str) -> str:
    """A study of the user's own data as all of its sources name it: numbers may begin anew for each patient.

    >>> own_study("p17", "s1")
    'p17/s1'
    """
    return f"{patient_id}/{study_id}"


class BadRowError(ValueError):
    """A row that cannot be read. The message carries no report text and no identifier."""
