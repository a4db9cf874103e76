"""Files that are whole or absent: written beside their place, forced to the disk, renamed."""

import os

from etils import epath

WRITING = ".writing"  # suffix of a file or folder that is being written


def write_whole(path: epath.PathLike, text: str) -> None:
    """Write a text file; a reader, or a process killed on the way, never leaves or sees a part of it."""
    path = epath.Path(path)
    beside = path.with_name(f".{path.name}{WRITING}")
    beside.write_text(text)
    sync(beside)
    beside.replace(path)


def sync(*paths: epath.Path) -> None:
    """Force local files and folders to the disk, so that they outlive a power failure."""
    for path in paths:
        if "://" not in str(path):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
