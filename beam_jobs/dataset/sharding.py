"""Rows to shards: only keys and rows are grouped; one step reads, makes and writes all records of a shard."""

import collections
import pickle
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import apache_beam as beam
from apache_beam.utils.shared import Shared

from beam_jobs.dataset.local_workers import end_with_job
from beam_jobs.dataset.options import JobOptions
from medclip_keras.records.shards import Shard, num_shards_of, salted_hash, shard_index
from medclip_keras.records.splits import require_split, split_of
from medclip_keras.sources.rows import BadRowError, ImageRow, ReportRow

Row = ImageRow | ReportRow
ROWS_PER_PACK = 10_000  # a worker holds that many as objects of some 3,000 bytes
ShardKey = tuple[str, int, int]  # of a `Shard`; every runner can group by tuples
AnyRow = TypeVar("AnyRow", bound=Row)


@dataclass(frozen=True)
class KeyedRow(Generic[AnyRow]):
    """A row with the keys of its record."""

    position: str  # hash of the record's identifier; decides the shard and the place in it
    record_key: str  # a hash, or the archive's identifier if the job keeps it
    study_id: str  # likewise
    patient_id: str  # likewise
    split: str  # "train", "valid" or "test"
    row: AnyRow = field(repr=False)  # the source's row
    # serialized report records of the same study, if reports are joined
    reports: tuple[bytes, ...] = field(default=(), repr=False)

    @property
    def keys(self) -> dict[str, str]:
        """Fields of the record that identify it."""
        return {name: getattr(self, name) for name in ("record_key", "study_id", "patient_id", "split")}


@dataclass(frozen=True)
class Outcome:
    """Result of one readable row."""

    record: dict[str, Any] | None  # its fields, or None for no record
    tags: tuple[str, ...] = ()  # names to count, possibly repeated, such as "unusable_reports"
    mentions: Mapping[str, Any] | None = field(default=None, repr=False)  # a line of the mentions file


BadRow = dict[str, Any]  # "key", "reason", and "row", the number in the user's own table
MakeRecord = Callable[[KeyedRow[Any]], Outcome]


def key_row(row: AnyRow, options: JobOptions) -> KeyedRow[AnyRow]:
    """Give a row its keys and its split: the archive's, else the patient's."""
    identifier = row.image_id if isinstance(row, ImageRow) else row.report_id
    position = salted_hash(options.salt, "record", identifier)
    require_split(row.split)
    split = row.split or split_of(row.patient_id, options.split_fractions, options.split_salt)
    if options.keep_ids:
        return KeyedRow(position, identifier, row.study_id, row.patient_id, split, row)
    study_id = salted_hash(options.salt, "study", row.study_id)
    patient_id = salted_hash(options.salt, "patient", row.patient_id)
    return KeyedRow(position, position, study_id, patient_id, split, row)


class MakeShards(beam.PTransform):
    """Rows → `shards`, the output of `write` for each, and `bad`, keys and reasons of unreadable rows.

    Rows travel without their keys, which take a quarter of a pack and are made in less time than read.

    Args:
        options: of the job.
        start: makes the function that turns a `KeyedRow` into an `Outcome`; called once per worker process.
        write: takes a `Shard` and its outcomes, in the order of their keys; returns the output.
        fetch: takes the rows of a shard and all `places` as a list; returns the rows with their reports.
        places: index of the reports to be joined; None joins none.
    """

    def __init__(
        self,
        options: JobOptions,
        start: Callable[[], MakeRecord],
        write: Callable[[Shard, Iterator[Outcome]], Any],
        fetch: Callable[[list[KeyedRow[Any]], list[Any]], list[KeyedRow[Any]]] | None = None,
        places: beam.PCollection | None = None,
    ):
        super().__init__()
        self._options, self._make_shard = options, MakeShardFn(options, start, write, fetch)
        self._places = () if places is None else (beam.pvalue.AsList(places),)

    def expand(self, rows):
        """Add the steps."""
        num_rows = (
            rows
            | "SplitOfRow" >> beam.Map(_split_of_row, self._options)
            | "CountRowsOfSplit" >> beam.combiners.Count.PerElement()
        )
        with_shard = (
            rows
            | "BatchRows" >> beam.BatchElements(ROWS_PER_PACK, ROWS_PER_PACK)
            | "PackRows" >> beam.Map(pack)
            | "AssignShard" >> beam.FlatMap(_packs_of_shards, beam.pvalue.AsDict(num_rows), self._options)
        )
        every_shard = num_rows | "EveryShard" >> beam.FlatMap(_every_shard, self._options.records_per_shard)
        return (
            (with_shard, every_shard)
            | "AddEveryShard" >> beam.Flatten()
            | "GroupByShard" >> beam.GroupByKey()
            | "MakeShard" >> beam.ParDo(self._make_shard, *self._places).with_outputs("bad", main="shards")
        )


class MakeShardFn(beam.DoFn):
    """Read, make and write the records of a shard, one at a time."""

    def __init__(self, options, start, write, fetch):
        self._options, self._start, self._write, self._fetch = options, start, write, fetch
        self._shared = Shared()

    def setup(self):
        """Take the record maker of this process."""
        end_with_job()
        self._make = self._shared.acquire(self._start)

    def process(self, element, places=None):
        """Make one shard."""
        shard, packs = element
        bad: list[BadRow] = []
        keyed_rows = sorted((key_row(row, self._options) for row in unpack(packs)), key=_order)
        if places is not None:
            keyed_rows = self._fetch(keyed_rows, places)
        yield self._write(Shard(*shard), _outcomes(keyed_rows, self._make, bad))
        beam.metrics.Metrics.counter("medclip_keras", "bad_rows").inc(len(bad))
        for row in bad:
            yield beam.pvalue.TaggedOutput("bad", row)


def pack(rows: Sequence[Row]) -> bytes:
    """Rows as one compressed piece.

    A local runner keeps all groups in memory. A row by itself takes 770 bytes there, in a pack 100.
    """
    return zlib.compress(pickle.dumps(rows, pickle.HIGHEST_PROTOCOL), level=1)


def unpack(packs: Iterable[bytes]) -> Iterator[Row]:
    """Rows of packs, a pack in memory at a time."""
    for packed in packs:
        yield from pickle.loads(zlib.decompress(packed))


def _split_of_row(row: Row, options: JobOptions) -> str:
    return key_row(row, options).split


def _packs_of_shards(
    packed: bytes, num_rows: Mapping[str, int], options: JobOptions
) -> Iterator[tuple[ShardKey, bytes]]:
    of_shard: dict[ShardKey, list[Row]] = collections.defaultdict(list)
    for row in unpack([packed]):
        keyed = key_row(row, options)
        num_shards = num_shards_of(num_rows[keyed.split], options.records_per_shard)
        of_shard[keyed.split, shard_index(keyed.position, num_shards), num_shards].append(row)
    for key, rows in of_shard.items():
        yield key, pack(rows)


def _every_shard(element: tuple[str, int], records_per_shard: int) -> Iterator[tuple[ShardKey, bytes]]:
    """An empty pack for each shard: readers expect every number up to the last, with records or without."""
    split, num_rows = element
    num_shards = num_shards_of(num_rows, records_per_shard)
    for index in range(num_shards):
        yield (split, index, num_shards), pack([])


def _outcomes(keyed_rows: Iterable[KeyedRow[Any]], make: MakeRecord, bad: list[BadRow]) -> Iterator[Outcome]:
    before = None
    for keyed in keyed_rows:
        try:
            if keyed.position == before:
                raise BadRowError("another row has the same identifier")
            before = keyed.position
            outcome = make(keyed)
        except Exception as error:  # a file may hold anything: never a crash, never silence
            number = {"row": keyed.row.number} if keyed.row.number else {}
            bad.append({"key": keyed.record_key, **number, "reason": reason_of(error)})
        else:
            yield outcome


def _order(keyed: KeyedRow[Any]) -> tuple[str, str, bytes]:
    return keyed.position, repr(keyed.row), getattr(keyed.row, "content", None) or b""


def reason_of(error: Exception) -> str:
    """Reason of a bad row, without the error's text, which may hold paths, identifiers or report text."""
    if isinstance(error, BadRowError):
        return str(error)
    if isinstance(error, FileNotFoundError):
        return "the file does not exist"
    return f"cannot be read ({type(error).__name__})"
