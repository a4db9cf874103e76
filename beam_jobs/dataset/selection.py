"""Selection of an archive's rows: all, an evaluation set alone, or all without some sets' patients."""

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from beam_jobs.dataset.sharding import KeyedRow, MakeRecord, Outcome, Row
from medclip_keras.errors import require
from medclip_keras.provenance import sha256_of
from medclip_keras.sources.evaluation_sets import get_evaluation_set, members_of
from medclip_keras.sources.rows import ImageRow

HELD_OUT = "held_out_rows"


@dataclass(frozen=True)
class Selection:
    """Selected rows."""

    evaluation_set: str = ""  # its name; "" selects the whole archive
    split_of: Mapping[str, str] = field(default_factory=dict, repr=False)  # image_id → split, of the set
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # split → class → images of the set
    hold_out: tuple[str, ...] = ()  # names of the sets whose patients are left out
    held_out: frozenset[str] = field(default=frozenset(), repr=False)  # those patients

    @property
    def tags(self) -> tuple[str, ...]:
        """Tags of the rows that are left out."""
        return (HELD_OUT,) if self.hold_out else ()

    def describe(self) -> dict[str, Any]:
        """Description for the manifest; equal for equal rows."""
        chosen = [sorted(self.split_of.items()), sorted(self.held_out)]
        return {
            "evaluation_set": self.evaluation_set,
            "counts": self.counts,
            "hold_out": sorted(self.hold_out),
            "sha256": sha256_of(chosen),
        }

    def rows(self, rows: Callable[[str], Iterator[Row]]) -> Callable[[str], Iterator[Row]]:
        """Rows of a source, restricted to the evaluation set and its splits, if any."""
        return functools.partial(_rows_of_set, rows, self.split_of) if self.evaluation_set else rows

    def start(self, start: Callable[[], MakeRecord]) -> Callable[[], MakeRecord]:
        """Record maker of `MakeShards` that counts the rows of held-out patients without reading them."""
        return functools.partial(_LeaveOut, start, self.held_out) if self.hold_out else start


class _LeaveOut:
    def __init__(self, start: Callable[[], MakeRecord], held_out: frozenset[str]):
        self._make, self._held_out = start(), held_out

    def __call__(self, keyed: KeyedRow[Any]) -> Outcome:
        """Outcome of a row."""
        if keyed.row.patient_id in self._held_out:
            return Outcome(None, (HELD_OUT,))
        return self._make(keyed)


def _rows_of_set(
    rows: Callable[[str], Iterator[Row]], split_of: Mapping[str, str], path: str
) -> Iterator[ImageRow]:
    for row in rows(path):
        if isinstance(row, ImageRow) and row.image_id in split_of:
            yield replace(row, split=split_of[row.image_id])


def select(source: str, path: str, evaluation_set: str = "", hold_out: tuple[str, ...] = ()) -> Selection:
    """Select rows by a job's options; reads the archive's tables, and prints the counts.

    `hold_out` lists sets to leave out, each NAME, or NAME=PATH if another folder lists the set's images.

    Raises:
        ValueError: no such set, one of another archive, an archive with too few images for it, or both.
    """
    if not evaluation_set:
        left_out = [_patients_of(source, path, given) for given in hold_out]
        patients = frozenset[str]().union(*(own for _, own in left_out))
        return Selection(hold_out=tuple(name for name, _ in left_out), held_out=patients)
    made_of = get_evaluation_set(evaluation_set).source
    advice = f"{evaluation_set} is made of images of {made_of}."
    require(made_of == source, "evaluation_set", f"a set of {source}", evaluation_set, advice)
    advice = "A set is recorded whole."
    require(not hold_out, "hold_out", "empty for an evaluation set", hold_out, advice)
    members = members_of(evaluation_set, path)
    print(f"Evaluation set {members.sentence}", flush=True)
    return Selection(evaluation_set, members.split_of, members.counts)


def _patients_of(source: str, path: str, given: str) -> tuple[str, frozenset[str] | set[str]]:
    """Name and patients of a set to hold out, given as NAME or NAME=PATH."""
    name, _, elsewhere = given.partition("=")
    evaluation_set = get_evaluation_set(name)
    made_of = evaluation_set.source
    requirement = f"a set of patients of {source}"
    advice = f"The patients of {name} are those of {', '.join(evaluation_set.patients_of)}."
    require(source in evaluation_set.patients_of, "hold_out", requirement, given, advice)
    requirement = f"NAME=PATH for a set of another archive than {source}"
    advice = f"Give the folder of {made_of}: {name}=PATH."
    require(made_of == source or bool(elsewhere), "hold_out", requirement, given, advice)
    members = members_of(name, elsewhere or path)
    requirement = "a set whose archive tells the images of one patient"
    advice = f"{made_of} does with its table of patients."
    require(made_of == source or members.names_patients, "hold_out", requirement, given, advice)
    print(f"Held out: {members.sentence}", flush=True)
    return name, members.patients
