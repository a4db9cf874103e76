"""Indiana University chest X-ray reports (Open-i): XML files, in a folder or in their published archive.

Layout on disk: `NLMCXR_reports.tgz` as published, any part of it named `*.tgz` or `*.tar.gz`, or a folder
that holds `ecgen-radiology/<number>.xml`. Each file holds four labelled parts of abstract text (COMPARISON,
INDICATION, FINDINGS, IMPRESSION), any of which may be empty, with identifying words masked as XXXX.

The release has 3,955 reports and names no patients: each report counts as a patient of its own. It has
no labels of ours: they come from the text. Images are a separate download and are not read here.
"""

import re
import tarfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator

from etils import epath

from medclip_keras.sources.rows import BadRowError, ReportRow, Section

CITATION = (
    "Demner-Fushman et al., Preparing a collection of radiology examinations for distribution and retrieval, "
    "JAMIA 23(2), 2016"
)
LICENCE = "CC BY-NC-ND 4.0"

_ARCHIVES = (".tgz", ".tar.gz", ".tar")


def report_rows(path: str) -> Iterator[ReportRow]:
    """Yields the reports of an archive (with their bytes, for it is read as a stream) or of a folder.

    Args:
        path: the archive, a folder of `<number>.xml`, or a folder above it.

    Raises:
        ValueError: nothing there, or nothing that looks like these reports.
    """
    root = epath.Path(path)
    if root.name.endswith(_ARCHIVES) and root.is_file():
        rows = _archive_rows(root)
    elif root.is_dir():
        rows = _folder_rows(root)
    else:
        raise ValueError(
            f"`input` must be NLMCXR_reports.tgz or a folder of its XML files. Received: {path!r}. "
            "Download it from https://openi.nlm.nih.gov/faq."
        )
    empty = True
    for row in rows:
        empty = False
        yield row
    if empty:
        raise ValueError(
            f"`input` must hold files such as ecgen-radiology/1.xml. Received: {path!r} with none of them."
        )


def read_report(row: ReportRow) -> tuple[Section, ...]:
    """The labelled parts of a report that hold text, in the file's order, names in lower case.

    Raises:
        BadRowError: the file is empty, truncated, no XML, or has no abstract.
    """
    if row.content is not None:
        content = row.content
    else:
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


def _archive_rows(archive: epath.Path) -> Iterator[ReportRow]:
    try:
        with archive.open("rb") as file, tarfile.open(fileobj=file, mode="r|*") as tar:
            for member in tar:
                if member.isfile() and member.name.endswith(".xml"):
                    yield _row(member.name, str(archive), tar.extractfile(member).read())
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ValueError(
            f"`input` must be a complete tar archive. Received: {str(archive)!r} ({type(error).__name__}). "
            "Download it again."
        ) from None


def _folder_rows(folder: epath.Path) -> Iterator[ReportRow]:
    nested = folder / "ecgen-radiology"
    files = (nested if nested.is_dir() else folder).glob("*.xml")
    for file in sorted(files, key=lambda file: (len(file.name), file.name)):
        yield _row(file.name, str(file), None)


def _row(name: str, path: str, content: bytes | None) -> ReportRow:
    report_id = "CXR" + re.sub(r"^CXR", "", name.rpartition("/")[2].removesuffix(".xml"))
    return ReportRow(report_id, study_id=report_id, patient_id=report_id, path=path, content=content)
