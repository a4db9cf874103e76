"""Before a SavedModel is served: does it answer as the trained model does, without this project's code?"""

import base64
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import tensorflow as tf

from medclip_keras.errors import require
from medclip_keras.evaluation.shipped_prompts import SHIPPED_PROMPTS
from medclip_keras.serving import clean_process
from medclip_keras.serving.signatures import Endpoints

TOLERANCE = 1e-5  # of embeddings, whose entries are at most 1; of other outputs, per unit of their size

Requests = dict[str, dict[str, tf.Tensor]]


def validate(saved_model: str, endpoints: Endpoints, *, text_operations: bool = True) -> float:
    """Asks every endpoint in a clean process and compares with the model in this one.

    Args:
        saved_model: folder of the SavedModel.
        endpoints: of the model that was exported.
        text_operations: False: it must do without those of tensorflow-text.

    Returns:
        The largest difference found.

    Raises:
        ValueError: the SavedModel does not load or answer there, or answers otherwise.
    """
    functions = endpoints.functions(text_operations)
    requests = {name: request for name, request in make_requests(endpoints).items() if name in functions}
    answers = _ask_in_clean_process(saved_model, requests, text_operations)
    largest = 0.0
    scale = float(endpoints.model.logit_scale())
    for endpoint, function in functions.items():
        with tf.device("CPU:0"):  # as in the clean process
            answer = function(**requests[endpoint])
        for output, expected in answer.items():
            unit = scale if output.startswith("logits") else 1.0
            if output == "image_features":
                unit = max(1.0, float(tf.reduce_max(tf.abs(expected))))
            difference = _difference(expected.numpy(), answers[f"{endpoint}/{output}"]) / unit
            require(
                difference <= TOLERANCE,
                f"{endpoint}/{output}",
                f"equal to the trained model's within {TOLERANCE}, and finite",
                difference,
                "The SavedModel was not pushed.",
            )
            largest = max(largest, difference)
    return largest


def make_requests(endpoints: Endpoints) -> Requests:
    """Pictures of several sizes and formats, and the shipped prompts: a request for each endpoint."""
    files = tf.constant(_picture_files())
    texts = tf.constant([texts[n] for n, texts in enumerate(list(SHIPPED_PROMPTS.values())[:10])])
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
    files = [
        tf.io.encode_png(gray),
        tf.io.encode_jpeg(colour),
        tf.io.encode_png(deep),
        tf.io.encode_jpeg(gray),
    ]
    return [file.numpy() for file in files]


def _ask_in_clean_process(
    saved_model: str, requests: Requests, text_operations: bool
) -> dict[str, np.ndarray]:
    with tempfile.TemporaryDirectory() as folder:
        requests_path, answers_path = (
            pathlib.Path(folder, "requests.json"),
            pathlib.Path(folder, "answers.npz"),
        )
        requests_path.write_text(json.dumps(_to_json(requests)))
        command = [sys.executable, "-I", clean_process.__file__]
        command += [str(saved_model), str(requests_path), str(answers_path)]
        command += ["--text_operations"] if text_operations else []
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ValueError(
                "`saved_model` must load and answer in a process without this project. Received: "
                f"{done.stderr.strip().splitlines()[-1:]}. The SavedModel was not pushed."
            )
        with np.load(answers_path) as answers:
            return dict(answers)


def _to_json(requests: Requests) -> dict:
    def value(tensor: tf.Tensor) -> dict:
        array = tensor.numpy()
        if array.dtype == object:
            return {"base64": [base64.b64encode(item).decode() for item in array]}
        return {"dtype": str(array.dtype), "values": array.tolist()}

    return {
        endpoint: {name: value(tensor) for name, tensor in arguments.items()}
        for endpoint, arguments in requests.items()
    }


def _difference(expected: np.ndarray, answer: np.ndarray) -> float:
    """Largest absolute difference; infinite where shapes differ or a value is not finite."""
    if expected.shape != answer.shape or not np.isfinite(answer).all():
        return float("inf")
    return float(np.max(np.abs(expected - answer)))
