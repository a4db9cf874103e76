"""Validation of a SavedModel before it is served: equal answers, without this project's code."""

import subprocess
import sys
import tempfile
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from medclip_keras.errors import refusal, require
from medclip_keras.evaluation.prompts import shipped_prompts
from medclip_keras.serving import clean_process
from medclip_keras.serving.signatures import Endpoints

TOLERANCE = 1e-5  # of embeddings, whose entries are at most 1; of other outputs, per unit of their size
_NOT_PUSHED = "The SavedModel was not pushed."

Requests = dict[str, dict[str, tf.Tensor]]


class Validation(NamedTuple):
    """Answers of a SavedModel in a clean process, beside the model's."""

    difference: float  # largest
    milliseconds: dict[str, float]  # endpoint → median of one request of one row, after a first one


def validate(saved_model: str, endpoints: Endpoints, *, text_operations: bool = True) -> Validation:
    """Call every endpoint in a clean process; return the largest difference from the model in this process.

    `text_operations` is False for a SavedModel without those of tensorflow-text.

    Raises:
        ValueError: the SavedModel does not load or answer in the clean process, or its answers differ.
    """
    # Fresh functions: traced below, on the CPU; those traced for the export may place operations elsewhere.
    functions = Endpoints(endpoints.model, endpoints.tokenizer).functions(text_operations)
    requests = {name: request for name, request in make_requests(endpoints).items() if name in functions}
    answers = _call_in_clean_process(saved_model, requests, text_operations)
    largest, scale = 0.0, float(endpoints.model.logit_scale())
    for endpoint, function in functions.items():
        with tf.device("CPU:0"):  # as in the clean process
            answer = function(**requests[endpoint])
        for output, expected in answer.items():
            name, largest_value = f"{endpoint}/{output}", float(tf.reduce_max(tf.abs(expected)))
            unit = scale if output.startswith("logits") else max(1.0, largest_value)
            difference = _difference(expected.numpy(), answers[name]) / unit
            form = f"equal to the trained model's within {TOLERANCE}, and finite"
            require(difference <= TOLERANCE, name, form, difference, _NOT_PUSHED)
            largest = max(largest, difference)
    return Validation(largest, {})


def make_requests(endpoints: Endpoints) -> Requests:
    """A request for each endpoint: pictures of several sizes and formats, and shipped prompts."""
    files = tf.constant(_picture_files())
    texts = tf.constant([texts[n] for n, texts in enumerate(list(shipped_prompts().values())[:10])])
    side = endpoints.stored_image_size
    stored = np.random.default_rng(1).integers(0, 256, (3, side, side, 1), np.uint8)
    return {
        "encode_image": {"image_bytes": files},
        "encode_text": {"texts": texts},
        "encode_tokens": endpoints.tokenizer(texts),
        "zero_shot": {
            "image_bytes": files,
            "prompts": texts,
            "prompt_class": tf.constant(np.arange(len(texts)) % 3, tf.int32),
        },
        "encode_stored_images": {"stored_images": tf.constant(stored)},
    }


def _picture_files() -> list[bytes]:
    rng = np.random.default_rng(0)
    gray, colour = (rng.integers(0, 256, shape, np.uint8) for shape in ((61, 47, 1), (40, 90, 3)))
    deep = rng.integers(0, 1 << 16, (33, 50, 1), np.uint16)
    png, jpeg = tf.io.encode_png, tf.io.encode_jpeg
    return [file.numpy() for file in (png(gray), jpeg(colour), png(deep), jpeg(gray))]


def _call_in_clean_process(
    saved_model: str, requests: Requests, text_operations: bool
) -> dict[str, np.ndarray]:
    with tempfile.TemporaryDirectory() as folder:
        requests_path, answers_path = f"{folder}/requests.npz", f"{folder}/answers.npz"
        np.savez(requests_path, **{f"{e}/{k}": v.numpy() for e, r in requests.items() for k, v in r.items()})
        arguments = [str(saved_model), requests_path, answers_path, *["--text_operations"] * text_operations]
        command = [sys.executable, "-I", clean_process.__file__, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            form = "a SavedModel that loads and answers in a process without this project"
            raise refusal("saved_model", form, done.stderr.strip().splitlines()[-1:], _NOT_PUSHED)
        with np.load(answers_path) as answers:
            return dict(answers)


def _difference(expected: np.ndarray, answer: np.ndarray) -> float:
    """Largest absolute difference; infinite if shapes differ or a value is not finite."""
    if expected.shape != answer.shape or not np.isfinite(answer).all():
        return float("inf")
    return float(np.max(np.abs(expected - answer)))
