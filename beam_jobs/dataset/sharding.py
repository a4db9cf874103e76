"""Rows to shards: only keys and rows are grouped; one step reads, makes and writes all records of a shard."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.utils.shared import Shared

from beam_jobs.dataset.local_workers import end_with_job
from beam_jobs.dataset.options import JobOptions
from beam_jobs.dataset.packing import PackValues, pack, unpack
from medclip_keras.records.shards import Shard, num_shards_of, salted_hash, shard_index
from medclip_keras.records.splits import require_split, split_of
from medclip_keras.sources.rows import BadRowError, ImageRow, ReportRow


@dataclass(frozen=True)
class KeyedRow:
    """A row with the keys under which its record is written.

    Attributes:
        position: hash of the record's identifier; decides the shard and the place in it.
        record_key, study_id, patient_id: keys, or the identifiers where the job keeps them.
        split: "train", "valid" or "test".
        row: the source's row.
        reports: serialized report records of the same study, where they were joined.
    """

    position: str
    record_key: str
    study_id: str
    patient_id: str
    split: str
    row: ImageRow | ReportRow = field(repr=False)
    reports: tuple[bytes, ...] = field(default=(), repr=False)


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
    """Rows → `ShardsMade`.

    Rows travel without their keys, which take a quarter of a pack and are made in less time than read.

    Args:
        options: of the job.
        start: makes the function that turns a `KeyedRow` into an `Outcome`; called once a worker process.
        write: takes a `Shard` and its outcomes, in the order of their keys; what it returns is the output.
        fetch: takes the rows of a shard, and all `places` as a list; gives the rows with what lies there.
        places: where the things to be joined lie; None where nothing is.
    """

    def __init__(
        self,
        options: JobOptions,
        start: Callable[[], Callable[[KeyedRow], Outcome]],
        write: Callable[[Shard, Iterator[Outcome]], Any],
        fetch: Callable[[list[KeyedRow], list], list[KeyedRow]] | None = None,
        places: beam.PCollection | None = None,
    ):
        super().__init__()
        self._options, self._make_shard = options, MakeShardFn(options, start, write, fetch)
        self._places = () if places is None else (beam.pvalue.AsList(places),)

    def expand(self, rows):
        """Adds the steps."""
        of_split = rows | "SplitOfRow" >> beam.Map(_with_split, self._options)
        num_rows = of_split | "CountRowsOfSplit" >> beam.combiners.Count.PerKey()
        with_shard = (
            of_split
            | "PackRows" >> PackValues()
            | "AssignShard" >> beam.FlatMap(_with_shard, beam.pvalue.AsDict(num_rows), self._options)
            | "PackRowsOfShard" >> PackValues()
        )
        every_shard = num_rows | "EveryShard" >> beam.FlatMap(_every_shard, self._options.records_per_shard)
        made = (
            (with_shard, every_shard)
            | "AddEveryShard" >> beam.Flatten()
            | "GroupByShard" >> beam.GroupByKey()
            | "MakeShard" >> beam.ParDo(self._make_shard, *self._places).with_outputs("bad", main="shards")
        )
        return ShardsMade(made.shards, made.bad, num_rows)


class MakeShardFn(beam.DoFn):
    """Reads, makes and writes the records of a shard, one at a time."""

    def __init__(self, options, start, write, fetch):
        self._options = options
        self._start, self._write, self._fetch = start, write, fetch
        self._shared = Shared()

    def setup(self):
        """Takes this process' record maker."""
        end_with_job()
        self._make = self._shared.acquire(self._start)

    def process(self, element, places=None):
        """Makes one shard."""
        shard, packs = element
        bad = []
        keyed_rows = sorted((key_row(row, self._options) for row in unpack(packs)), key=_order)
        if places is not None:
            keyed_rows = self._fetch(keyed_rows, places)
        yield self._write(Shard(*shard), _outcomes(keyed_rows, self._make, bad))
        beam.metrics.Metrics.counter("medclip_keras", "bad_rows").inc(len(bad))
        for row in bad:
            yield beam.pvalue.TaggedOutput("bad", row)


def _with_split(row, options):
    return key_row(row, options).split, row


def _with_shard(of_split, num_rows, options):
    _, packed = of_split
    for row in unpack([packed]):
        shard = shard_of(key_row(row, options), num_rows, options.records_per_shard)
        yield (shard.split, shard.index, shard.num_shards), row  # a key that every runner can group by


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
