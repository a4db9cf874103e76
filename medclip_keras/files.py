"""Files of this machine and of buckets alike: sizes, absolute paths, and writes that are never halves."""

import contextlib
import os

from etils import epath

WRITING = ".writing"  # suffix of a file or folder that is being written


def size_of(path: epath.PathLike) -> int:
    """Bytes of a file; 0 of a missing one."""
    path = epath.Path(path)
    if not is_local(path):
        return path.stat().length if path.exists() else 0
    # epath's own stat needs a name for the owner of a local file, which containers often lack.
    return os.stat(path).st_size if path.exists() else 0


def absolute(path: epath.PathLike) -> epath.Path:
    """A path from the root, without links; an address such as gs://… as it is.

    >>> str(absolute("gs://bucket/records"))
    'gs://bucket/records'
    """
    path = epath.Path(path)
    return path.resolve() if is_local(path) else path


def is_local(path: epath.PathLike) -> bool:
    """Whether a path is no address."""
    return "://" not in str(path)


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
        if is_local(path):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
