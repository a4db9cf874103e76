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
known, and about half of the images are lateral.

Counts of the release (https://openi.nlm.nih.gov/faq): 3,955 reports, 7,470 images. It names no patients:
each report counts as a patient of its own, with its images. It has no labels of ours: a report's come from
its text, an image's from its report, with `decode_images --reports`. torchxrayvision (Openi_Dataset in
https://github.com/mlmed/torchxrayvision/blob/main/torchxrayvision/datasets.py) reads the same XML.

Refused before any work: a folder or archive without such files; a table without its columns, with another
projection, or that names a file twice.
"""

import re
import tarfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence

from etils import epath

from medclip_keras.errors import refusal, require
from medclip_keras.knowledge.sections import Section
from medclip_keras.sources import dicom
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
IMAGE_FOLDERS = ("NLMCXR_png", "images/images_normalized", "images", ".")

_ARCHIVES = (".tgz", ".tar.gz", ".tar")
_IMAGE = re.compile(r"(?:CXR)?(?P<report>\d+)(?:_\d+)?_(?P<image>IM-[\d-]+)(?:\.dcm)?\.png")
_VIEWS = {"Frontal": "frontal", "Lateral": "lateral"}


def report_rows(path: str) -> Iterator[ReportRow]:
    """The reports of an archive, with their bytes, or of a folder.

    Args:
        path: the archive, a folder of `<number>.xml`, or a folder above either.
    """
    root = epath.Path(path)
    if root.name.endswith(_ARCHIVES) and root.is_file():
        rows = _archive_rows(root)
    elif (root / ARCHIVE).is_file() and not (root / "ecgen-radiology").is_dir():
        rows = _archive_rows(root / ARCHIVE)
    elif root.is_dir():
        rows = _folder_rows(root)
    else:
        advice = "Download it from https://openi.nlm.nih.gov/faq."
        raise refusal("input", "NLMCXR_reports.tgz or a folder of its XML files", str(path), advice)
    first = next(rows, None)
    if first is None:
        raise refusal("input", "an archive or folder with files such as ecgen-radiology/1.xml", str(path))
    yield first
    yield from rows


def read_report(row: ReportRow) -> tuple[Section, ...]:
    """The labelled parts of a report that hold text, in the file's order, names in lower case.

    Raises:
        BadRowError: the file is empty, truncated, no XML, or has no abstract.
    """
    content = row.content
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
    """The images in a folder, or those that its table of projections names.

    Args:
        path: the folder of `CXR<number>_….png`, or the one above it.
    """
    root = epath.Path(path)
    folders = [root / name for name in IMAGE_FOLDERS if (root / name).is_dir()]
    found = (sorted(file for file in folder.iterdir() if _IMAGE.fullmatch(file.name)) for folder in folders)
    files = next(filter(None, found), [])
    if (root / TABLE).is_file():
        yield from _table_rows(root, files)
        return
    requirement = "a folder with images such as NLMCXR_png/CXR1_1_IM-0001-3001.png"
    advice = "Download NLMCXR_png.tgz from https://openi.nlm.nih.gov/faq and unpack it."
    require(bool(files), "input", requirement, str(path), advice)
    for file in files:
        yield _image_row(_key(file.name), file)


def _table_rows(root: epath.Path, files: Sequence[epath.Path]) -> list[ImageRow]:
    file_of = {_key(file.name): file for file in files}
    folder = files[0].parent if files else root / IMAGE_FOLDERS[0]
    rows = []
    for row in read_table(root / TABLE, ("uid", "filename", "projection")):
        match = row.match("filename", _IMAGE, "a name such as 1_IM-0001-3001.dcm.png")
        view = row.choose("projection", _VIEWS, "Frontal or Lateral")
        key = match["report"], match["image"]
        rows.append(_image_row(key, file_of.get(key, folder / row["filename"]), view))
    require_distinct((row.image_id for row in rows), "filename", root / TABLE)
    return rows


def _key(name: str) -> tuple[str, str]:
    """Report and image of a file, under either of its names."""
    match = _IMAGE.fullmatch(name)
    if match is None:
        raise refusal("filename", "a name such as CXR1_1_IM-0001-3001.png", name)
    return match["report"], match["image"]


def study_of_image(name: str) -> str:
    """The report that an image file belongs to.

    >>> study_of_image("CXR1_1_IM-0001-3001.png"), study_of_image("2_IM-0652-1001.dcm.png")
    ('CXR1', 'CXR2')
    """
    return f"CXR{_key(name)[0]}"


def _image_row(key: tuple[str, str], file: epath.Path, view: str = "") -> ImageRow:
    report, image = key
    study_id = f"CXR{report}"
    return ImageRow(f"{study_id}_{image}", study_id, patient_id=study_id, path=str(file), view=view)


def _archive_rows(archive: epath.Path) -> Iterator[ReportRow]:
    try:
        with archive.open("rb") as file, tarfile.open(fileobj=file, mode="r|*") as tar:
            for member in tar:
                report = tar.extractfile(member) if member.name.endswith(".xml") else None
                if report is not None:
                    yield _row(member.name, str(archive), report.read())
    except (tarfile.TarError, EOFError, OSError) as error:
        received = f"{archive} ({type(error).__name__})"
        raise refusal("input", "a complete tar archive", received, "Download it again.") from None


def _folder_rows(folder: epath.Path) -> Iterator[ReportRow]:
    nested = folder / "ecgen-radiology"
    files = (nested if nested.is_dir() else folder).glob("*.xml")
    for file in sorted(files, key=lambda file: (len(file.name), file.name)):
        yield _row(file.name, str(file), None)


def _row(name: str, path: str, content: bytes | None) -> ReportRow:
    report_id = "CXR" + re.sub(r"^CXR", "", name.rpartition("/")[2].removesuffix(".xml"))
    return ReportRow(report_id, study_id=report_id, patient_id=report_id, path=path, content=content)
