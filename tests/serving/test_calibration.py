import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from scipy.special import expit, softmax

from medclip_keras.config import EvaluationConfig
from medclip_keras.evaluation.prompts import finding_prompts, prompts_made_from
from medclip_keras.serving.calibration import Calibration, find_calibration
from medclip_keras.serving.signatures import Endpoints

SINGLE = EvaluationConfig(findings=("Edema", "Cardiomegaly"), task="single_finding")
MULTI = dataclasses.replace(SINGLE, task="multi_label")
TEMPERATURE = {"all classes": {"error_before": 0.2, "error_after": 0.1, "temperature": 4.0}}
PLATT = {
    "all classes": {},
    "Edema": {"slope": 2.0, "offset": -1.0},
    "Cardiomegaly": {"slope": 0.5, "offset": 3.0},
}


def metrics_of(evaluation, **tables):
    prompts = prompts_made_from(evaluation.prompts, finding_prompts(evaluation))
    return {
        "evaluation": {"task": evaluation.task, "findings": list(evaluation.findings)},
        "data_sets": {name: dict(prompts) for name in tables},
        "data": {name: {"trust": {"calibration": table}} for name, table in tables.items()},
    }


def test_the_temperature_of_one_data_set_is_found():
    found = find_calibration(metrics_of(SINGLE, phantom=TEMPERATURE), SINGLE)
    assert found == Calibration("phantom", True, (0.25, 0.25), (0.0, 0.0))
    scores = np.array([[1.0, 3.0], [-2.0, 2.0]], np.float32)
    np.testing.assert_allclose(found(tf.constant(scores)), softmax(scores / 4, axis=1), atol=1e-6)


def test_platts_numbers_are_found_in_the_order_of_the_classes():
    found = find_calibration(metrics_of(MULTI, phantom=PLATT), MULTI)
    scores = np.array([[1.0, 3.0], [-2.0, 2.0]], np.float32)
    expected = expit(scores * [2, 0.5] + [-1, 3])
    np.testing.assert_allclose(found(tf.constant(scores)), expected, atol=1e-6)


def without_a_class(metrics):
    del metrics["data"]["phantom"]["trust"]["calibration"]["Edema"]


def other_prompts(metrics):
    metrics["data_sets"]["phantom"]["prompts_sha256"] = "0"


def other_findings(metrics):
    metrics["evaluation"]["findings"].reverse()


def no_trust(metrics):
    del metrics["data"]["phantom"]["trust"]


@pytest.mark.parametrize("change", [without_a_class, other_prompts, other_findings, no_trust])
def test_a_calibration_of_other_classes_or_prompts_is_left_out(change):
    metrics = metrics_of(MULTI, phantom=PLATT | {})
    change(metrics)
    assert find_calibration(metrics, MULTI) is None


def test_several_data_sets_leave_the_choice_open():
    assert find_calibration(metrics_of(MULTI, phantom=PLATT, openi=PLATT), MULTI) is None


def test_the_endpoint_has_probabilities_if_calibrated(tiny):
    picture = tf.io.encode_png(np.arange(48, dtype=np.uint8).reshape(8, 6, 1)).numpy()
    files = tf.constant([picture, b"no picture"])
    count = len(tiny.config.evaluation.findings)
    calibration = Calibration("phantom", True, (2.0,) * count, (0.0,) * count)
    endpoints = Endpoints(tiny.model, tiny.tokenizer, calibration=calibration)
    for one in (endpoints, endpoints.untraced()):
        found = one.zero_shot(files)
        expected = softmax(2 * found["scores"].numpy()[0])
        np.testing.assert_allclose(found["probabilities"][0], expected, atol=1e-6)
        assert (found["probabilities"][1] == tf.float32.min).numpy().all()
    assert "probabilities" not in tiny.endpoints.zero_shot(files)
