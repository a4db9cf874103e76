"""Join of images with the reports of their study: an index of places, which the step of a shard reads."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow as tf
from etils import epath

from beam_jobs.dataset.sharding import KeyedRow
from medclip_keras.records.shards import read_records, salted_hash

# Of a report record: the first 64 bits of a hash of its study, and its place in its shard.
_PLACE = np.dtype([("study", np.uint64), ("offset", np.uint64), ("num_bytes", np.uint32)])


def read_places(pipeline: beam.Pipeline, directory: str, shard_names: Iterable[str]) -> beam.PCollection:
    """Add to a pipeline: (shard, its `places_of`) of all shards of report records; 20 bytes per record."""
    paths = [str(epath.Path(directory) / name) for name in shard_names]
    shards = pipeline | "ReportShards" >> beam.Create(paths)
    return shards | "ReportPlaces" >> beam.Map(lambda path: (os.path.basename(path), places_of(path)))


def places_of(path: str) -> bytes:
    """Places of a shard's records, as an array of `_PLACE`."""
    places = [(_hash(study_of(record)), offset, len(record)) for offset, record in read_records(path)]
    return np.array(places, _PLACE).tobytes()


def study_of(serialized: bytes) -> str:
    """Study of a serialized record."""
    example = tf.train.Example.FromString(serialized)
    return example.features.feature["study_id"].bytes_list.value[0].decode()


def _hash(study_id: str) -> int:
    return int(salted_hash("", "study", study_id), 16)


class FetchReports:
    """Put the report records of a dataset into the rows of a shard."""

    def __init__(self, directory: str):
        self._directory = epath.Path(directory)

    def __call__(
        self, keyed_rows: list[KeyedRow[Any]], places: Sequence[tuple[str, bytes]]
    ) -> list[KeyedRow[Any]]:
        """Rows with the serialized reports of their studies.

        Every file is opened once and read in its order: on a bucket, an open per record would take minutes.
        `places` are those of all reports, from `read_places`.
        """
        wanted = np.unique(np.array([_hash(keyed.study_id) for keyed in keyed_rows], np.uint64))
        reports: dict[str, list[bytes]] = {}
        for shard, packed in sorted(places):
            of_shard = np.frombuffer(packed, _PLACE)
            found = of_shard[np.isin(of_shard["study"], wanted)]
            if len(found):
                self._read(shard, found, reports)
        return [replace(keyed, reports=tuple(reports.get(keyed.study_id, ()))) for keyed in keyed_rows]

    def _read(self, shard: str, places: np.ndarray, reports: dict[str, list[bytes]]) -> None:
        with (self._directory / shard).open("rb") as file:
            for place in places:
                file.seek(int(place["offset"]))
                record = file.read(int(place["num_bytes"]))
                reports.setdefault(study_of(record), []).append(record)
