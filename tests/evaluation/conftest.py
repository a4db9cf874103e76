"""Data with known answers: pixels that encode their findings, an embedder that reads them, a random one."""

import types
import zlib

import numpy as np
import pytest

from medclip_keras.config import EvaluationConfig
from medclip_keras.evaluation.evaluator import evaluate

NAMES = ("No Finding", "Cardiomegaly", "Edema", "Pleural Effusion", "Hernia", "Mass")
FINDINGS = ("Edema", "Cardiomegaly", "Pleural Effusion")
STEMS = {"cardi": 1, "heart": 1, "edema": 2, "effusion": 3, "pleural": 3, "hernia": 4, "mass": 5}


class OracleEmbedder:
    """Embeds the findings that the pixels encode and the text names."""

    logit_scale = 10.0

    def embed_images(self, images):
        return _unit(images.reshape(len(images), -1)[:, : len(NAMES)].astype(np.float32) + 1e-3)

    def embed_features(self, images):
        return 7 * self.embed_images(images)

    def embed_texts(self, texts):
        hits = np.full((len(texts), len(NAMES)), 1e-3, np.float32)
        for row, text in enumerate(texts):
            found = {k for stem, k in STEMS.items() if stem in text.lower()}
            hits[row, list(found) or [0]] = 1
        return _unit(hits)


class BlindEmbedder:
    """Random directions, equal for equal inputs, as of an untrained model."""

    logit_scale = 14.3

    def __init__(self, seed=0):
        self.seed = seed

    def embed_images(self, images):
        return self._directions([image.tobytes() for image in images])

    def embed_features(self, images):
        return 7 * self.embed_images(images)

    def embed_texts(self, texts):
        return self._directions([text.encode() for text in texts])

    def _directions(self, contents):
        draws = [np.random.default_rng([self.seed, zlib.crc32(c)]).normal(size=8) for c in contents]
        return _unit(np.array(draws, np.float32))


def _unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def image_batches(num_images=240, seed=0, batch_size=50):
    """Two images a patient, none to three findings each; a list, so that it can be read twice."""
    rng = np.random.default_rng(seed)
    states = np.where(rng.random((num_images, len(NAMES))) < 0.25, 1, 2).astype(np.int8)
    states[:, 0] = np.where((states[:, 1:] == 1).any(axis=1), 2, 1)
    images = rng.integers(0, 3, (num_images, 8, 8, 1)).astype(np.uint8)  # noise, distinct images
    flat = images.reshape(num_images, -1)
    flat[:, : len(NAMES)] = 250 * (states == 1)
    rows = {
        "record_key": np.array([f"{rng.integers(1 << 60):015x}".encode() for _ in range(num_images)], object),
        "patient_id": np.array([f"patient{i // 2}".encode() for i in range(num_images)], object),
        "images": images,
        "label_states": states,
    }
    return [
        {name: values[i : i + batch_size] for name, values in rows.items()}
        for i in range(0, num_images, batch_size)
    ]


def sentence_batches(per_finding=30):
    """Sentences that state one finding each, of all six concepts, repeated in other letters."""
    words = {1: "The heart is large", 2: "There is edema", 3: "A pleural effusion", 4: "Hernia", 5: "A mass"}
    rows = [
        (zlib.crc32(sentence.encode()), sentence, k)
        for k, text in words.items()
        for n in range(per_finding)
        for sentence in (f"{text}, seen {n} times.", f"{text.upper()},  seen {n} times")
    ]
    keys, texts, classes = zip(*rows, strict=True)
    return [
        {
            "record_key": np.array([f"{key:010d}".encode() for key in keys], object),
            "text": np.array([text.encode() for text in texts], object),
            "label_states": np.eye(len(NAMES), dtype=np.int8)[list(classes)],
        }
    ]


def evaluate_world(config, batches=None, sentences=None, embedder=None, **options):
    """Evaluate one data set of the small world, by default the oracle on images and sentences."""
    images = {"world": image_batches() if batches is None else batches}
    sentences = sentence_batches() if sentences is None else sentences
    return evaluate(embedder or OracleEmbedder(), images, sentences, config, NAMES, **options)["world"]


@pytest.fixture(scope="session")
def world():
    """Concept names, findings, embedders, batches and evaluation of the small world."""
    return types.SimpleNamespace(
        names=NAMES,
        findings=FINDINGS,
        oracle=OracleEmbedder(),
        blind=BlindEmbedder(),
        image_batches=image_batches,
        sentence_batches=sentence_batches,
        evaluate=evaluate_world,
    )


@pytest.fixture(scope="session")
def config():
    return EvaluationConfig(findings=FINDINGS, bootstrap=200, tasks=("zero_shot", "retrieval"))


@pytest.fixture(scope="session")
def measured(world, config):
    """The oracle's and the blind model's result on the small world."""
    return evaluate_world(config, untrained=world.blind)
