"""Records to statistics: sums that Beam adds up in any order, and what must not be seen twice.

Memory: a sum for each split, and for each patient, image and record a hash of 12 bytes with three counts.
"""

import collections
from collections.abc import Iterable
from dataclasses import dataclass, field

import apache_beam as beam
import numpy as np
from apache_beam.io.tfrecordio import ReadAllFromTFRecord

from beam_jobs.validation.facts import NUM_STATES, RecordFacts, describe_record
from medclip_keras.records.manifest import Manifest
from medclip_keras.records.splits import SPLITS

NUM_EXAMPLES = 3  # record keys that are kept of each fault


@dataclass
class FieldTally:
    """How often a field is there, and with how many values."""

    num_present: int = 0
    num_values: int = 0
    fewest: int | None = None
    most: int = 0

    def add(self, count: int) -> None:
        """Counts one record that has the field."""
        self.merge(FieldTally(1, count, count, count))

    def merge(self, other: "FieldTally") -> None:
        """Adds another tally to this one."""
        self.num_present += other.num_present
        self.num_values += other.num_values
        known = [count for count in (self.fewest, other.fewest) if count is not None]
        self.fewest = min(known, default=None)
        self.most = max(self.most, other.most)


@dataclass
class SplitTally:
    """What the records of one split add up to.

    Attributes:
        num_findings: concepts in the table.
        num_records: of the split.
        fields: name → `FieldTally`; a text that is empty counts as missing.
        words: field → value → records (of sections: sentences) that have it.
        faults: (field, fault) → records that have it.
        examples: (field, fault) → the first keys of them.
        image_bytes: length of an image → images.
        brightness: mean of the pixels in 16ths → images.
        states: (num_findings, 4) records in each state.
        sentence_states: (num_findings, 4) sentences in each state.
        sentence_words: words → sentences that have so many.
        record_sentences: sentences → records that have so many.
        num_labelled: records that say something of any concept.
    """

    num_findings: int
    num_records: int = 0
    fields: dict[str, FieldTally] = field(default_factory=dict)
    words: dict[str, collections.Counter] = field(default_factory=dict)
    faults: collections.Counter = field(default_factory=collections.Counter)
    examples: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    image_bytes: collections.Counter = field(default_factory=collections.Counter)
    brightness: collections.Counter = field(default_factory=collections.Counter)
    sentence_words: collections.Counter = field(default_factory=collections.Counter)
    record_sentences: collections.Counter = field(default_factory=collections.Counter)
    num_labelled: int = 0

    def __post_init__(self):
        self.states = np.zeros((self.num_findings, NUM_STATES), np.int64)
        self.sentence_states = np.zeros((self.num_findings, NUM_STATES), np.int64)

    def add(self, facts: RecordFacts) -> None:
        """Counts one record."""
        self.num_records += 1
        for name, count in facts.num_values.items():
            if count:
                self.fields.setdefault(name, FieldTally()).add(count)
        for name, values in facts.words.items():
            self.words.setdefault(name, collections.Counter()).update(values)
        for fault in set(facts.faults):
            self.faults[fault] += 1
            self._keep(fault, [facts.key])
        if facts.num_values.get("image"):
            self.image_bytes[facts.num_image_bytes] += 1
        if facts.brightness is not None:
            self.brightness[facts.brightness] += 1
        if facts.states is not None:
            self.states[np.arange(self.num_findings), facts.states] += 1
            self.num_labelled += bool(facts.states.any())
        if facts.sentence_states is not None:
            concepts = np.broadcast_to(np.arange(self.num_findings), facts.sentence_states.shape)
            np.add.at(self.sentence_states, (concepts, facts.sentence_states), 1)
        self.sentence_words.update(facts.sentence_words)
        self.record_sentences[len(facts.sentence_words)] += 1

    def merge(self, other: "SplitTally") -> None:
        """Adds another tally to this one."""
        self.num_records += other.num_records
        for name, tally in other.fields.items():
            self.fields.setdefault(name, FieldTally()).merge(tally)
        for name, counts in other.words.items():
            self.words.setdefault(name, collections.Counter()).update(counts)
        for fault, keys in other.examples.items():
            self._keep(fault, keys)
        for name in ("faults", "image_bytes", "brightness", "sentence_words", "record_sentences"):
            getattr(self, name).update(getattr(other, name))
        self.states += other.states
        self.sentence_states += other.sentence_states
        self.num_labelled += other.num_labelled

    def _keep(self, fault: tuple[str, str], keys: list[str]) -> None:
        kept = {*self.examples.get(fault, ()), *keys}
        self.examples[fault] = sorted(kept)[:NUM_EXAMPLES]


class AddUp(beam.CombineFn):
    """`RecordFacts` → `SplitTally`."""

    def __init__(self, num_findings: int):
        self._num_findings = num_findings

    def create_accumulator(self):
        """An empty tally."""
        return SplitTally(self._num_findings)

    def add_input(self, accumulator, facts):
        """Counts one record."""
        accumulator.add(facts)
        return accumulator

    def merge_accumulators(self, accumulators):
        """Adds tallies up, in any order."""
        total = self.create_accumulator()
        for tally in accumulators:
            total.merge(tally)
        return total

    def extract_output(self, accumulator):
        """The tally."""
        return accumulator


@dataclass
class SightingTally:
    """What becomes of the patients, images and records of a dataset.

    Attributes:
        unique: (what, split) → how many different ones.
        repeated: (what, split) → sightings after the first within the split.
        shared: (what, two splits) → how many lie in both.
        examples: (what, two splits), or (what, split) of repeated ones → the first record keys.
    """

    unique: collections.Counter = field(default_factory=collections.Counter)
    repeated: collections.Counter = field(default_factory=collections.Counter)
    shared: collections.Counter = field(default_factory=collections.Counter)
    examples: dict[tuple, list[str]] = field(default_factory=dict)

    def add(self, what: str, counts: Iterable[int], key: str) -> None:
        """Counts one patient, image or record that was seen so often in each split."""
        seen = [(split, count) for split, count in zip(SPLITS, counts, strict=True) if count]
        for position, (split, count) in enumerate(seen):
            self.unique[what, split] += 1
            if count > 1:
                self.repeated[what, split] += count - 1
                self._keep((what, split), [key])
            for other, _ in seen[position + 1 :]:
                self.shared[what, (split, other)] += 1
                self._keep((what, (split, other)), [key])

    def merge(self, other: "SightingTally") -> None:
        """Adds another tally to this one."""
        for name in ("unique", "repeated", "shared"):
            getattr(self, name).update(getattr(other, name))
        for name, keys in other.examples.items():
            self._keep(name, keys)

    def _keep(self, name: tuple, keys: list[str]) -> None:
        self.examples[name] = sorted({*self.examples.get(name, ()), *keys})[:NUM_EXAMPLES]


class AddUpSightings(beam.CombineFn):
    """((what, digest), (counts, key)) → `SightingTally`."""

    def create_accumulator(self):
        """An empty tally."""
        return SightingTally()

    def add_input(self, accumulator, element):
        """Counts one patient, image or record."""
        (what, _), (counts, key) = element
        accumulator.add(what, counts, key)
        return accumulator

    def merge_accumulators(self, accumulators):
        """Adds tallies up, in any order."""
        total = SightingTally()
        for tally in accumulators:
            total.merge(tally)
        return total

    def extract_output(self, accumulator):
        """The tally."""
        return accumulator


class GatherStatistics(beam.PTransform):
    """`RecordFacts` → {"splits": (split, `SplitTally`) pairs, "sightings": one `SightingTally`}."""

    def __init__(self, num_findings: int):
        super().__init__()
        self._num_findings = num_findings

    def expand(self, facts):
        """Adds the steps."""
        splits = (
            facts
            | "KeyBySplit" >> beam.Map(lambda one: (one.split, one))
            | "AddUpRecords" >> beam.CombinePerKey(AddUp(self._num_findings))
        )
        sightings = (
            facts
            | "Sightings" >> beam.FlatMap(sightings_of)
            | "AddUpEach" >> beam.CombinePerKey(add_sightings)
            | "AddUpAll" >> beam.CombineGlobally(AddUpSightings())
        )
        return {"splits": splits, "sightings": sightings}


def sightings_of(facts: RecordFacts):
    """The (what, digest) of a record, each with the split where it is, as counts, and the record's key."""
    counts = tuple(int(facts.split == split) for split in SPLITS)
    for what, digest in facts.sightings:
        yield (what, digest), (counts, facts.key)


def add_sightings(sightings: Iterable) -> tuple[tuple[int, ...], str]:
    """Adds the counts of one patient, image or record up, and keeps the first key.

    >>> add_sightings([((1, 0, 0), "b"), ((0, 0, 2), "a")])
    ((1, 0, 2), 'a')
    """
    total, first = (0,) * len(SPLITS), ""
    for counts, key in sightings:
        total = tuple(a + b for a, b in zip(total, counts, strict=True))
        first = min(first or key, key)
    return total, first


def read_facts(pipeline: beam.Pipeline, directory: str, manifest: Manifest) -> beam.PCollection:
    """Adds the reading of a dataset's records to a pipeline."""
    split_of_path = {
        f"{directory.rstrip('/')}/{shard['name']}": split
        for split, content in manifest.splits.items()
        for shard in content["shards"]
    }
    shape = (manifest.kind, manifest.num_findings, manifest.image_size)
    return (
        pipeline
        | "Shards" >> beam.Create(sorted(split_of_path))
        | "ReadShards" >> ReadAllFromTFRecord(with_filename=True)
        | "DescribeRecord" >> beam.Map(_describe, split_of_path, *shape)
    )


def _describe(element, split_of_path, kind, num_findings, image_size):
    path, serialized = element
    return describe_record(serialized, split_of_path[path], kind, num_findings, image_size)
