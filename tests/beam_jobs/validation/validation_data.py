"""A small dataset of records that are fit for training, and faults to plant in it."""

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
                row |= {"view_position": "PA", "sex": "MF"[number % 2], "age": int(level) - 41}
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
    write_manifest(directory, Manifest(kind, "x", size, table.name, table.fingerprint, len(table), splits))
    return directory


def of(rows: list[dict], split: str) -> list[dict]:
    return [row for row in rows if row["split"] == split]


def set_states(rows: list[dict], concept: int, state: LabelState) -> None:
    """Rows share their arrays with their sentences."""
    for row in rows:
        row["label_states"][concept] = state


def copy_field(rows, name, source, target):
    """Copies a field between two rows, each given as (split, number)."""
    (split, number), (other, other_number) = target, source
    of(rows, split)[number][name] = of(rows, other)[other_number][name]


def states_to(rows, state, *concepts):
    for concept in concepts:
        set_states(rows, concept, state)


def darken(rows, factor):
    for row in rows:
        row["image"] = row["image"] // factor


def truncate(rows):
    for one in (one for row in rows for one in row["sentences"]):
        one["text"] = " ".join(one["text"].split()[:2])


def set_view(rows, view=None):
    row = of(rows, "valid")[0]
    row["view"] = view or row["patient_id"]


SILENT = LabelState.NOT_MENTIONED
# (change of the rows, kind of the records, argument, anomalies: name and feature)
FAULTS = {
    "a patient in two splits": (
        lambda rows: copy_field(rows, "patient_id", ("train", 0), ("test", 0)), "images", "",
        {("patient_in_two_splits", "patient_id")},
    ),
    "one picture in two splits": (
        lambda rows: copy_field(rows, "image", ("train", 5), ("valid", 3)), "images", "",
        {("image_in_two_splits", "image")},
    ),
    "a record key twice": (
        lambda rows: copy_field(rows, "record_key", ("train", 0), ("train", 1)), "reports", "",
        {("record_twice", "record_key")},
    ),
    "a record key in two splits": (
        lambda rows: copy_field(rows, "record_key", ("train", 0), ("test", 1)), "images", "",
        {("record_in_two_splits", "record_key")},
    ),
    "a label column empty in test": (
        lambda rows: states_to(of(rows, "test"), SILENT, 0), "images", "",
        {("skew", "label_states/0"), ("skew", "sentences/label_states/0")},
    ),
    "a label column empty, by the schema": (
        lambda rows: states_to(rows, SILENT, 0), "images", "schema", {("label_never_said", "label_states/0")},
    ),
    "no label at all": (
        lambda rows: states_to(rows, SILENT, *range(5)), "images", "", {("label_never_said", "label_states")},
    ),
    "label shares shifted from train to test": (
        lambda rows: states_to(of(rows, "test")[:100], LabelState.POSITIVE, 1), "images", "",
        {("skew", "label_states/1"), ("skew", "sentences/label_states/1")},
    ),
    "uncertain labels explode since the last run": (
        lambda rows: states_to([row for k, row in enumerate(rows) if k % 5], LabelState.UNCERTAIN, 2),
        "reports", "baseline", {("drift", "label_states/2"), ("drift", "sentences/label_states/2")},
    ),
    "black pictures": (
        lambda rows: darken(of(rows, "train")[:4], 255), "images", "", {("blank_image", "image")},
    ),
    "pictures of few bits in 16": (
        lambda rows: darken(of(rows, "train")[:4], 8), "images", "", {("nearly_black_image", "image")},
    ),
    "the test pictures are darkened": (
        lambda rows: darken(of(rows, "test"), 4), "images", "",
        {("skew", "image/brightness"), ("nearly_black_image", "image")},
    ),
    "an empty sentence": (
        lambda rows: of(rows, "train")[7]["sentences"][0].update(text="  "), "reports", "",
        {("empty_sentence", "sentences/text")},
    ),
    "truncated sentences": (
        lambda rows: truncate(of(rows, "test")), "reports", "", {("skew", "sentences/words")},
    ),
    "an unknown view": (
        lambda rows: set_view(rows, "oblique"), "images", "", {("unknown_value", "view")},
    ),
    "an identifier as view": (set_view, "images", "", {("unknown_value", "view")}),
    "a record in another split's shard": (
        lambda rows: of(rows, "test")[0].update(in_shard_of="train"), "images", "",
        {("unlike_shard", "split"), ("patient_in_two_splits", "patient_id")},
    ),
}  # fmt: skip


def cut_pixels(feature):
    feature["image"].bytes_list.value[0] = feature["image"].bytes_list.value[0][:-7]


def state_seven(feature):
    feature["label_states"].int64_list.value[0] = 7


def labels_as_text(feature):
    feature["label_states"].bytes_list.value[:] = [b"1"] * 5


EDITS = {
    "a picture cut short": (cut_pixels, {("wrong_shape", "image"), ("wrong_size", "image")}),
    "a label state that is none": (state_seven, {("out_of_range", "label_states")}),
    "a missing field": (lambda feature: feature.pop("patient_id"), {("missing_feature", "patient_id")}),
    "a field of another type": (labels_as_text, {("wrong_type", "label_states")}),
    "a field that nobody knows": (
        lambda feature: feature["height"].int64_list.value.append(50), {("new_feature", "height")},
    ),
}  # fmt: skip
