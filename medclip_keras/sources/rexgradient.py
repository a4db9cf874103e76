"""ReXGradient-160K: chest X-rays of 79 sites in the USA with their reports.

Layout on disk, as published (https://huggingface.co/datasets/rajpurkarlab/ReXGradient-160K)
    metadata/train_metadata_view_position.json    study → PatientID, StudyInstanceUid, ImagePath, …
    metadata/valid_metadata_view_position.json    metadata/test_metadata_view_position.json
    deid_png/<PatientID>/<AccessionNumber>/studies/…/<SopInstanceUid>.png
The images come as parts of one archive: `cat deid_png.part* | tar --zstd -xf -` in the folder that holds
`metadata`. The loader
https://github.com/f10409/RadHarmony/blob/main/radharmony/harmonizer/rexgradient/rexgradient.py reads the same
files and fields. Splits whose file is not there are left out, but one must be.

Counts of the release: train 238,968 images of 140,000 studies of 95,716 patients; valid 17,007, 10,000,
6,964; test 17,029, 10,000, 6,807. Images are a quarter of their first size a side. The split is the
release's, by patient.

No labels are published: an image's come from its report, with `decode_images --reports`. Reports are in four
parts: Indication, Comparison, Findings, Impression.

Paths are relative to `metadata`. Views by ImageViewPosition: PA, AP and POSTERO_ANTERIOR are frontal, LATERAL
and LL lateral, others (LAO, UNKNOWN, blank) unknown.

Refused before any work: no such file; no JSON; a study without one of the fields; an image that is there
twice; a patient in two splits."""

import posixpath
from collections.abc import Iterator
from typing import Any

from etils import epath

from medclip_keras.errors import refusal
from medclip_keras.sources import dicom, json_files, sectioned_reports, tables
from medclip_keras.sources.rows import ImageRow, ReportRow

CITATION = (
    "Zhang et al., ReXGradient-160K: a large-scale publicly available dataset of chest radiographs with "
    "free-text reports, arXiv:2505.00228, 2025"
)
LICENCE = "ReXGradient-160K Non-Commercial Data Access and Use Agreement"

read_image, read_report = dicom.read_image, sectioned_reports.read_report  # PNG files

FILES = "metadata/{}_metadata_view_position.json"
SPLITS = ("train", "valid", "test")
PARTS = ("Indication", "Comparison", "Findings", "Impression")


def image_rows(path: epath.PathLike) -> Iterator[ImageRow]:
    """The images of all splits; `path` is the folder that holds `metadata` and `deid_png`."""
    root, rows = epath.Path(path), []
    for split, _, study in _studies(root):
        ids = study["StudyInstanceUid"], study["PatientID"]
        views = [*(study.get("ImageViewPosition") or ()), *len(study["ImagePath"]) * [""]]
        for image, view in zip(study["ImagePath"], views, strict=False):
            name = posixpath.normpath(f"metadata/{image}")
            position = json_files.cell_of(view).replace("_", "-")
            rows.append(ImageRow(name, *ids, f"{root}/{name}", dicom.view_of_position(position), split=split))
    tables.require_distinct((row.image_id for row in rows), "ImagePath", f"the files of {root}/metadata")
    yield from rows


def report_rows(path: epath.PathLike) -> Iterator[ReportRow]:
    """The reports, one a study."""
    root = epath.Path(path)
    for split, key, study in _studies(root):
        parts = ((part.lower(), json_files.cell_of(study[part])) for part in PARTS)
        content = sectioned_reports.pack(parts) or sectioned_reports.NO_PARTS
        ids, file = (study["StudyInstanceUid"], study["PatientID"]), f"{root}/{FILES.format(split)}"
        yield ReportRow(key, *ids, file, content, split)


def _studies(root: epath.Path) -> list[tuple[str, str, dict[str, Any]]]:
    """Split, name and fields of every study."""
    found = {split: root / FILES.format(split) for split in SPLITS if (root / FILES.format(split)).is_file()}
    if not found:
        advice = "Download it from https://huggingface.co/datasets/rajpurkarlab/ReXGradient-160K."
        raise refusal("input", f"a folder with {FILES.format('train')}", str(root), advice)
    studies: list[tuple[str, str, dict[str, Any]]] = []
    split_of: dict[str, str] = {}
    for split, file in found.items():
        for number, (key, study) in enumerate(json_files.read_json(file).items(), 1):
            place = f"study {number} of {file}"
            for name in ("PatientID", "StudyInstanceUid", "ImagePath", *PARTS):
                if not isinstance(study, dict) or name not in study:
                    raise refusal(name, "a field of every study", place, "Download the file again.")
            study |= {name: json_files.cell_of(study[name]) for name in ("PatientID", "StudyInstanceUid")}
            if split_of.setdefault(study["PatientID"], split) != split:
                raise refusal(
                    "split", "the same for all images of a patient", place, "Download the files again."
                )
            studies.append((split, key, study))
    return studies
