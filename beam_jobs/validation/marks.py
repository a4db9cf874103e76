"""Marks of records, by which folders are compared: digests of patient and picture, the picture reduced."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from etils import epath

from beam_jobs.validation.facts import RecordFacts
from medclip_keras.records.manifest import Manifest
from medclip_keras.records.splits import SPLITS
from medclip_keras.sources import patients_of

MARKS_NAME = "marks.npz"
SIDE = 16  # of the reduced picture
MARK = np.dtype(
    [("split", np.uint8), ("key", np.uint64), ("patient", np.uint64), ("picture", np.uint64), ("seen", bool),
     ("reduced", np.uint8, (SIDE, SIDE))]
)  # fmt: skip


@dataclass(frozen=True)
class Marks:
    """The marks of a folder's records.

    Attributes:
        directory: the folder.
        namespace: equal where equal patient identifiers mean one patient.
        marks: (num_records,) `MARK`; "picture" 0 without a picture, and for a blank one.
    """

    directory: str
    namespace: tuple[Any, ...]
    marks: np.ndarray


def reduce(pixels: np.ndarray) -> np.ndarray:
    """A picture (S, S) as the means of 16 x 16 parts, in standard deviations: uint8, 128 + 32 z."""
    edges = np.arange(SIDE) * len(pixels) // SIDE
    sums = np.add.reduceat(np.add.reduceat(pixels, edges, 0, np.uint32), edges, 1)
    sides = np.diff(np.append(edges, len(pixels)))
    means = sums / np.outer(sides, sides)
    z = (means - means.mean()) / max(means.std(), 1e-3)
    return np.clip(np.round(128 + 32 * z), 0, 255).astype(np.uint8)


def mark_of(facts: RecordFacts) -> tuple[Any, ...]:
    """A record's `MARK`."""
    digests = {name: int.from_bytes(digest[:8], "big") for name, digest in facts.sightings}
    pixels = facts.pixels if facts.pixels is not None and len(facts.pixels) >= SIDE else None
    reduced = np.zeros((SIDE, SIDE), np.uint8) if pixels is None else reduce(pixels)
    patient, picture = digests.get("patient_id", 0), digests.get("image", 0)
    return SPLITS.index(facts.split), int(facts.key or "0", 16), patient, picture, pixels is not None, reduced


def write_marks(path: epath.PathLike, parts: Sequence[bytes]) -> None:
    """Write the marks of all shards, in the order of the records' keys."""
    marks = np.concatenate([np.frombuffer(part, MARK) for part in parts] or [np.empty(0, MARK)])
    content = io.BytesIO()  # a zip file on a full disk would print a traceback when it is deleted
    np.savez_compressed(content, marks=marks[np.argsort(marks["key"], kind="stable")])
    epath.Path(path).write_bytes(content.getvalue())


def read_marks(directory: str, manifest: Manifest, path: epath.PathLike) -> Marks:
    """Read the marks of a folder's records."""
    made = manifest.made_from.get("options", {})
    namespace = patients_of(manifest.source), made.get("key_salt"), made.get("keep_ids")
    with epath.Path(path).open("rb") as file, np.load(file) as content:
        return Marks(directory, namespace, content["marks"])
