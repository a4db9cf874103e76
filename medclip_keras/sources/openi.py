"""Indiana University chest X-ray reports (Open-i): XML files, in a folder or in their published archive.

Layout on disk: `NLMCXR_reports.tgz` as published, any part of it named `*.tgz` or `*.tar.gz`, or a folder
that holds `ecgen-radiology/<number>.xml`. Each file holds four labelled parts of abstract text (COMPARISON,
INDICATION, FINDINGS, IMPRESSION), any of which may be empty, with identifying words masked as XXXX.

Images are a download of their own, NLMCXR_png.tgz, to be unpacked beside the reports; the input of both
jobs may be the folder that holds
    ecgen-radiology/1.xml, …                    or NLMCXR_reports.tgz
    NLMCXR_png/CXR1_1_IM-0001-3001.png, …       CXR1 is the report, and so the study
    indiana_projections.csv                     uid, filename, projection; where it is there
The images are those in the folder, or, where that table is there, those that it names, with their view
(Frontal or Lateral). The table is Kaggle's
(https://www.kaggle.com/datasets/raddar/chest-xrays-indiana-university), and so are the file names
`1_IM-0001-3001.dcm.png` in `images/images_normalized/`, which are read as well. Without it no view is
known, and about half of the images are lateral. Kaggle's reports are a table too, which is read where there
are no XML files:
    indiana_reports.csv                         uid, …, indication, comparison, findings, impression

Counts of the release (https://openi.nlm.nih.gov/faq): 3,955 reports, 7,470 images; at Kaggle 3,851 reports,
7,466 images in the table. It names no patients:
each report counts as a patient of its own, with its images. It has no labels of ours: a report's come from
its text, an image's from its report, with `decode_images --reports`. torchxrayvision (Openi_Dataset in
https://github.com/mlmed/torchxrayvision/blob/main/torchxrayvision/datasets.py) reads the same XML.

Refused before any work: a folder or archive without such files; a table without its columns, with another
projection, or that names a file or a report twice.
"""

import itertools
import re
import tarfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence

from etils import epath

from medclip_keras.errors import refusal, require
from medclip_keras.knowledge.sections import Section
from medclip_keras.sources import dicom, sectioned_reports
from medclip_keras.sources.files import is_hidden
from medclip_keras.sources.rows import BadRowError, ImageRow, ReportRow
from medclip_keras.sources.tables import read_table, require_distinct

CITATION = (
    "Demner-Fushman et al., Preparing a collection of radiology examinations for distribution and retrieval, "
    "JAMIA 23(2), 2016"
)
LICENCE = "CC BY-NC-ND 4.0"

read_image = dicom.read_image  # PNG files

ARCHIVE = "NLMCXR_reports.tgz"
TABLE = "indiana_projections.csv"
REPORT_TABLE = "indiana_reports.csv"
PARTS = ("comparison", "indication", "findings", "impression")
IMAGE_FOLDERS = ("NLMCXR_png", "images/images_normalized", "images", ".")

_ARCHIVES = (".tgz", ".tar.gz", ".tar")
_IMAGE = re.compile(r"(?:CXR)?(?P<report>\d+)(?:_\d+)?_(?P<image>IM-[\d-]+)(?:\.dcm)?\.png")
_VIEWS = {"Frontal": "frontal", "Lateral": "lateral"}
_Key = tuple[str, str]  # report and image of a file, under either of its names


def report_rows(path: str) -> Iterator[ReportRow]:
    """The reports of an archive, with their bytes, of a folder of `<number>.xml`, or below the folder."""
    root = epath.Path(path)
    if root.name.endswith(_ARCHIVES) and root.is_file():
        rows = _archive_rows(root)
    elif (root / ARCHIVE).is_file() and not (root / "ecgen-radiology").is_dir():
        rows = _archive_rows(root / ARCHIVE)
    elif root.is_dir():
        files = _report_files(root)
        rows = (_row(file.name, str(file), None) for file in files) if files else _report_table_rows(root)
    else:
        advice = "Download it from https://openi.nlm.nih.gov/faq."
        raise refusal("input", "NLMCXR_reports.tgz or a folder of its XML files", str(path), advice)
    first = next(rows, None)
    if first is None:
        raise refusal("input", "an archive or folder with files such as ecgen-radiology/1.xml", str(path))
    yield first
    yield from rows


def read_report(row: ReportRow) -> tuple[Section, ...]:
    """The labelled parts of a report that hold text; BadRowError for a damaged file or one without parts."""
    content = row.content
    if row.path.endswith(REPORT_TABLE):
        return sectioned_reports.read_report(row)
    if content is None:
        try:
            content = epath.Path(row.path).read_bytes()
        except OSError as error:
            raise BadRowError(f"the report file cannot be read ({type(error).__name__})") from None
    if not content.strip():
        raise BadRowError("the report file is empty")
    try:
        root = ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        line, column = error.position
        raise BadRowError(f"the report is not well-formed XML (line {line}, column {column})") from None
    parts = list(root.iter("AbstractText"))
    if not parts:
        raise BadRowError("the report has no AbstractText element")
    sections = (
        Section(part.get("Label", "body").lower(), "".join(part.itertext()).strip()) for part in parts
    )
    return tuple(section for section in sections if section.text)


def image_rows(path: str) -> Iterator[ImageRow]:
    """The images in or below a folder, or those that its table of projections names."""
    root = epath.Path(path)
    folders = [root / name for name in IMAGE_FOLDERS if (root / name).is_dir()]
    files = next(filter(None, map(_images_in, folders)), [])
    if (root / TABLE).is_file():
        yield from _table_rows(root, files)
        return
    requirement = "a folder with images such as NLMCXR_png/CXR1_1_IM-0001-3001.png"
    advice = "Download NLMCXR_png.tgz from https://openi.nlm.nih.gov/faq and unpack it."
    require(bool(files), "input", requirement, str(path), advice)
    yield from itertools.starmap(_image_row, files)


def _images_in(folder: epath.Path) -> list[tuple[_Key, epath.Path]]:
    matches = [(_IMAGE.fullmatch(file.name), file) for file in sorted(folder.iterdir())]
    return [((match["report"], match["image"]), file) for match, file in matches if match]


def _table_rows(root: epath.Path, files: Sequence[tuple[_Key, epath.Path]]) -> list[ImageRow]:
    file_of = dict(files)
    folder = files[0][1].parent if files else root / IMAGE_FOLDERS[0]
    rows = []
    for row in read_table(root / TABLE, ("uid", "filename", "projection")):
        match = row.match("filename", _IMAGE, "a name such as 1_IM-0001-3001.dcm.png")
        view = row.choose("projection", _VIEWS, "Frontal or Lateral")
        key = match["report"], match["image"]
        rows.append(_image_row(key, file_of.get(key, folder / row["filename"]), view))
    require_distinct((row.image_id for row in rows), "filename", root / TABLE)
    return rows


def _image_row(key: _Key, file: epath.Path, view: str = "") -> ImageRow:
    report, image = key
    study_id = f"CXR{report}"
    return ImageRow(f"{study_id}_{image}", study_id, patient_id=study_id, path=str(file), view=view)


def _archive_rows(archive: epath.Path) -> Iterator[ReportRow]:
    try:
        with archive.open("rb") as file, tarfile.open(fileobj=file, mode="r|*") as tar:
            for member in tar:
                is_report = member.name.endswith(".xml") and not is_hidden(member.name)
                report = tar.extractfile(member) if is_report else None
                if report is not None:
                    yield _row(member.name, str(archive), report.read())
    except (tarfile.TarError, EOFError, OSError) as error:
        received = f"{archive} ({type(error).__name__})"
        raise refusal("input", "a complete tar archive", received, "Download it again.") from None


def _report_files(folder: epath.Path) -> list[epath.Path]:
    nested = folder / "ecgen-radiology"
    found = (nested if nested.is_dir() else folder).glob("*.xml")
    files = [file for file in found if not is_hidden(file.name)]
    return sorted(files, key=lambda file: (len(file.name), file.name))


def _report_table_rows(folder: epath.Path) -> Iterator[ReportRow]:
    """The reports of Kaggle's table, if it is there."""
    table = folder / REPORT_TABLE
    rows = list(read_table(table, ("uid", *PARTS))) if table.is_file() else []
    require_distinct((row["uid"] for row in rows), "uid", table)
    for row in rows:
        content = sectioned_reports.pack((part, row[part]) for part in PARTS) or sectioned_reports.NO_PARTS
        yield _row(row["uid"], str(table), content)


def _row(name: str, path: str, content: bytes | None) -> ReportRow:
    report_id = "CXR" + re.sub(r"^CXR", "", name.rpartition("/")[2].removesuffix(".xml"))
    return ReportRow(report_id, study_id=report_id, patient_id=report_id, path=path, content=content)
