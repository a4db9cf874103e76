"""Images meet the reports of their study: only keys and places are joined; the text is read for one shard."""

import collections
import os
import zlib
from collections.abc import Iterator
from dataclasses import replace

import apache_beam as beam
import tensorflow as tf
from etils import epath

from beam_jobs.packing import PackValues, unpack
from beam_jobs.sharding import KeyedRow, Place
from medclip_keras.records.manifest import Manifest
from medclip_keras.records.shards import read_records

_NUM_GROUPS = 256  # of studies: what is joined at a time is a 256th of the archive's rows


def read_places(pipeline: beam.Pipeline, directory: str, manifest: Manifest) -> beam.PCollection:
    """Adds to a pipeline: (study_id, `Place`) of every report record of a dataset."""
    paths = [str(epath.Path(directory) / name) for name in manifest.shard_names]
    return pipeline | "ReportShards" >> beam.Create(paths) | "ReportPlaces" >> beam.FlatMap(places_of)


def places_of(path: str) -> Iterator[tuple[str, Place]]:
    """Study and place of each record of a shard."""
    for offset, record in read_records(path):
        yield study_of(record), Place(os.path.basename(path), offset, len(record))


def study_of(serialized: bytes) -> str:
    """The study of a serialized record."""
    example = tf.train.Example.FromString(serialized)
    return example.features.feature["study_id"].bytes_list.value[0].decode()


class JoinReports(beam.PTransform):
    """{"rows": keyed rows, "reports": (study_id, place)} → keyed rows with the places of their reports."""

    def expand(self, inputs):
        """Adds the steps."""
        rows = inputs["rows"] | "GroupOfRow" >> beam.Map(lambda keyed: (_group(keyed.study_id), keyed))
        reports = inputs["reports"] | "GroupOfReport" >> beam.Map(lambda place: (_group(place[0]), place))
        packs = {
            "rows": rows | "PackRows" >> PackValues(),
            "reports": reports | "PackReports" >> PackValues(),
        }
        return packs | "GroupByStudy" >> beam.CoGroupByKey() | "TakeReports" >> beam.FlatMap(_take_reports)


def _group(study_id: str) -> int:
    return zlib.crc32(study_id.encode()) % _NUM_GROUPS


def _take_reports(element) -> Iterator[KeyedRow]:
    _, joined = element
    places = collections.defaultdict(list)
    for study_id, place in unpack(joined["reports"]):
        places[study_id].append(place)
    for keyed in unpack(joined["rows"]):
        yield replace(keyed, reports=tuple(places.get(keyed.study_id, ())))


class FetchReports:
    """Puts the report records of a dataset, by their places, into the rows of a shard."""

    def __init__(self, directory: str):
        self._directory = epath.Path(directory)

    def __call__(self, keyed_rows: list[KeyedRow]) -> list[KeyedRow]:
        """Rows with the bytes of their reports; every file is opened once and read in order."""
        wanted = collections.defaultdict(set)
        for place in (place for keyed in keyed_rows for place in keyed.reports):
            wanted[place.shard].add(place)
        records = {}
        for shard, places in wanted.items():
            with (self._directory / shard).open("rb") as file:
                for place in sorted(places):
                    file.seek(place.offset)
                    records[place] = file.read(place.num_bytes)
        return [replace(keyed, reports=tuple(records[p] for p in keyed.reports)) for keyed in keyed_rows]
