import shutil
import subprocess
import sys

import numpy as np
import pytest

from medclip_keras.serving import clean_process
from medclip_keras.serving.validate import TOLERANCE, validate


def test_saved_models_answer_in_a_process_without_this_project(tiny, saved_model, tokens_only):
    found = validate({saved_model: True, tokens_only: False}, tiny.endpoints)
    assert 0 <= found.difference <= TOLERANCE
    assert set(found.milliseconds) == set(tiny.endpoints.functions())
    assert min(found.milliseconds.values()) > 0


def test_tokens_only_answers_without_tensorflow_text(tiny, tokens_only):
    found = validate({tokens_only: False}, tiny.endpoints)
    assert 0 <= found.difference <= TOLERANCE
    assert found.milliseconds == {}


def test_text_operations_are_refused_for_servers_without_them(tiny, saved_model):
    sentence = r"`saved_model` must be a SavedModel that loads and answers .* not registered"
    with pytest.raises(ValueError, match=sentence):
        validate({saved_model: False}, tiny.endpoints)


def test_a_saved_model_of_other_weights_is_refused(tiny, saved_model):
    projection = tiny.model.text_encoder.projection.kernel
    before = projection.numpy()
    projection.assign(before * np.linspace(0.999, 1.001, before.shape[1]))
    try:
        with pytest.raises(ValueError, match=r"`encode_text/text_embeddings` must be equal .* not pushed"):
            validate({saved_model: True}, tiny.endpoints)
    finally:
        projection.assign(before)


def test_a_saved_model_that_does_not_load_is_refused(tiny, saved_model, tmp_path):
    broken = tmp_path / "1"
    shutil.copytree(saved_model, broken)
    (broken / "variables" / "variables.index").unlink()
    with pytest.raises(
        ValueError,
        match="`saved_model` must be a SavedModel that loads and answers in a process without this project",
    ):
        validate({str(broken): True}, tiny.endpoints)


def test_the_clean_process_refuses_this_project_and_unrequested_text_operations():
    code = f"""
import runpy
main = runpy.run_path({clean_process.__file__!r})["main"]
try:
    main("nowhere", "nowhere")
except FileNotFoundError:
    import PACKAGE
"""
    for package in ("medclip_keras.config", "pandas", "tensorflow_text"):
        command = [sys.executable, "-I", "-c", code.replace("PACKAGE", package)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode != 0
        assert f"{package.partition('.')[0]} must not be needed" in done.stderr
