"""Statistics of a dataset: one tally per split, gathered by Beam and kept as JSON.

Memory: the tallies; for each patient, image and record a digest of 12 bytes with three counts; 282 bytes of
marks for each record (`validation.marks`).
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import apache_beam as beam
import numpy as np
from etils import epath
from pydantic import TypeAdapter, ValidationError

from beam_jobs.validation.facts import RecordFacts, Sighting, Tally, describe_record, merge, with_unmentioned
from beam_jobs.validation.marks import MARK, mark_of
from medclip_keras.errors import refusal
from medclip_keras.records.manifest import Manifest
from medclip_keras.records.shards import read_records
from medclip_keras.records.splits import SPLITS

STATISTICS_NAME = "statistics.json"

Statistics = dict[str, Tally]  # by split, in the order of `SPLITS`; splits without records are absent
_AS_JSON = TypeAdapter(Statistics)


def write_statistics(path: epath.PathLike, tallies: Statistics) -> None:
    """Write the file of statistics."""
    epath.Path(path).write_text(to_json(tallies))


def to_json(statistics: Statistics) -> str:
    """Statistics as the text of their file; equal ones give equal bytes."""
    return json.dumps(_AS_JSON.dump_python(statistics), indent=1, sort_keys=True) + "\n"


def read_statistics(path: epath.PathLike) -> Statistics:
    """Read a file of `write_statistics`.

    Raises:
        ValueError: not such a file.
    """
    try:
        tallies = _AS_JSON.validate_json(epath.Path(path).read_bytes())
    except ValidationError:
        advice = "Run beam_jobs.validate_records again."
        raise refusal(STATISTICS_NAME, "statistics of this version", str(path), advice) from None
    return {split: tallies[split] for split in SPLITS if split in tallies}


class GatherTallies(beam.PTransform):
    """`RecordFacts` → (split, `Tally`) pairs; `concepts` are the names of the records' table."""

    def __init__(self, concepts: Sequence[str]):
        super().__init__()
        self._concepts = concepts

    def expand(self, facts):
        """Add the steps."""
        own = facts | "KeyBySplit" >> beam.Map(lambda one: (one.split, one.tally))
        shared = (
            facts
            | "Sightings" >> beam.FlatMap(sightings_of)
            | "AddUpEach" >> beam.CombinePerKey(add_sightings)
            | "TallySightings" >> beam.FlatMap(tally_sightings)
        )
        added = (own, shared) | beam.Flatten() | "AddUp" >> beam.CombinePerKey(merge)
        return added | "Unmentioned" >> beam.MapTuple(
            lambda split, tally: (split, with_unmentioned(tally, self._concepts))
        )


class DescribeShard(beam.DoFn):
    """A shard's path → `RecordFacts` of its records, and as output "marks" the marks of all of them."""

    def __init__(self, split_of_path: Mapping[str, str], manifest: Manifest, concepts: Sequence[str]):
        self._split_of_path, self._manifest, self._concepts = split_of_path, manifest, concepts

    def process(self, path):
        """Describe one shard."""
        marks = []
        for _, serialized in read_records(path):
            facts = describe_record(serialized, self._split_of_path[path], self._manifest, self._concepts)
            marks.append(mark_of(facts))
            facts.pixels = None
            yield facts
        yield beam.pvalue.TaggedOutput("marks", np.array(marks, MARK).tobytes())


def read_facts(pipeline: beam.Pipeline, directory: str, manifest: Manifest, concepts: Sequence[str]):
    """Add the reading of records to a pipeline: outputs `facts`, one a record, and `marks`, one a shard.

    Beam's own readers take [1] in the name of a folder for a pattern.
    """
    split_of_path = {
        f"{directory.rstrip('/')}/{shard['name']}": split
        for split, content in manifest.splits.items()
        for shard in content["shards"]
    }
    describe = beam.ParDo(DescribeShard(split_of_path, manifest, concepts))
    return (
        pipeline
        | "Shards" >> beam.Create(sorted(split_of_path))
        | "SpreadShards" >> beam.Reshuffle()
        | "DescribeShard" >> describe.with_outputs("marks", main="facts")
    )


def sightings_of(facts: RecordFacts) -> Iterator[tuple[Sighting, tuple[tuple[int, ...], str]]]:
    """Sightings of a record, each with its counts by split, and the record's key."""
    counts = tuple(int(facts.split == split) for split in SPLITS)
    for sighting in facts.sightings:
        yield sighting, (counts, facts.key)


def add_sightings(sightings: Iterable[tuple[tuple[int, ...], str]]) -> tuple[tuple[int, ...], str]:
    """Add the counts of one patient, image or record, and keep the first key.

    >>> add_sightings([((1, 0, 0), "b"), ((0, 0, 2), "a")])
    ((1, 0, 2), 'a')
    """
    counts, keys = zip(*sightings, strict=True)
    return tuple(map(sum, zip(*counts, strict=True))), min(keys)


def tally_sightings(element: tuple[Sighting, tuple[tuple[int, ...], str]]) -> Iterator[tuple[str, Tally]]:
    """Tallies of one patient, image or record, by split: repeated there, and shared with an earlier split."""
    (name, _), (counts, key) = element
    seen = [(split, count) for split, count in zip(SPLITS, counts, strict=True) if count]
    for position, (split, count) in enumerate(seen):
        tally = Tally(Counter([name]))
        if count > 1 and name != "patient_id":
            tally.add_fault(name, "repeated", key, count - 1)
        for earlier, _ in seen[:position]:
            tally.add_fault(name, f"in_{earlier}_and_{split}", key)
        yield split, tally
