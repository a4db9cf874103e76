"""Rows to shards: only keys and rows are grouped; one step reads, makes and writes all records of a shard."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.utils.shared import Shared

from beam_jobs.local_workers import end_with_job
from beam_jobs.options import JobOptions
from beam_jobs.packing import PackValues, pack, unpack
from medclip_keras.records.shards import Shard, num_shards_of, salted_hash, shard_index
from medclip_keras.records.splits import require_split, split_of
from medclip_keras.sources.rows import BadRowError, ImageRow, ReportRow


class Place(NamedTuple):
    """Where a record lies in a dataset.

    Attributes:
        shard: file name.
        offset: of the record's first byte.
        num_bytes: of the record.
    """

    shard: str
    offset: int
    num_bytes: int


@dataclass(frozen=True)
class KeyedRow:
    """A row with the keys under which its record is written.

    Attributes:
        position: hash of the record's identifier; decides the shard and the place in it.
        record_key, study_id, patient_id: keys, or the identifiers where the job keeps them.
        split: "train", "valid" or "test".
        row: the source's row.
        reports: report records of the same study, where they were joined: their places, or, in the step that
            makes the shard, their bytes.
    """

    position: str
    record_key: str
    study_id: str
    patient_id: str
    split: str
    row: ImageRow | ReportRow = field(repr=False)
    reports: tuple[Place | bytes, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Outcome:
    """What became of one readable row.

    Attributes:
        record: the fields of its record, or None where there is nothing to record.
        states: what to count the row under, such as "unusable_reports".
        mentions: a line for the mentions file, or None.
    """

    record: dict[str, Any] | None
    states: tuple[str, ...] = ()
    mentions: dict[str, Any] | None = field(default=None, repr=False)


def key_row(row: ImageRow | ReportRow, options: JobOptions) -> KeyedRow:
    """Gives a row its keys and its split: the archive's, else its patient's."""
    identifier = row.image_id if isinstance(row, ImageRow) else row.report_id
    position = salted_hash(options.key_salt, "record", identifier)
    require_split(row.split)
    split = row.split or split_of(row.patient_id, options.split_fractions, options.split_salt)
    if options.keep_ids:
        return KeyedRow(position, identifier, row.study_id, row.patient_id, split, row)
    study_id = salted_hash(options.key_salt, "study", row.study_id)
    patient_id = salted_hash(options.key_salt, "patient", row.patient_id)
    return KeyedRow(position, position, study_id, patient_id, split, row)


def shard_of(keyed: KeyedRow, num_rows: Mapping[str, int], records_per_shard: int) -> Shard:
    """The shard of a row, given the number of rows in each split."""
    num_shards = num_shards_of(num_rows[keyed.split], records_per_shard)
    return Shard(keyed.split, shard_index(keyed.position, num_shards), num_shards)


class KeyRows(beam.PTransform):
    """Rows → `KeyedRow`s."""

    def __init__(self, options: JobOptions):
        super().__init__()
        self._options = options

    def expand(self, rows):
        """Adds the step."""
        return rows | "KeyRow" >> beam.Map(key_row, self._options)


class ShardsMade(NamedTuple):
    """What `MakeShards` gives.

    Attributes:
        shards: what `write` returned of each shard.
        bad: keys and reasons of the rows that could not be read.
        num_rows: (split, number of rows).
    """

    shards: beam.PCollection
    bad: beam.PCollection
    num_rows: beam.PCollection


class MakeShards(beam.PTransform):
    """`KeyedRow`s → `ShardsMade`.

    Args:
        start: makes the function that turns a `KeyedRow` into an `Outcome`; called once a worker process.
        write: takes a `Shard` and its outcomes, in the order of their keys; what it returns is the output.
        records_per_shard: see `num_shards_of`.
        fetch: brings what was joined by its place alone to the rows of a shard.
    """

    def __init__(
        self,
        start: Callable[[], Callable[[KeyedRow], Outcome]],
        write: Callable[[Shard, Iterator[Outcome]], Any],
        records_per_shard: int,
        fetch: Callable[[list[KeyedRow]], list[KeyedRow]] = list,
    ):
        super().__init__()
        self._start, self._write, self._fetch = start, write, fetch
        self._records_per_shard = records_per_shard

    def expand(self, keyed):
        """Adds the steps."""
        of_split = keyed | "SplitOfRow" >> beam.Map(lambda row: (row.split, row))
        num_rows = of_split | "CountRowsOfSplit" >> beam.combiners.Count.PerKey()
        with_shard = (
            of_split
            | "PackRows" >> PackValues()
            | "AssignShard"
            >> beam.FlatMap(_with_shard, beam.pvalue.AsDict(num_rows), self._records_per_shard)
            | "PackRowsOfShard" >> PackValues()
        )
        every_shard = num_rows | "EveryShard" >> beam.FlatMap(_every_shard, self._records_per_shard)
        made = (
            (with_shard, every_shard)
            | "AddEveryShard" >> beam.Flatten()
            | "GroupByShard" >> beam.GroupByKey()
            | "MakeShard"
            >> beam.ParDo(MakeShardFn(self._start, self._write, self._fetch)).with_outputs(
                "bad", main="shards"
            )
        )
        return ShardsMade(made.shards, made.bad, num_rows)


class MakeShardFn(beam.DoFn):
    """Reads, makes and writes the records of a shard, one at a time."""

    def __init__(self, start, write, fetch):
        self._start, self._write, self._fetch = start, write, fetch
        self._shared = Shared()

    def setup(self):
        """Takes this process' record maker."""
        end_with_job()
        self._make = self._shared.acquire(self._start)

    def process(self, element):
        """Makes one shard."""
        shard, packs = element
        bad = []
        keyed_rows = self._fetch(sorted(unpack(packs), key=_order))
        yield self._write(Shard(*shard), _outcomes(keyed_rows, self._make, bad))
        beam.metrics.Metrics.counter("medclip_keras", "bad_rows").inc(len(bad))
        for row in bad:
            yield beam.pvalue.TaggedOutput("bad", row)


def _with_shard(keyed_pack, num_rows, records_per_shard):
    _, packed = keyed_pack
    for keyed in unpack([packed]):
        shard = shard_of(keyed, num_rows, records_per_shard)
        yield (shard.split, shard.index, shard.num_shards), keyed  # a key that every runner can group by


def _every_shard(element, records_per_shard):
    split, num_rows = element
    # A shard that no key falls into is an empty file: readers count on every number up to the last.
    num_shards = num_shards_of(num_rows, records_per_shard)
    for index in range(num_shards):
        yield (split, index, num_shards), pack([])


def _outcomes(keyed_rows: Iterable[KeyedRow], make, bad: list) -> Iterator[Outcome]:
    before = None
    for keyed in keyed_rows:
        try:
            if keyed.position == before:
                raise BadRowError("another row has the same identifier")
            before = keyed.position
            outcome = make(keyed)
        except Exception as error:  # whatever a file may hold: never a crash, never silence
            bad.append({"key": keyed.record_key, "reason": reason_of(error)})
        else:
            yield outcome


def _order(keyed: KeyedRow) -> tuple:
    return keyed.position, repr(keyed.row), getattr(keyed.row, "content", None) or b""


def reason_of(error: Exception) -> str:
    """Why a row is bad, without what an error's text may hold: paths, identifiers, report text."""
    if isinstance(error, BadRowError):
        return str(error)
    if isinstance(error, FileNotFoundError):
        return "the file does not exist"
    return f"cannot be read ({type(error).__name__})"
