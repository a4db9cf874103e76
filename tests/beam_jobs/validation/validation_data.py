"""A small dataset of records that are fit to be trained on, and what spoils it."""

import collections
import copy
import pathlib

import numpy as np
import tensorflow as tf

from medclip_keras.knowledge.states import LabelState
from medclip_keras.records.manifest import CONCEPTS_NAME, Manifest, write_manifest
from medclip_keras.records.schema import encode, features_of
from medclip_keras.records.shards import Shard, salted_hash, write_shard

SIZE = 16
NUM_PATIENTS = {"train": 90, "valid": 40, "test": 60}
SECRET = "zyzzyva"  # a word of the report text, which no output may hold


def clean_rows(kind: str, num_findings: int, size: int = SIZE, seed: int = 0) -> list[dict]:
    """Two records a patient; every split is drawn from one distribution."""
    rng = np.random.default_rng(seed)
    rows = []
    for split, num_patients in NUM_PATIENTS.items():
        for number in range(2 * num_patients):
            states = rng.choice(4, num_findings, p=(0.3, 0.35, 0.25, 0.1)).astype(np.int8)
            row = {
                "record_key": salted_hash("", "record", f"{split}{number}"),
                "study_id": f"study-{split}-{number}",
                "patient_id": f"patient-{split}-{number // 2}",
                "split": split,
                "label_states": states,
                "sentences": [sentence(rng, states) for _ in range(rng.integers(1, 5))],
            }
            if kind == "images":
                level = int(rng.integers(40, 120))
                row["image"] = rng.integers(level, level + 90, (size, size, 1)).astype(np.uint8)
                row["view"] = str(rng.choice(["frontal", "lateral"], p=(0.8, 0.2)))
            rows.append(row)
    return rows


def sentence(rng: np.random.Generator, states: np.ndarray) -> dict:
    words = [SECRET] * int(rng.integers(4, 12))
    return {"text": " ".join(words), "section": "findings", "label_states": states}


def write_records(directory: pathlib.Path, kind: str, rows: list[dict], table, edit=None) -> pathlib.Path:
    """Writes rows as a dataset, two shards a split.

    Args:
        directory: to write to.
        kind: "images" or "reports".
        rows: of `clean_rows`; `in_shard_of` names another split than the row's own.
        table: concepts.
        edit: changes the `tf.train.Example` of a record in place: what the jobs themselves cannot write.
    """
    directory.mkdir(parents=True)
    size = rows[0]["image"].shape[0] if kind == "images" else 0
    features = features_of(kind, size, len(table))
    shards = collections.defaultdict(list)
    for number, row in enumerate(rows):
        row = copy.copy(row)
        split = row.pop("in_shard_of", row["split"])
        example = tf.train.Example.FromString(encode(features, row))
        if edit is not None:
            edit(row, example.features.feature)
        shards[split, number % 2].append(example.SerializeToString(deterministic=True))
    splits = {}
    for split in NUM_PATIENTS:
        files = [write_shard(directory, Shard(split, k, 2).file_name("x"), shards[split, k]) for k in (0, 1)]
        splits[split] = {
            "num_records": sum(file.num_records for file in files),
            "shards": [vars(file) for file in files],
            "positives": [0] * len(table),
            "num_sentences": sum(len(row["sentences"]) for row in rows if row["split"] == split),
            "sentence_positives": [0] * len(table),
        }
    (directory / CONCEPTS_NAME).write_text(table.to_jsonl())
    write_manifest(
        directory,
        Manifest(kind, "x", size, table.name, table.fingerprint, len(table), splits),
    )
    return directory


def of(rows: list[dict], split: str) -> list[dict]:
    return [row for row in rows if row["split"] == split]


def set_states(rows: list[dict], concept: int, state: LabelState) -> None:
    """Rows share their arrays with their sentences."""
    for row in rows:
        row["label_states"][concept] = state
