"""Checkpoints on disk: each is written under a temporary name, renamed, and checked before it is read.

    last/step-400/     weights.index, weights.data-00000-of-00001, manifest.json
    last/ckpt-400.*    a checkpoint of version 0.4 or earlier, without a manifest

The manifest holds the SHA-256 of every file and of itself. Checkpoints are found by listing the folder.
"""

import dataclasses
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf
from etils import epath

from medclip_keras.errors import NotSavedError
from medclip_keras.files import WRITING, size_of, sync, write_whole
from medclip_keras.provenance import file_sha256, sha256_of

MANIFEST = "manifest.json"
_WEIGHTS = "weights"  # prefix of TensorFlow's files
_NAME = re.compile(r"step-(\d+)$|ckpt-(\d+)\.(?:index|data-\d+-of-\d+)$")

Json = dict[str, Any]


@dataclass(frozen=True)
class SavedCheckpoint:
    """One checkpoint; `fault` says whether it is whole."""

    step: int
    folder: epath.Path  # that holds it
    has_manifest: bool

    @property
    def prefix(self) -> str:
        """Path for `tf.train.Checkpoint.read`."""
        inner = f"step-{self.step}/{_WEIGHTS}" if self.has_manifest else f"ckpt-{self.step}"
        return str(self.folder / inner)

    def __str__(self) -> str:
        return f"{self.folder.name}/{'step' if self.has_manifest else 'ckpt'}-{self.step}"

    @property
    def paths(self) -> list[epath.Path]:
        """The folder or the files of the checkpoint."""
        if self.has_manifest:
            return [self.folder / f"step-{self.step}"]
        return sorted(self.folder.glob(f"ckpt-{self.step}.*"))

    def manifest(self) -> Json:
        """Content of the manifest; {} for an earlier version's checkpoint."""
        return json.loads((self.paths[0] / MANIFEST).read_text()) if self.has_manifest else {}

    def fault(self) -> str:
        """Say how the checkpoint is damaged; "" if it is whole.

        Raises:
            PermissionError: a file must not be read.
        """
        try:
            return self._fault_of_manifest() if self.has_manifest else self._fault_of_tensors()
        except PermissionError:
            raise
        except OSError as error:
            return f"cannot be read: {error.strerror or error}"

    def _fault_of_manifest(self) -> str:
        folder = self.paths[0]
        if not (folder / MANIFEST).exists():
            return f"{MANIFEST} is missing"
        try:
            manifest = self.manifest()
            sealed = manifest.pop("sha256") == sha256_of(manifest)
        except (ValueError, KeyError, TypeError, AttributeError):
            return f"{MANIFEST} is not readable"
        if not sealed or manifest["step"] != self.step:
            return f"{MANIFEST} was changed"
        faults = (_fault_of_file(folder / name, made) for name, made in manifest["files"].items())
        return next(filter(None, faults), "")

    def _fault_of_tensors(self) -> str:
        try:
            reader = tf.train.load_checkpoint(self.prefix)
            for name in reader.get_variable_to_shape_map():
                reader.get_tensor(name)
        except (tf.errors.OpError, ValueError, RuntimeError, UnicodeDecodeError) as error:
            return f"cannot be read: {str(error).splitlines()[0][:120]}"
        return ""


@dataclass(frozen=True)
class CheckpointFolder:
    """The checkpoints of one purpose, such as checkpoints/last."""

    folder: epath.Path
    keep: int = 1  # number of checkpoints kept
    about: Json = field(default_factory=dict)  # written into each manifest

    def find(self) -> list[SavedCheckpoint]:
        """List the checkpoints, the newest first; damaged ones are listed too.

        Raises:
            OSError: the folder cannot be listed.
        """
        if not self.folder.exists():
            return []
        names = (_NAME.match(path.name) for path in self.folder.iterdir())
        found = {(int(name[1] or name[2]), bool(name[1])) for name in names if name}
        return [SavedCheckpoint(step, self.folder, new) for step, new in sorted(found, reverse=True)]

    def write(self, step: int, write: Callable[[str], object], state: Json | None = None) -> None:
        """Write a checkpoint under a temporary name, rename it, then delete those beyond `keep`.

        Args:
            step: of the checkpoint.
            write: writes TensorFlow's files, given their prefix.
            state: JSON values that belong to the checkpoint.

        Raises:
            NotSavedError: the disk is full or must not be written; what was saved before is kept.
        """
        temporary, target = self.folder / f".step-{step}{WRITING}", self.folder / f"step-{step}"
        try:
            self._clear()
            temporary.mkdir(parents=True)
            write(str(temporary / _WEIGHTS))
            manifest = {"format": 1, "step": step, "state": state or {}, **self.about}
            manifest["files"] = {path.name: _describe(path) for path in sorted(temporary.iterdir())}
            manifest["sha256"] = sha256_of(manifest)
            write_whole(temporary / MANIFEST, json.dumps(manifest, indent=1) + "\n")
            sync(*temporary.iterdir(), temporary)
            if target.exists():
                target.rename(self.folder / f".step-{step}.replaced{WRITING}")
            temporary.rename(target)
            sync(self.folder)
            self._clear()
            self._prune(step)
        except (OSError, tf.errors.OpError) as error:
            raise self._not_saved(step, error) from error

    def set_aside(self, damaged: SavedCheckpoint) -> epath.Path | None:
        """Move a damaged checkpoint out of the way, to checkpoints/damaged; None if that fails."""
        place = self.folder.parent / "damaged" / f"{self.folder.name}-{damaged.step}"
        place = next(p for n in range(10**6) if not (p := place.with_name(f"{place.name}-{n}")).exists())
        try:
            place.mkdir(parents=True)
            for path in damaged.paths:
                path.rename(place / path.name)
        except OSError:
            return None
        return place

    def _clear(self) -> None:
        """Delete half-written checkpoints of killed processes."""
        for path in self.folder.glob(f".step-*{WRITING}") if self.folder.exists() else ():
            path.rmtree()

    def _prune(self, step: int) -> None:
        """Delete all but the newest `keep` checkpoints up to `step`; the steps of later ones are repeated."""
        kept = [saved for saved in self.find() if saved.step <= step][: self.keep]
        for saved in self.find():
            if saved not in kept:
                for path in saved.paths:
                    path.rmtree() if path.is_dir() else path.unlink()
        if all(saved.has_manifest for saved in kept):
            (self.folder / "checkpoint").unlink(missing_ok=True)  # an earlier version's list

    def _not_saved(self, step: int, error: Exception) -> NotSavedError:
        try:
            self._clear()
            left = [saved.step for saved in self.find() if not saved.fault()]
        except OSError:
            left = []
        kept = f"The checkpoint of step {left[0]} is kept." if left else "No earlier checkpoint is there."
        return NotSavedError(f"checkpoint of step {step}", str(self.folder), error, kept)


def _describe(path: epath.Path) -> Json:
    return {"bytes": size_of(path), "sha256": file_sha256(path)}


def _fault_of_file(path: epath.Path, made: Json) -> str:
    if not path.exists():
        return f"{path.name} is missing"
    size = size_of(path)
    if size != made["bytes"]:
        return f"{path.name} has {size} of {made['bytes']} bytes"
    return "" if file_sha256(path) == made["sha256"] else f"{path.name} differs from its checksum"


def as_state(values: Any) -> Json:
    """Fields of a dataclass as JSON types; infinity becomes null."""
    return {k: None if v == float("inf") else v for k, v in dataclasses.asdict(values).items()}
