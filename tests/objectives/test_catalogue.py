"""The catalogue of objectives: functions by name, and no Keras for those who only read the rows."""

import subprocess
import sys

import pytest

from medclip_keras.objectives.catalogue import OBJECTIVES, objective_function, parameters


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_row_has_a_function_of_its_name(name):
    assert objective_function(name).__name__ == name
    assert parameters(name)[:2] == ("image_embeddings", "text_embeddings")
    assert ("logit_bias" in parameters(name)) == (OBJECTIVES[name].initial_logit_bias is not None)
    assert ("logit_scale" in parameters(name)) == (OBJECTIVES[name].fixed_logit_scale is None)


def test_a_run_is_configured_without_keras():
    code = "from medclip_keras.config import RunConfig; RunConfig('x'); import sys; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "medclip_keras.objectives.catalogue" in modules.split()
    assert not {"keras", "tensorflow"} & set(modules.split())
