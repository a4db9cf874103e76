"""Text files of archives: plain, compressed, or of another format."""

import contextlib
import gzip
import lzma
import re
import zipfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from etils import epath

from medclip_keras.errors import refusal, require
from medclip_keras.sources.rows import BadRowError

PICTURES = (".jpeg", ".jpg", ".png")
_START = 512  # bytes that tell what a file is
_TABLES = (".csv", ".tsv", ".txt")  # members of a zip archive that may be its table, the first kind first
_AFTER_CR = re.compile(r"(?<=\r)(?!\n)")  # where a line ends as the Macintosh once ended it
# What a file is that holds no text of its own, by its first bytes.
_FOREIGN = {
    "a Git LFS pointer, not the file itself (git lfs pull)": rb"version https://git-lfs",
    "a web page, such as one of an error or a login": (
        rb"\s*<(?:!doctype|!--|\?xml|(?:html|head|body|script|meta)\b)"
    ),
    "an answer of a web server": rb"\s*(?:\{\s*\"|(?:HTTP/\S+ |Error )?[45]\d\d:? [A-Z][\w ]{2,40}\s*$)",
    "a zip archive or a spreadsheet": rb"PK\x03\x04|\xd0\xcf\x11\xe0",
    "a gzip file": rb"\x1f\x8b",
    "a PDF document": rb"%PDF-",
    "a rich text document": rb"\{\\rtf",
    "UTF-16 text": rb"\xff\xfe|\xfe\xff",
    "a binary file": rb"[^\0]{0,%d}\0" % _START,
}
_FOREIGN_FORMS = {what: re.compile(form, re.IGNORECASE) for what, form in _FOREIGN.items()}


def foreign_content(content: bytes) -> str:
    """Format of a file that is not text, by its first bytes; "" for text.

    >>> foreign_content(b"<!DOCTYPE html><title>Sign in</title>")
    'a web page, such as one of an error or a login'
    >>> foreign_content(b"FINDINGS: The heart is normal.")
    ''
    """
    start = content[:_START].removeprefix(b"\xef\xbb\xbf")
    return next((what for what, form in _FOREIGN_FORMS.items() if form.match(start)), "")


def report_text(content: bytes) -> str:
    """The text of a report's file, in UTF-8 with or without a byte-order mark.

    Raises:
        BadRowError: an empty file, or what is no text of a report.
    """
    if what := foreign_content(content):
        raise BadRowError(f"the report file is {what}")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadRowError("the report file is not UTF-8 text") from None
    if not text.strip():
        raise BadRowError("the report file is empty")
    return text


def read_lines(path: epath.Path) -> Iterator[str]:
    """Lines of a text file in UTF-8, with their ends, whichever these are; without a byte-order mark.

    Raises:
        ValueError: no such file, no text, a byte that is not UTF-8, or a damaged or locked archive.
    """
    require(path.is_file(), "input", "a table of comma-separated values", str(path), "There is no such file.")
    with _open(path) as file:
        for number, line in enumerate(file, 1):
            if number == 1 and (what := foreign_content(line)):
                raise refusal("input", "a table of comma-separated values", f"{path}, which is {what}")
            text = _decode(line, number, path).lstrip("\ufeff")
            if b"\r" in line[:-2]:
                yield from _AFTER_CR.split(text)
            else:
                yield text


@contextlib.contextmanager
def _open(path: epath.Path) -> Iterator[BinaryIO]:
    """Open a file, and the table inside a compressed one."""
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(path.open("rb"))
        try:
            if path.name.endswith(".gz"):
                file = stack.enter_context(gzip.open(file))
            elif path.name.endswith(".zip"):
                file = stack.enter_context(_open_member(stack.enter_context(zipfile.ZipFile(file)), path))
            yield file
        except (zipfile.BadZipFile, gzip.BadGzipFile, EOFError, zlib.error, lzma.LZMAError) as error:
            received = f"{path} ({type(error).__name__})"
            raise refusal("input", "a whole compressed table", received, "Download it again.") from None


def _open_member(archive: zipfile.ZipFile, path: epath.Path) -> BinaryIO:
    """Open the only table of a zip archive, ignoring the files that macOS adds."""
    members = [name for name in archive.namelist() if not is_hidden(name)]
    of_kinds = ([name for name in members if name.lower().endswith(kind)] for kind in _TABLES)
    names = next(filter(None, of_kinds), [])
    require(len(names) == 1, "input", f"one table of comma-separated values in {path}", names)
    try:
        return archive.open(names[0])  # type: ignore[return-value]
    except (RuntimeError, NotImplementedError):  # a password; a compression that Python does not have
        requirement = "a zip archive without a password, of a usual compression"
        raise refusal("input", requirement, str(path), "Unpack it, or pack it anew.") from None


def image_files(folder: epath.Path) -> list[epath.Path]:
    """The JPEG and PNG files in and below a folder by name, without hidden ones; none without a folder."""
    return sorted(_image_files(folder)) if folder.is_dir() else []


def _image_files(folder: epath.Path) -> Iterator[epath.Path]:
    for path in folder.iterdir():
        if is_hidden(path.name):
            continue
        if path.suffix.lower() in PICTURES:
            yield path
        elif path.is_dir():
            yield from _image_files(path)


def is_hidden(name: str) -> bool:
    """Whether a path is a file or folder that an operating system adds.

    >>> [is_hidden(name) for name in ("ecgen-radiology/._1.xml", "__MACOSX/1.xml", "./train/1.jpg")]
    [True, True, False]
    """
    parts = name.replace("\\", "/").split("/")
    return any((part.startswith(".") and part.strip(".")) or part == "__MACOSX" for part in parts)


def _decode(line: bytes, number: int, path: epath.Path) -> str:
    if b"\0" in line:
        raise refusal("input", "text without NUL characters", f"line {number} of {path}", "Save it anew.")
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        number += len(re.findall(rb"\r(?!\n)", line[: error.start]))
        received = f"byte {error.object[error.start]:#x} in line {number} of {path}"
        raise refusal("input", "UTF-8", received, "Save the table as UTF-8.") from None
