"""Write a phantom archive to disk, and read it as every other archive."""

import csv
import io
from collections.abc import Iterator, Sequence

import numpy as np
from etils import epath
from PIL import Image

from medclip_keras.errors import require
from medclip_keras.knowledge.sections import Section, split_sections
from medclip_keras.knowledge.states import LabelState
from medclip_keras.sources import dicom
from medclip_keras.sources.phantom.cohort import Study, draw_studies
from medclip_keras.sources.phantom.drawing import draw_radiograph
from medclip_keras.sources.phantom.grammar import LABELS, write_report
from medclip_keras.sources.rows import BadRowError, ImageRow, ReportRow
from medclip_keras.sources.tables import CODE_OF_STATE, read_table, require_distinct, states_in

read_image = dicom.read_image  # PNG files

_LABEL_COLUMNS = {name: name for name in LABELS}
_IMAGE_COLUMNS = ("image_id", "study_id", "patient_id", "path", "view", "split")
_REPORT_COLUMNS = ("report_id", "study_id", "patient_id", "path", "split")
_PARTS = ("paired", "image", "text")  # the order is part of the seed


def write_phantom(
    directory: epath.PathLike,
    *,
    seed: int,
    num_paired: int,
    num_image_only: int,
    num_text_only: int,
    image_size: int = 80,
) -> None:
    """Draw and write an archive; equal arguments give equal bytes.

    Writes `images/*.png` and `reports/*.txt`, and the tables `images.csv` and `reports.csv`, which name
    them and hold the truth in CheXpert's codes (1, 0, -1, blank): of a report what its text says, of an image
    what was drawn. Training images that have a report carry no labels, as in MIMIC-CXR: they are for the
    reader of the report to find.

    Args:
        directory: made if need be.
        seed: decides everything.
        num_paired: studies with an image and a report.
        num_image_only: studies with an image alone, of other patients.
        num_text_only: studies with a report alone, of other patients.
        image_size: side of the images in pixels.
    """
    counts = (num_paired, num_image_only, num_text_only)
    for name, count in zip(("num_paired", "num_image_only", "num_text_only"), counts, strict=True):
        require(count >= 0, name, "0 or more", count)
    require(image_size >= 32, "image_size", "at least 32", image_size, "Findings are lost below that.")
    directory = epath.Path(directory)
    (directory / "images").mkdir(parents=True, exist_ok=True)
    (directory / "reports").mkdir(parents=True, exist_ok=True)
    image_table, report_table = [], []
    for part, (name, count) in enumerate(zip(_PARTS, counts, strict=True)):
        studies = draw_studies(np.random.default_rng((seed, part)), count, name[0])
        for index, study in enumerate(studies):
            if name != "text":
                rng = np.random.default_rng((seed, part, index, 0))
                image_table.append(_write_image(directory, study, rng, image_size, name == "paired"))
            if name != "image":
                rng = np.random.default_rng((seed, part, index, 1))
                report_table.append(_write_report(directory, study, rng))
    _write_table(directory / "images.csv", (*_IMAGE_COLUMNS, *LABELS), image_table)
    _write_table(directory / "reports.csv", (*_REPORT_COLUMNS, *LABELS), report_table)


def _write_image(
    directory: epath.Path, study: Study, rng: np.random.Generator, image_size: int, has_report: bool
) -> tuple[str, ...]:
    file = io.BytesIO()
    Image.fromarray(draw_radiograph(study.findings, rng, image_size)).save(file, "PNG")
    path = f"images/{study.study_id}.png"
    (directory / path).write_bytes(file.getvalue())
    labels = [""] * len(LABELS) if has_report and study.split == "train" else _drawn(study)
    return (f"{study.study_id}i", study.study_id, study.patient_id, path, "frontal", study.split, *labels)


def _drawn(study: Study) -> list[str]:
    """The codes of the findings in a study's radiograph."""
    present = {finding.name for finding in study.findings}
    if not present - {"Support Devices"}:
        present.add("No Finding")
    return ["1" if name in present else "0" for name in LABELS]


def _write_report(directory: epath.Path, study: Study, rng: np.random.Generator) -> tuple[str, ...]:
    report = write_report(study, rng)
    path = f"reports/{study.study_id}.txt"
    (directory / path).write_text(report.text, encoding="utf-8")
    codes = (CODE_OF_STATE[report.states[name]] for name in LABELS)
    return (f"{study.study_id}r", study.study_id, study.patient_id, path, study.split, *codes)


def _write_table(path: epath.Path, columns: Sequence[str], rows: Sequence[tuple[str, ...]]) -> None:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    path.write_text(file.getvalue(), encoding="utf-8")


def image_rows(path: epath.PathLike) -> Iterator[ImageRow]:
    """The images of a phantom archive, labelled with the drawn findings where the table has them."""
    directory = epath.Path(path)
    table = directory / "images.csv"
    rows = [
        ImageRow(
            image_id=row["image_id"],
            study_id=row["study_id"],
            patient_id=row["patient_id"],
            path=str(directory / row["path"]),
            view=row["view"],
            split=row["split"],
            labels=states_in(row, _LABEL_COLUMNS),
        )
        for row in read_table(table, (*_IMAGE_COLUMNS, *LABELS))
    ]
    require_distinct((row.image_id for row in rows), "image_id", table)
    yield from rows


def report_rows(path: epath.PathLike) -> Iterator[ReportRow]:
    """The reports of a phantom archive."""
    directory = epath.Path(path)
    table = directory / "reports.csv"
    rows = [
        ReportRow(
            report_id=row["report_id"],
            study_id=row["study_id"],
            patient_id=row["patient_id"],
            path=str(directory / row["path"]),
            split=row["split"],
        )
        for row in read_table(table, _REPORT_COLUMNS)
    ]
    require_distinct((row.report_id for row in rows), "report_id", table)
    yield from rows


def read_report(row: ReportRow) -> tuple[Section, ...]:
    """The report's sections.

    Raises:
        BadRowError: the file cannot be read.
    """
    try:
        text = epath.Path(row.path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadRowError(f"the report cannot be read: {type(error).__name__}") from error
    return split_sections(text)


def report_truth(path: epath.PathLike) -> dict[str, dict[str, LabelState]]:
    """The states that each report expresses, by report and concept name."""
    rows = read_table(epath.Path(path) / "reports.csv", (*_REPORT_COLUMNS, *LABELS))
    return {row["report_id"]: states_in(row, _LABEL_COLUMNS) for row in rows}
