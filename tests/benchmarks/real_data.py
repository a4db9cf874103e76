"""Records of the real archives as arrays, and their features of frozen pretrained towers, each made once."""

import dataclasses
import functools
import json
import pathlib

import numpy as np
import tensorflow as tf

from beam_jobs import decode_images, label_reports
from medclip_keras.config import DataConfig, ImageEncoderConfig, ModelConfig, RunConfig
from medclip_keras.evaluation.prompts import ABNORMAL
from medclip_keras.knowledge.concepts import NO_FINDING, load_table
from medclip_keras.knowledge.states import LabelState
from medclip_keras.provenance import sha256_of
from medclip_keras.records.batches import evaluation_images, evaluation_sentences
from medclip_keras.records.manifest import read_manifest
from medclip_keras.records.shards import salted_hash

CONCEPTS, SIDE, NUM_FOLDS, MAX_TOKENS = "chest21", 224, 5, 48
IMAGES = {  # name → source and folder
    "nih_64px": ("nih_chestxray14", "nih_chestxray14"),
    "nih_256px": ("nih_chestxray14", "nih_chestxray14_256px"),
    "kermany": ("kermany", "kermany_pneumonia"),
    "covid": ("covid", "covid_hannover"),
}
CLASSES = {  # the folders whose patients are tested, and their classes
    "nih_256px": (ABNORMAL, "Pleural Effusion", "Infiltration", "Atelectasis", "Edema", "Pneumonia"),
    "nih_64px": (ABNORMAL, "Pleural Effusion", "Cardiomegaly", "Infiltration", "Atelectasis"),
}
KEY_SALT = "medclip_keras"  # public images; one salt, so that both NIH folders name a patient alike
NAMES = load_table(CONCEPTS).names


def fold_of(patient_id: str) -> int:
    """Fold of a patient, whichever folder holds the image."""
    return int(salted_hash("real_benchmark", "fold", patient_id), 16) % NUM_FOLDS


@dataclasses.dataclass(frozen=True)
class Images:
    """An archive's images."""

    pixels: np.ndarray  # (N, SIDE, SIDE, 1) uint8
    states: np.ndarray  # (N, num_findings) int8, of LabelState
    patients: np.ndarray  # (N,) str
    fingerprint: str  # of the records

    @functools.cached_property
    def folds(self) -> np.ndarray:
        """(N,) int."""
        return np.array([fold_of(patient) for patient in self.patients])


@dataclasses.dataclass(frozen=True)
class Sentences:
    """Sentences of reports."""

    texts: tuple[str, ...]
    states: np.ndarray  # (N, num_findings) int8
    reports: np.ndarray  # (N,) str, record keys
    fingerprint: str


def _config(stored_image_size: int = SIDE, **data) -> RunConfig:
    settings = DataConfig(concepts=CONCEPTS, stored_image_size=stored_image_size, **data)
    image = ImageEncoderConfig(image_size=stored_image_size)
    return RunConfig("benchmark", data=settings, model=ModelConfig(image=image))


def _joined(batches, names) -> list[np.ndarray]:
    rows = list(batches.as_numpy_iterator())
    return [np.concatenate([row[name] for row in rows]) for name in names]


def image_records(name: str, data: pathlib.Path, workdir: pathlib.Path, side: int = SIDE) -> str:
    """The folder of an archive's records, of `IMAGES`, which are made unless they exist."""
    source, folder = IMAGES[name]
    output = str(workdir / "records" / (name if side == SIDE else f"{name}-{side}"))
    decode_images.run(
        source=source,
        input=str(data / folder),
        output=output,
        image_size=side,
        concepts=CONCEPTS,
        key_salt=KEY_SALT,
        split_fractions=(1.0, 0.0, 0.0),
    )
    return output


def read_images(name: str, data: pathlib.Path, workdir: pathlib.Path, side: int = SIDE) -> Images:
    """The records of an archive of `IMAGES`; their order is the same for every side."""
    output = image_records(name, data, workdir, side)
    batches = evaluation_images(_config(images=(output,), stored_image_size=side), "train")
    pixels, states, patients = _joined(batches, ("images", "label_states", "patient_id"))
    return Images(pixels, states, patients.astype(str), read_manifest(output).fingerprint)


def report_records(data: pathlib.Path, workdir: pathlib.Path) -> str:
    """The folder of the records of Open-i's reports, which are labelled unless that is done."""
    output = str(workdir / "records" / "openi")
    reports = str(data / "openi" / "NLMCXR_reports_dev.tgz")
    label_reports.run(
        source="openi", input=reports, output=output, concepts=CONCEPTS, split_fractions=(1.0, 0.0, 0.0)
    )
    return output


def read_sentences(data: pathlib.Path, workdir: pathlib.Path) -> Sentences:
    """The sentences of Open-i's reports."""
    output = report_records(data, workdir)
    batches = evaluation_sentences(_config(images=(), texts=(output,)), "train")
    texts, states, keys = _joined(batches, ("text", "label_states", "record_key"))
    texts = tuple(text.decode() for text in texts)
    return Sentences(texts, states, keys.astype(str), read_manifest(output).fingerprint)


def labels_of(images: Images, classes) -> np.ndarray:
    """(N, num_classes) bool: Abnormal is the complement of No Finding."""
    positive = images.states == LabelState.POSITIVE
    columns = [positive[:, NAMES.index(NO_FINDING if name == ABNORMAL else name)] for name in classes]
    return np.stack([~c if n == ABNORMAL else c for n, c in zip(classes, columns, strict=True)], axis=1)


def _cached(path: pathlib.Path, made_from: dict, make) -> np.ndarray:
    """The array of a file whose name holds the hash of what it was made from."""
    file = path / f"{sha256_of(made_from)[:16]}.npy"
    if not file.exists():
        path.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_suffix(".unfinished.npy")
        np.save(unfinished, make())
        unfinished.replace(file)
        file.with_suffix(".json").write_text(json.dumps(made_from, indent=1) + "\n")
    return np.load(file)


@functools.cache
def _image_tower(preset: str):
    import keras

    from medclip_keras.config import ImageEncoderConfig
    from medclip_keras.models.image_encoder import build_backbone

    keras.utils.set_random_seed(0)
    backbone = "efficientnet_lite0"
    preset = preset if preset != "random" else ""
    return build_backbone(ImageEncoderConfig(backbone=backbone, preset=preset, image_size=SIDE))


def image_features(images: Images, preset: str, workdir: pathlib.Path) -> np.ndarray:
    """Mean, then maximum, over space of a frozen tower's last map, (N, 2 * channels) float32.

    `preset` is "efficientnet_lite0", or "random": the same network with random weights.
    """
    from medclip_keras.models.image_encoder import renormalise
    from medclip_keras.preprocess.images import for_evaluation

    def make() -> np.ndarray:
        tower = _image_tower(preset)

        @tf.function(jit_compile=False)
        def encode(pixels):
            maps = tower(renormalise(for_evaluation(pixels, SIDE), "half"), training=False)  # (B, h, w, C)
            return tf.concat([tf.reduce_mean(maps, (1, 2)), tf.reduce_max(maps, (1, 2))], axis=1)

        batches = [images.pixels[start : start + 32] for start in range(0, len(images.pixels), 32)]
        return np.concatenate([encode(tf.constant(batch)).numpy() for batch in batches])

    return _cached(workdir / "features", {"records": images.fingerprint, "tower": preset, "side": SIDE}, make)


@functools.cache
def _text_tower(preset: str):
    import keras
    import keras_hub

    from medclip_keras.config import TextEncoderConfig
    from medclip_keras.models.packages import unpacked
    from medclip_keras.models.text_encoder import build_backbone
    from medclip_keras.preprocess.text import Tokenizer, find_vocabulary, read_vocabulary

    with unpacked("minilm") as folder:
        pieces = read_vocabulary(find_vocabulary(folder))
    tokenizer = Tokenizer(pieces, lower_case=True, max_tokens=MAX_TOKENS)
    keras.utils.set_random_seed(0)
    if preset != "random":
        return build_backbone(TextEncoderConfig(preset=preset), len(pieces), MAX_TOKENS), tokenizer
    tower = keras_hub.models.BertBackbone(
        len(pieces),
        num_layers=6,
        num_heads=12,
        hidden_dim=384,
        intermediate_dim=1536,
        max_sequence_length=512,
    )
    return tower, tokenizer


def text_features(texts, preset: str, workdir: pathlib.Path) -> np.ndarray:
    """Mean over the tokens of a frozen tower's last state, (N, 384) float32; "minilm" or "random"."""

    def make() -> np.ndarray:
        tower, tokenizer = _text_tower(preset)

        @tf.function
        def encode(batch):
            tokens = tokenizer(batch)
            longest = tf.reduce_max(tf.reduce_sum(tokens["padding_mask"], axis=1))
            tokens = {name: value[:, :longest] for name, value in tokens.items()}
            segments = tf.zeros_like(tokens["token_ids"])
            states = tower({**tokens, "segment_ids": segments}, training=False)["sequence_output"]
            mask = tf.cast(tokens["padding_mask"], tf.float32)[..., None]  # (B, T, 1)
            return tf.reduce_sum(states * mask, axis=1) / tf.reduce_sum(mask, axis=1)

        order = sorted(range(len(texts)), key=lambda k: len(texts[k]))  # batches of like lengths
        features = np.zeros((len(texts), 384), np.float32)
        for start in range(0, len(order), 64):
            rows = order[start : start + 64]
            features[rows] = encode(tf.constant([texts[k] for k in rows])).numpy()
        return features

    return _cached(workdir / "features", {"texts": sha256_of(list(texts)), "tower": preset}, make)
