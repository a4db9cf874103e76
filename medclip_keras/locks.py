"""A lock on an output: two processes that write the same files would spoil both."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from typing import TextIO

from etils import epath

from medclip_keras.errors import refusal, require, system_message


@contextlib.contextmanager
def sole_writer(output: epath.PathLike, argument: str = "output", suffix: str = ".lock") -> Iterator[None]:
    """Lock an output by the file `OUTPUT.lock` during the block; the end of the process releases it too.

    A mounted folder whose parent is read-only is locked by `OUTPUT/.lock`. Buckets and file systems without
    locks have none.

    Raises:
        ValueError: another process holds the lock, or the output is in a read-only place.
    """
    if "://" in str(output):
        yield
        return
    with contextlib.ExitStack() as stack:
        try:
            path = _lock_path(epath.Path(output), suffix)
            file = stack.enter_context(open(path, "w"))
        except OSError as error:
            raise _not_writable(argument, output, system_message(error)) from None
        advice = "Wait until it ends, or name another output."
        requirement = "one that no other process is writing"
        require(_lock(file) and _is_file_at(file, path), argument, requirement, str(output), advice)
        stack.callback(path.unlink, missing_ok=True)
        if epath.Path(output).exists() and not _can_be_written(output):
            raise _not_writable(argument, output, "It is read-only")
        yield


def _lock_path(output: epath.Path, suffix: str) -> epath.Path:
    """Path of the lock: beside the output, or inside it if only the output can be written."""
    beside = output.parent / f"{output.name}{suffix}"
    if output.is_dir() and _can_be_written(output) and not _can_be_written(output.parent):
        return output / suffix
    beside.parent.mkdir(parents=True, exist_ok=True)
    return beside


def _can_be_written(path: epath.PathLike) -> bool:
    return os.access(path, os.W_OK | (os.X_OK if os.path.isdir(path) else 0))


def _not_writable(argument: str, output: epath.PathLike, reason: str) -> ValueError:
    advice = f"{reason}. Free disk space, make the folder writable, or name another one."
    return refusal(argument, "a path that this process can write", str(output), advice)


def _is_file_at(file: TextIO, path: epath.Path) -> bool:
    """Whether the path still names the open file; its last holder may have removed it."""
    return path.exists() and os.path.samestat(os.fstat(file.fileno()), os.stat(path))


def _lock(file: TextIO) -> bool:
    """Lock a file; False if another process has locked it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True
