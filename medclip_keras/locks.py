"""A lock on an output: two processes that write the same files would spoil both."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from typing import TextIO

from etils import epath

from medclip_keras.errors import require


@contextlib.contextmanager
def sole_writer(output: epath.PathLike, argument: str = "output", suffix: str = ".lock") -> Iterator[None]:
    """Hold the file `OUTPUT.lock` while the block writes the output; the end of the process releases it too.

    Buckets and file systems without locks have none.

    Raises:
        ValueError: another process holds it.
    """
    path = epath.Path(f"{str(output).rstrip('/')}{suffix}")
    if "://" in str(path):
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(open(path, "w"))
        advice = "Wait until it ends, or name another output."
        requirement = "one that no other process is writing"
        require(_lock(file) and _is_file_at(file, path), argument, requirement, str(output), advice)
        stack.callback(path.unlink, missing_ok=True)
        yield


def _is_file_at(file: TextIO, path: epath.Path) -> bool:
    """Whether the path still names an open file: the last holder may have removed it in between."""
    return path.exists() and os.path.samestat(os.fstat(file.fileno()), os.stat(path))


def _lock(file: TextIO) -> bool:
    """Lock a file; False if another process has locked it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # no locks here
        return True
    return True
