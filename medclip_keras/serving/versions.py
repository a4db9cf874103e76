"""The versions of MODELS_DIR: how one appears, is taken out of service, and is removed, whole each time.

    N/, tokens_only/N/                            a version and its twin without text operations
    rolled_back/N/, rolled_back/tokens_only/N/    the same, out of service
    .exporting-…/, .removing-…/                   being written, being deleted

TensorFlow Serving takes every entry of its base path whose name reads as an integer for a version, files and
"00012" too, and serves the largest by default
(tensorflow_serving/sources/storage_path/file_system_storage_path_source.cc). On a local file system a version
is therefore written under another name and renamed. The twin appears first and vanishes last, so that a
reader who sees N finds both.

A bucket has no rename of folders. There a version is uploaded under another name, read again, and its objects
are renamed one by one, `saved_model.pb` last. A server that looks in between keeps its version: without that
file nothing loads, and it tries again (`max_num_load_retries`, every minute). A version vanishes with that
file first. Two exports into a bucket at once are not supported.
"""

import contextlib
import datetime
import fcntl
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator

from etils import epath

from medclip_keras.errors import refusal, require
from medclip_keras.serving.layout import EXTRA, MANIFEST_FILE, ROLLED_BACK, SAVED_MODEL, TOKENS_ONLY
from medclip_keras.serving.manifest import check_manifest, files_of

MODEL = "model"  # name of the version in the staging folder, beside TOKENS_ONLY
_EXPORTING, _REMOVING = ".exporting-", ".removing-"
_LARGEST = 2**63 - 1  # TensorFlow Serving's version numbers are of 64 bits
_STALE = datetime.timedelta(days=1)  # of an upload to a bucket


def numbered(folder: epath.PathLike) -> dict[int, epath.Path]:
    """Number → entry that a server takes for this version, in ascending order; {} for no folder."""
    folder = epath.Path(folder)
    found = {}
    for entry in sorted(folder.iterdir(), key=lambda path: path.name) if folder.exists() else ():
        if re.fullmatch(r"\s*[+-]?[0-9]+\s*", entry.name) and abs(int(entry.name)) <= _LARGEST:
            found[int(entry.name)] = entry
    return dict(sorted(found.items()))


def served(folder: epath.PathLike) -> epath.Path | None:
    """The largest version that a server can load, or None."""
    return next((path for path in reversed(numbered(folder).values()) if _is_version(path)), None)


def next_number(folder: epath.PathLike) -> int:
    """The number of the next version: larger than all of MODELS_DIR, of the twins, and out of service."""
    folder = epath.Path(folder)
    places = (folder, folder / TOKENS_ONLY, folder / ROLLED_BACK, folder / ROLLED_BACK / TOKENS_ONLY)
    largest = max((number for place in places for number in numbered(place)), default=0)
    advice = f"Move the entry {largest} out of it."
    require(largest < _LARGEST, "output", "a folder with a free version number", str(folder), advice)
    return max(largest, 0) + 1


@contextlib.contextmanager
def staging(folder: epath.PathLike) -> Iterator[epath.Path]:
    """A new local folder to write a version and its twin in, as MODEL and TOKENS_ONLY; deleted at the end.

    It is on the file system of MODELS_DIR, unless that is in a bucket. What killed pushes left is deleted.

    Raises:
        ValueError: a folder that cannot be written.
    """
    if _in_bucket(folder):
        _remove_stale_uploads(epath.Path(folder))
        with tempfile.TemporaryDirectory() as staged:
            yield epath.Path(staged)
        return
    with contextlib.ExitStack() as stack:
        try:
            os.makedirs(folder, exist_ok=True)
            with _lock(folder):
                _remove_leftovers(epath.Path(folder))
                staged = tempfile.mkdtemp(prefix=_EXPORTING, dir=folder)
                stack.callback(shutil.rmtree, staged, ignore_errors=True)
                stack.enter_context(_lock(staged))  # held by the living
        except OSError as error:
            advice = f"{error.strerror}."
            raise refusal("output", "a folder that can be written", str(folder), advice) from None
        yield epath.Path(staged)


def push(staged: epath.Path, folder: epath.PathLike) -> epath.Path:
    """Make a staged version and its twin appear under the next number; return the version's path.

    Raises:
        ValueError: a staged file differs from the manifest.
    """
    folder = epath.Path(folder)
    if _in_bucket(folder):
        upload = folder / f"{_EXPORTING}{_now():%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"
        try:
            _copy(staged, upload)
            return _appear(upload, folder)
        finally:
            upload.rmtree(missing_ok=True)
    _synchronise(staged)
    with _lock(folder):
        return _appear(staged, folder)


def _appear(staged: epath.Path, folder: epath.Path) -> epath.Path:
    for name in (MODEL, TOKENS_ONLY):
        check_manifest(staged / name)
    twins = folder / TOKENS_ONLY
    twins.mkdir(parents=True, exist_ok=True)
    while True:
        version = folder / str(next_number(folder))
        twin = twins / version.name
        try:
            _move(staged / TOKENS_ONLY, twin, appears=True)
        except OSError:
            if not twin.exists():  # otherwise a concurrent export took this number: take the next one
                raise
            continue
        try:
            _move(staged / MODEL, version, appears=True)
        except OSError:
            _move(twin, staged / TOKENS_ONLY, appears=False)
            if not version.exists():
                raise
            continue
        _synchronise_entries(folder, twins)
        return version


def roll_back(folder: epath.PathLike) -> tuple[epath.Path, epath.Path]:
    """Take the served version and its twin out of service, so that the version before it is served.

    Returns:
        The new place of the version, and the version that is served now.

    Raises:
        ValueError: no version before it, an entry that a server would try instead, a damaged version.
    """
    folder = epath.Path(folder)
    form = "a folder of at least two versions"
    require(folder.is_dir(), "output", form, str(folder), "Check the path.")
    with _lock(folder):
        if not _in_bucket(folder):
            _remove_leftovers(folder)
        found = list(numbered(folder).values())
        for entry in found[-2:]:
            advice = "A server would try it: move it out of the folder first."
            require(_is_version(entry), "output", "a folder whose numbers are versions", str(entry), advice)
        names = ", ".join(path.name for path in found) or "none"
        require(len(found) > 1, "output", form, str(folder), f"Nothing to roll back to. Versions: {names}.")
        older, newest = found[-2:]
        for version in (older, folder / TOKENS_ONLY / older.name):
            if _has_manifest(version):  # those of earlier releases have none
                check_manifest(version)
        aside = folder / ROLLED_BACK / newest.name
        advice = "Move that folder away first."
        require(not aside.exists(), "output", f"without {ROLLED_BACK}/{newest.name}", str(folder), advice)
        _retire(folder, newest.name)
    return aside, older


def _retire(folder: epath.Path, name: str) -> None:
    """Move a version and its twin into ROLLED_BACK, the twin last."""
    for place in ("", TOKENS_ONLY):
        source, aside = folder / place / name, folder / ROLLED_BACK / place
        if source.exists():
            aside.mkdir(parents=True, exist_ok=True)
            _move(source, aside / name, appears=False)
            _synchronise_entries(source.parent, aside)


def remove_older(folder: epath.PathLike, keep: int, spared: epath.Path | None) -> list[int]:
    """Remove all versions but the largest `keep` and `spared`, with their twins; return their numbers.

    Links, names such as "00012", folders without a SavedModel and versions out of service stay.
    """
    folder = epath.Path(folder)
    with _lock(folder):
        own = [n for n, path in numbered(folder).items() if _is_own(n, path)]
        removed = [n for n in own[:-keep] if not spared or spared.name != str(n)]
        for number in removed:
            for place in (folder, folder / TOKENS_ONLY):
                _remove(place / str(number), folder)
    return removed


def _is_version(path: epath.Path) -> bool:
    return (path / SAVED_MODEL).exists()


def _has_manifest(path: epath.Path) -> bool:
    return (path / EXTRA / MANIFEST_FILE).exists()


def _is_own(number: int, path: epath.Path) -> bool:
    return path.name == str(number) and not os.path.islink(path) and _is_version(path)


def _remove_leftovers(folder: epath.Path) -> None:
    """Delete leftovers of killed commands: staging folders, half removals, unmatched twins.

    A twin whose version is out of service follows it. The folder is locked.
    """
    for staged in folder.glob(f"{_EXPORTING}*"):
        with contextlib.suppress(BlockingIOError), _lock(staged, wait=False) as is_ours:
            if is_ours:
                shutil.rmtree(staged, ignore_errors=True)
    for removed in folder.glob(f"{_REMOVING}*"):
        shutil.rmtree(removed, ignore_errors=True)
    for number, twin in numbered(folder / TOKENS_ONLY).items():
        if number in numbered(folder) or not _has_manifest(twin):
            continue
        if (folder / ROLLED_BACK / twin.name).exists():
            _retire(folder, twin.name)
        else:
            _remove(twin, folder)


def _remove_stale_uploads(folder: epath.Path) -> None:
    for upload in folder.iterdir() if folder.exists() else ():
        stamp = re.fullmatch(rf"{re.escape(_EXPORTING)}([0-9]{{8}}T[0-9]{{6}})-.*", upload.name)
        if stamp and datetime.datetime.fromisoformat(f"{stamp[1]}+00:00") < _now() - _STALE:
            upload.rmtree(missing_ok=True)


def _remove(path: epath.Path, folder: epath.Path) -> None:
    """Delete a version: first its name, or in a bucket the file without which nothing loads."""
    if not path.exists():
        return
    if _in_bucket(folder):
        (path / SAVED_MODEL).unlink(missing_ok=True)
        path.rmtree()
        return
    removing = tempfile.mkdtemp(prefix=_REMOVING, dir=folder)
    os.rename(path, f"{removing}/{path.name}")
    shutil.rmtree(removing, ignore_errors=True)


def _move(source: epath.Path, destination: epath.Path, *, appears: bool) -> None:
    """Rename a folder; in a bucket its files, with SAVED_MODEL as the last to appear, else the first to go.

    Raises:
        OSError: the destination exists.
    """
    if not _in_bucket(destination):
        os.rename(source, destination)
        return
    if destination.exists():
        raise FileExistsError(str(destination))
    for name in sorted(files_of(source), key=lambda name: (name == SAVED_MODEL) == appears):
        (destination / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).rename(destination / name)
    source.rmtree(missing_ok=True)


def _copy(source: epath.Path, destination: epath.Path) -> None:
    for name in files_of(source):
        (destination / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).copy(destination / name)


def _synchronise(folder: epath.Path) -> None:
    """Bring all files and folders to the disk, before their name appears."""
    for root, _, names in os.walk(folder):
        for path in (*(f"{root}/{name}" for name in names), root):
            _fsync(path)


def _synchronise_entries(*folders: epath.Path) -> None:
    """Bring renamed entries of local folders to the disk."""
    for folder in folders:
        if not _in_bucket(folder):
            _fsync(str(folder))


def _fsync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _lock(folder: epath.PathLike, wait: bool = True) -> Iterator[bool]:
    """Hold a lock on a folder until the block or the process ends; False if the file system has no locks.

    Raises:
        BlockingIOError: another process holds it, and `wait` is False.
    """
    if _in_bucket(folder):
        yield False
        return
    descriptor, is_held = os.open(folder, os.O_RDONLY), True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise
    except OSError:
        is_held = False
    try:
        yield is_held
    finally:
        os.close(descriptor)


def _in_bucket(path: epath.PathLike) -> bool:
    return "://" in str(path)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
