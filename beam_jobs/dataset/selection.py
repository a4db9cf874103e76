"""Which rows of an archive a job records: all, those of an evaluation set, or all but some sets' patients."""

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from beam_jobs.dataset.sharding import KeyedRow, Outcome
from medclip_keras.errors import require
from medclip_keras.provenance import sha256_of
from medclip_keras.sources.evaluation_sets import get_evaluation_set, members_of
from medclip_keras.sources.rows import ImageRow, ReportRow

HELD_OUT = "held_out_rows"


@dataclass(frozen=True)
class Selection:
    """What to take, and what to leave out.

    Attributes:
        evaluation_set: its name; "" takes the whole archive.
        split_of: image_id → split, of the set's images.
        counts: split → class → images of the set.
        hold_out: names of the sets whose patients are left out.
        held_out: those patients.
    """

    evaluation_set: str = ""
    split_of: Mapping[str, str] = field(default_factory=dict, repr=False)
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    hold_out: tuple[str, ...] = ()
    held_out: frozenset[str] = field(default=frozenset(), repr=False)

    @property
    def states(self) -> tuple[str, ...]:
        """The counted states of the rows that are left out."""
        return (HELD_OUT,) if self.hold_out else ()

    def describe(self) -> dict[str, Any]:
        """What the manifest says of it; equal where the same rows are recorded."""
        chosen = [sorted(self.split_of.items()), sorted(self.held_out)]
        return {
            "evaluation_set": self.evaluation_set,
            "counts": self.counts,
            "hold_out": sorted(self.hold_out),
            "sha256": sha256_of(chosen),
        }

    def rows(self, rows: Callable[[str], Iterator]) -> Callable[[str], Iterator]:
        """A source's rows; where there is a set, its images alone, in its splits."""
        return functools.partial(_rows_of_set, rows, self.split_of) if self.evaluation_set else rows

    def start(self, start: Callable[[], Callable[[KeyedRow], Outcome]]) -> Callable:
        """See `MakeShards`; rows of held-out patients are counted, and give no record."""
        return functools.partial(LeaveOut, start, self.held_out) if self.hold_out else start


EVERYTHING = Selection()


class LeaveOut:
    """Makes records, but none of the patients that are held out; their rows are not read."""

    def __init__(self, start: Callable[[], Callable[[KeyedRow], Outcome]], held_out: frozenset[str]):
        self._make, self._held_out = start(), held_out

    def __call__(self, keyed: KeyedRow) -> Outcome:
        """The outcome of a row."""
        if keyed.row.patient_id in self._held_out:
            return Outcome(None, (HELD_OUT,))
        return self._make(keyed)


def _rows_of_set(
    rows: Callable[[str], Iterator[ImageRow]], split_of: Mapping[str, str], path: str
) -> Iterator[ImageRow | ReportRow]:
    for row in rows(path):
        if row.image_id in split_of:
            yield replace(row, split=split_of[row.image_id])


def select(source: str, path: str, evaluation_set: str = "", hold_out: tuple[str, ...] = ()) -> Selection:
    """What a job's options ask for; the archive's tables are read for it, and the counts printed.

    Args:
        source: of the job.
        path: the job's input.
        evaluation_set: name of the set to record, or "".
        hold_out: sets to leave out, each NAME, or NAME=PATH where the set's images are listed elsewhere.

    Raises:
        ValueError: no such set, one of another archive, an archive with too few images for it, or both.
    """
    if not evaluation_set:
        return _without(source, path, hold_out)
    made_of = get_evaluation_set(evaluation_set).source
    advice = f"{evaluation_set} is made of images of {made_of}."
    require(made_of == source, "evaluation_set", f"a set of {source}", evaluation_set, advice)
    advice = "A set is recorded whole."
    require(not hold_out, "hold_out", "empty where an evaluation set is recorded", hold_out, advice)
    members = members_of(evaluation_set, path)
    print(f"Evaluation set {members.sentence}", flush=True)
    return Selection(evaluation_set, members.split_of, members.counts)


def _without(source: str, path: str, hold_out: tuple[str, ...]) -> Selection:
    names, patients = [], set()
    for given in hold_out:
        name, _, elsewhere = given.partition("=")
        evaluation_set = get_evaluation_set(name)
        requirement = f"a set of patients of {source}"
        advice = f"The patients of {name} are those of {', '.join(evaluation_set.patients_of)}."
        require(source in evaluation_set.patients_of, "hold_out", requirement, given, advice)
        own = evaluation_set.source == source
        advice = f"Say where {evaluation_set.source} lies: {name}=PATH."
        require(own or bool(elsewhere), "hold_out", f"NAME=PATH for a set of another archive than {source}",
                given, advice)  # fmt: skip
        members = members_of(name, elsewhere or path)
        advice = f"With its table of patients, {evaluation_set.source} does."
        known = own or members.names_patients
        require(known, "hold_out", "a set whose archive says which images are one patient's", given, advice)
        print(f"Held out: {members.sentence}", flush=True)
        names.append(name)
        patients |= members.patients
    return Selection(hold_out=tuple(names), held_out=frozenset(patients))
