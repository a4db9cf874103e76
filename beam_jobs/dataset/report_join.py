"""Join of images with the reports of their study: an index of places, which the step of a shard reads.

A study is known by its patient and its identifier: numbers of studies may begin anew for each patient. All
images and reports of a patient are in one split, or the job stops: else a tested image's report would train.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow as tf
from etils import epath

from beam_jobs.dataset.sharding import KeyedRow
from medclip_keras.errors import require
from medclip_keras.records.shards import read_records, salted_hash, shard_of_file

Study = tuple[str, str]  # patient and study of a record

# Of a report record: the first 64 bits of hashes of its study and its patient, and its place in its shard.
_PLACE = np.dtype(
    [("study", np.uint64), ("patient", np.uint64), ("offset", np.uint64), ("num_bytes", np.uint32)]
)


def read_places(pipeline: beam.Pipeline, directory: str, shard_names: Iterable[str]) -> beam.PCollection:
    """Add to a pipeline: (shard, its `places_of`) of all shards of report records; 28 bytes per record."""
    paths = [str(epath.Path(directory) / name) for name in shard_names]
    shards = pipeline | "ReportShards" >> beam.Create(paths)
    return shards | "ReportPlaces" >> beam.Map(lambda path: (os.path.basename(path), places_of(path)))


def places_of(path: str) -> bytes:
    """Places of a shard's records, as an array of `_PLACE`."""
    places = [
        (_hash_of_study(study), _hash_of_patient(study[0]), offset, len(record))
        for offset, record in read_records(path)
        for study in (study_of(record),)
    ]
    return np.array(places, _PLACE).tobytes()


def study_of(serialized: bytes) -> Study:
    """Patient and study of a serialized record."""
    features = tf.train.Example.FromString(serialized).features.feature
    patient, study = (features[name].bytes_list.value[0].decode() for name in ("patient_id", "study_id"))
    return patient, study


def _hash_of_study(study: Study) -> int:
    return int(salted_hash("", "study", "\0".join(study)), 16)


def _hash_of_patient(patient: str) -> int:
    return int(salted_hash("", "patient", patient), 16)


class FetchReports:
    """Put the report records of a dataset into the rows of a shard.

    Args:
        directory: of the report records.
        own_splits: whether the images have splits of their own, those of an evaluation set.
    """

    def __init__(self, directory: str, own_splits: bool = False):
        self._directory, self._own_splits = epath.Path(directory), own_splits

    def __call__(
        self, keyed_rows: list[KeyedRow[Any]], places: Sequence[tuple[str, bytes]]
    ) -> list[KeyedRow[Any]]:
        """Rows with the serialized reports of their studies.

        Every file is opened once and read in its order: on a bucket, an open per record would take minutes.
        `places` are those of all reports, from `read_places`.

        Raises:
            ValueError: a patient's reports are in another split.
        """
        studies = {(keyed.patient_id, keyed.study_id) for keyed in keyed_rows}
        wanted = np.array(sorted(map(_hash_of_study, studies)), np.uint64)
        patients = np.array(sorted({_hash_of_patient(patient) for patient, _ in studies}), np.uint64)
        reports: dict[Study, list[bytes]] = {}
        for shard, packed in sorted(places):
            of_shard = np.frombuffer(packed, _PLACE)
            if keyed_rows and not self._own_splits:
                _require_split(patients, keyed_rows[0].split, of_shard["patient"], shard)
            found = of_shard[np.isin(of_shard["study"], wanted)]
            if len(found):
                self._read(shard, found, reports)
        return [
            replace(keyed, reports=tuple(reports.get((keyed.patient_id, keyed.study_id), ())))
            for keyed in keyed_rows
        ]

    def _read(self, shard: str, places: np.ndarray, reports: dict[Study, list[bytes]]) -> None:
        with (self._directory / shard).open("rb") as file:
            for place in places:
                file.seek(int(place["offset"]))
                record = file.read(int(place["num_bytes"]))
                reports.setdefault(study_of(record), []).append(record)


def _require_split(patients: np.ndarray, split: str, of_reports: np.ndarray, shard: str) -> None:
    """Refuse patients of images in a split with reports in a shard of another one."""
    other = shard_of_file(shard)
    if other is None or other.split == split:
        return
    apart = int(np.isin(patients, of_reports).sum())
    received = f"{apart} patients with images in {split} and reports in {other.split}"
    advice = "Give images and reports the same splits, in a column split of both tables, and label again."
    require(not apart, "split", "the same for all images and reports of a patient", received, advice)
