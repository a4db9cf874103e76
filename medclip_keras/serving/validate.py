"""Validation of a SavedModel before it is served: equal answers, without this project's code."""

import itertools
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from medclip_keras.errors import refusal, require
from medclip_keras.serving import clean_process
from medclip_keras.serving.clean_process import TEXT_OPERATIONS, TIMED
from medclip_keras.serving.requests import Requests, make_requests, warmup_requests
from medclip_keras.serving.signatures import NO_SCORE, Endpoints

TOLERANCE = 1e-5  # of embeddings, whose entries are at most 1; of other outputs, per unit of their size
_RANKED = ("sentences", "positions")  # of retrieve: neighbours of equal similarity may change places
_NOT_PUSHED = "The SavedModel was not pushed."


class Validation(NamedTuple):
    """Answers of SavedModels in a clean process, next to the trained model's."""

    difference: float  # largest
    milliseconds: dict[str, float]  # endpoint → median of one request of one row, after a first one


def validate(saved_models: Mapping[str, bool], endpoints: Endpoints) -> Validation:
    """Call every endpoint in one clean process, compare with the model in this process, and take the time.

    Args:
        saved_models: folder → whether it may need the operations of tensorflow-text. Only the endpoints of
            those that may are timed.
        endpoints: of the trained model, not those that were exported: their functions are traced here, on the
            CPU; those of an export may place operations elsewhere.

    Raises:
        ValueError: a SavedModel does not load or answer in the clean process, or its answers differ.
    """
    saved_models = dict(sorted(saved_models.items(), key=lambda item: item[1]))  # as the process takes them
    of_all, warmup = make_requests(endpoints), warmup_requests(endpoints)
    requests: Requests = {}
    for number, text_operations in enumerate(saved_models.values()):
        for name in endpoints.functions(text_operations):
            requests[f"{number}/{name}"] = of_all[name]
            if text_operations:
                requests[f"{number}/{TIMED}{name}"] = warmup[name]
    answers = _call_in_clean_process(saved_models, requests)
    largest, units = 0.0, _units(endpoints)
    for endpoint, function in endpoints.functions(any(saved_models.values())).items():
        with tf.device("CPU:0"):  # as in the clean process
            answer = function(**{name: tf.constant(value) for name, value in of_all[endpoint].items()})
        expected = {output: value.numpy() for output, value in answer.items()}
        for number, output in itertools.product(range(len(saved_models)), expected):
            if f"{number}/{endpoint}" not in requests:
                continue
            name, unit = f"{endpoint}/{output}", units.get(output, 1.0)
            free = _may_change_places(expected["similarities"]) if output in _RANKED else False
            difference = _difference(expected[output], answers[f"{number}/{name}"], unit, free)
            form = f"equal to the trained model's within {TOLERANCE}, and finite"
            require(difference <= TOLERANCE, name, form, difference, _NOT_PUSHED)
            largest = max(largest, difference)
    timed = {name.partition(TIMED)[2]: name for name in requests if TIMED in name}
    return Validation(largest, {e: float(answers[f"{name}/milliseconds"]) for e, name in timed.items()})


def _units(endpoints: Endpoints) -> dict[str, float]:
    """Output → how much it changes with a cosine; others are 1."""
    scale = float(endpoints.model.logit_scale())
    slopes = endpoints.calibration.slopes if endpoints.calibration else ()
    units = dict.fromkeys(("logits_single", "logits_ensemble", "scores"), scale)
    return units | {"probabilities": max(1.0, *(abs(slope) * scale for slope in slopes))} if slopes else units


def _call_in_clean_process(saved_models: Mapping[str, bool], requests: Requests) -> dict[str, np.ndarray]:
    """Answers to requests "number/endpoint", by "number/endpoint/output"."""
    with tempfile.TemporaryDirectory() as folder:
        requests_path, answers_path = f"{folder}/requests.npz", f"{folder}/answers.npz"
        np.savez(requests_path, **{f"{e}/{k}": v for e, r in requests.items() for k, v in r.items()})
        plain = [str(path) for path, text_operations in saved_models.items() if not text_operations]
        others = [str(path) for path, text_operations in saved_models.items() if text_operations]
        command = [sys.executable, "-I", clean_process.__file__, requests_path, answers_path, *plain]
        command += [TEXT_OPERATIONS, *others] if others else []
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            form = "a SavedModel that loads and answers in a process without this project"
            raise refusal("saved_model", form, done.stderr.strip().splitlines()[-1:], _NOT_PUSHED)
        with np.load(answers_path) as answers:
            return dict(answers)


def _difference(
    expected: np.ndarray, answer: np.ndarray, unit: float = 1.0, free: np.ndarray | bool = False
) -> float:
    """Largest difference, in `unit` or the largest value, if that is more; infinite if another type or shape.

    The least float32 marks what has no answer; it must stand in the same places. Texts and whole numbers must
    be equal, except where `free`.
    """
    if expected.shape != answer.shape or expected.dtype.kind not in (answer.dtype.kind, "O"):
        return float("inf")
    if expected.dtype != np.float32:
        return 0.0 if np.all((expected == answer) | free) else float("inf")
    there = expected != NO_SCORE
    if not np.array_equal(there, answer != NO_SCORE) or not np.isfinite(answer).all():
        return float("inf")
    unit = max(unit, float(np.max(np.abs(expected[there]), initial=0.0)))
    return float(np.max(np.abs(expected - answer)[there], initial=0.0)) / unit


def _may_change_places(similarities: np.ndarray) -> np.ndarray:
    """Ranks (B, K) whose similarity is a neighbour's within the tolerance; the last one's is not known."""
    close = np.abs(np.diff(similarities, axis=1)) <= TOLERANCE
    return np.pad(close, [(0, 0), (1, 0)]) | np.pad(close, [(0, 0), (0, 1)], constant_values=True)
