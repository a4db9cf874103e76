"""Fingerprint of a job's input: names, sizes and times of change of its files."""

import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Iterator

from apache_beam.io.filesystems import FileSystems
from etils import epath

from medclip_keras.files import is_local


def input_sha256(input_path: str, row_paths: Iterable[str]) -> str:
    """SHA-256 of the names, sizes and times of change of the input's files; their content is not read.

    A folder is listed with its subfolders; `row_paths` are the files that the rows of a local table name, or
    of the tables in a local folder: of these the ones outside of it.
    """
    if epath.Path(input_path).is_dir():
        root = f"{os.path.abspath(input_path)}/"
        outside = sorted(
            {path for path in row_paths if not (is_local(path) and os.path.abspath(path).startswith(root))}
        )
        return sha256_of_files(itertools.chain(list_folder(input_path), map(describe, outside)))
    paths = [input_path] if not is_local(input_path) else sorted({input_path, *row_paths})
    return sha256_of_files(describe(path) for path in paths)


def sha256_of_files(files: Iterable[tuple[str, int, float]]) -> str:
    """SHA-256 of the descriptions of files, one at a time: 400,000 of them at once take 150 MB."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(json.dumps(file).encode() + b"\n")
    return digest.hexdigest()


def list_folder(folder: str) -> Iterator[tuple[str, int, float]]:
    """Relative name, size and time of change of each file of a folder and of all below it, in order."""
    root = folder.rstrip("/") + "/"
    if is_local(folder):  # FileSystems.match would take "[" in a local name for a pattern
        for parent, folders, names in os.walk(root, followlinks=True):
            folders.sort()  # the walk goes on in this order
            for name in sorted(names):
                path = os.path.join(parent, name)
                yield path.removeprefix(root), *describe(path)[1:]
        return
    (match,) = FileSystems.match([f"{root}**"])
    for found in sorted(match.metadata_list, key=lambda found: found.path):
        yield found.path.removeprefix(root), found.size_in_bytes, found.last_updated_in_seconds


def describe(path: str) -> tuple[str, int, float]:
    """Path, size and time of change of a file; size -1 of a missing one."""
    if not is_local(path):
        matched = [found for match in FileSystems.match([path]) for found in match.metadata_list]
        found = next((one for one in matched if one.path == path), None)  # a name may read as a pattern
        return (path, found.size_in_bytes, found.last_updated_in_seconds) if found else (path, -1, 0)
    try:
        status = os.stat(path)
    except OSError:  # a missing file is a bad row; its arrival is a change
        return path, -1, 0
    return path, status.st_size, status.st_mtime_ns
