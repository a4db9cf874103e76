"""Small datasets on disk, for the tests that read records."""

import dataclasses

import numpy as np
import pytest

from medclip_keras.knowledge.concepts import Concept, ConceptTable
from medclip_keras.knowledge.states import LabelState
from medclip_keras.records.manifest import Manifest, write_manifest
from medclip_keras.records.schema import encode, features_of
from medclip_keras.records.shards import write_shard

IMAGE_SIZE = 16


@pytest.fixture(scope="session")
def small_table() -> ConceptTable:
    return ConceptTable(
        "small",
        (
            Concept("C0000001", "No Finding"),
            Concept("C0000002", "Lung Opacity"),
            Concept("C0000003", "Pneumonia", parents=("Lung Opacity",)),
        ),
    )


@pytest.fixture(scope="session")
def write_dataset(small_table):
    """A function that writes rows as a dataset: folder, kind, {split: rows} → its manifest."""

    def write(directory, kind, rows, *, num_shards=2, table=small_table, **fields) -> Manifest:
        directory.mkdir(parents=True)
        image_size = fields.pop("image_size", IMAGE_SIZE if kind == "images" else 0)
        features = features_of(kind, image_size, len(table))
        splits = {
            split: _write_split(directory, split, split_rows, features, num_shards)
            for split, split_rows in rows.items()
        }
        (directory / "concepts.jsonl").write_text(table.to_jsonl())
        manifest = Manifest(
            kind, "test", image_size, table.name, table.fingerprint, len(table), splits, **fields
        )
        write_manifest(directory, manifest)
        return manifest

    return write


@pytest.fixture(scope="session")
def image_row():
    """A function: number, states, sentences → an image record's fields; the pixels all are the number."""

    def row(number, states, sentences=(), image_size=IMAGE_SIZE):
        pixels = np.full((image_size, image_size, 1), number, np.uint8)
        return {**_shared(f"i{number}", states, sentences), "view": "", "image": pixels}

    return row


@pytest.fixture(scope="session")
def report_row():
    """A function: key, states, sentences → a report record's fields."""
    return _shared


def _shared(key, states, sentences=()):
    return {
        "record_key": key,
        "study_id": f"s-{key}",
        "patient_id": f"p-{key}",
        "split": "",
        "label_states": np.array(states, np.int8),
        "sentences": [
            {"text": text, "section": "findings", "label_states": np.array(own, np.int8)}
            for text, own in sentences
        ],
    }


def _write_split(directory, split, rows, features, num_shards):
    rows = [{**row, "split": split} for row in rows]
    sentences = [sentence for row in rows for sentence in row["sentences"]]
    shards = []
    for index in range(num_shards if rows else 0):
        name = f"test-{split}.tfrecord-{index:05d}-of-{num_shards:05d}"
        records = (encode(features, row) for row in rows[index::num_shards])
        shards.append(dataclasses.asdict(write_shard(directory, name, records)))
    return {
        "num_records": len(rows),
        "shards": shards,
        "positives": _positives(rows, features),
        "num_sentences": len(sentences),
        "sentence_positives": _positives(sentences, features),
    }


def _positives(rows, features):
    states = np.zeros((0, *features["label_states"].shape), np.int8)
    states = np.concatenate([states, *(row["label_states"][None] for row in rows)])
    return np.sum(states == LabelState.POSITIVE, axis=0).tolist()
