"""Atomic writes: a file is written under a temporary name, forced to the disk, then renamed."""

import contextlib
import os

from etils import epath

WRITING = ".writing"  # suffix of a file or folder that is being written


def write_whole(path: epath.PathLike, text: str) -> None:
    """Write a text file in UTF-8; readers see the earlier text until the new one is complete.

    A process that is killed, or a full disk, leaves the earlier text.
    """
    path = epath.Path(path)
    beside = path.with_name(f".{path.name}{WRITING}")
    try:
        beside.write_bytes(text.encode())
        sync(beside)
        beside.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise


def sync(*paths: epath.Path) -> None:
    """Force local files and folders to the disk, so that they outlive a power failure."""
    for path in paths:
        if "://" not in str(path):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
