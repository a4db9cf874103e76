"""R2Gen's annotation.json: the reports, images and splits on which report generation is compared.

Layout on disk, as published (https://github.com/cuhksz-nlp/R2Gen, one download for IU X-Ray, one for
MIMIC-CXR)
    annotation.json    {"train": […], "val": […], "test": […]}, an entry an image or a pair of images
    images/<image_path>
An entry of IU X-Ray is {"id": "CXR2384_IM-0942", "report": "…", "image_path": ["CXR2384_IM-0942/0.png",
"CXR2384_IM-0942/1.png"]}; one of MIMIC-CXR has `subject_id` and `study_id` too. The loader
https://github.com/cuhksz-nlp/R2Gen/blob/main/modules/datasets.py reads the same fields. The images of
MIMIC-CXR are those of MIMIC-CXR-JPG: `images` may be a link to its `files`.

No labels are published: an image's come from its report, with `decode_images --reports`. The split is the
file's; `val` is valid here. Studies and patients: `study_id` and `subject_id`, or those of the path, as in
`mimic_cxr`; else the report in the identifier, `CXR2384`, as in `openi`; else the entry itself. So these are
the images and reports of those two archives: training on one with a test on the other leaks. No view is
known.

A report, one a study, is text without headings. Of several entries of a study the first one's report counts.

Refused before any work: no such file; no JSON; an entry without one of the fields; an entry or an image that
is there twice; a patient in two splits."""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from etils import epath

from medclip_keras.errors import near_names, refusal, require
from medclip_keras.sources import dicom, json_files, sectioned_reports, tables
from medclip_keras.sources.rows import ImageRow, ReportRow

CITATION = (
    "Chen et al., Generating radiology reports via memory-driven Transformer, EMNLP 2020; images and "
    "reports: Demner-Fushman et al., JAMIA 2016, or Johnson et al., MIMIC-CXR, Scientific Data 2019"
)
LICENCE = "The images' own: CC BY-NC-ND 4.0, or PhysioNet Credentialed Health Data License"

read_image, read_report = dicom.read_image, sectioned_reports.read_report  # PNG or JPEG files

FILE, IMAGES = "annotation.json", "images"
_SPLITS = {"train": "train", "val": "valid", "test": "test"}
_IU = re.compile(r"(CXR\d+)_.*")
_MIMIC = re.compile(r"p\d\d/p(?P<patient>\d+)/s(?P<study>\d+)/")


class _Entry(NamedTuple):
    entry_id: str
    study_id: str
    patient_id: str
    split: str
    images: list[str]
    report: str


def image_rows(path: epath.PathLike) -> Iterator[ImageRow]:
    """The images of all entries; `path` is the folder that holds annotation.json."""
    root = epath.Path(path)
    for entry in _entries(root):
        for image in entry.images:
            file = f"{root}/{IMAGES}/{image}"
            yield ImageRow(image, entry.study_id, entry.patient_id, file, split=entry.split)


def report_rows(path: epath.PathLike) -> Iterator[ReportRow]:
    """The reports, one a study."""
    file, seen = str(epath.Path(path) / FILE), set()
    for entry in _entries(epath.Path(path)):
        content = sectioned_reports.pack([("body", entry.report)])
        if content and entry.study_id not in seen:
            seen.add(entry.study_id)
            yield ReportRow(entry.study_id, entry.study_id, entry.patient_id, file, content, entry.split)


def _entries(root: epath.Path) -> list[_Entry]:
    advice = "Download it from https://github.com/cuhksz-nlp/R2Gen."
    file = tables.require_file(root, [FILE], advice)
    annotation = json_files.read_json(file)
    for split in annotation:
        require(split in _SPLITS, "split", f"train, val or test in {file}", split, near_names(split, _SPLITS))
    entries: list[_Entry] = []
    split_of: dict[str, str] = {}
    for split, values in annotation.items():
        for number, value in enumerate(values, 1):
            place = f"entry {number} of {split} in {file}"
            entry = _entry(value, _SPLITS[split], place)
            if split_of.setdefault(entry.patient_id, entry.split) != entry.split:
                raise refusal(
                    "split", "the same for all images of a patient", place, "Take the file as published."
                )
            entries.append(entry)
    tables.require_distinct((entry.entry_id for entry in entries), "id", file)
    tables.require_distinct((image for entry in entries for image in entry.images), "image_path", file)
    return entries


def _entry(value: Any, split: str, place: str) -> _Entry:
    try:
        entry_id, report, images = (
            str(value["id"]),
            str(value["report"]),
            [str(i) for i in value["image_path"]],
        )
    except (KeyError, TypeError):
        raise refusal("input", "an object with id, report and image_path in every entry", place) from None
    require(isinstance(value["image_path"], list), "image_path", "a list of images", place)
    iu, mimic = _IU.fullmatch(entry_id), _MIMIC.match(next(iter(images), ""))
    own = iu[1] if iu else entry_id
    study = json_files.cell_of(value.get("study_id")) or (mimic["study"] if mimic else own)
    patient = json_files.cell_of(value.get("subject_id")) or (mimic["patient"] if mimic else own)
    return _Entry(entry_id, study, patient, split, images, report)
