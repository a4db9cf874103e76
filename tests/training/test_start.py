"""Start from the weights of an earlier run: which are copied between runs of two objectives."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest

from medclip_keras.config import override
from medclip_keras.runs import phantom_tiny
from medclip_keras.training.model import MedCLIP
from medclip_keras.training.start import copy_weights


def make(objective, seed):
    keras.utils.set_random_seed(seed)
    sizes = ["image.image_size=32", "image.width=8", "text.num_heads=2", "text.hidden_dim=16"]
    changes = [f"model.{size}" for size in (*sizes, "text.intermediate_dim=16")]
    return MedCLIP(override(phantom_tiny(), [*changes, f"objective.name={objective}"]), 50).build_towers()


@pytest.mark.parametrize("objectives", [("gloria", "info_nce"), ("info_nce", "gloria"), ("gloria", "gloria")])
def test_towers_start_from_those_of_another_objective(objectives):
    earlier, model = (make(objective, seed) for seed, objective in enumerate(objectives))
    num_new = 0
    for name, local in (("image_encoder", "region_projection"), ("text_encoder", "word_projection")):
        before = {v.path: v.numpy() for v in getattr(model, name).weights}
        theirs = {v.path: v.numpy() for v in getattr(earlier, name).weights}
        copy_weights(SimpleNamespace(model=earlier), model)
        for v in getattr(model, name).weights:
            is_new = local in v.path and local not in "".join(theirs)
            np.testing.assert_array_equal(v, before[v.path] if is_new else theirs[v.path], err_msg=v.path)
            num_new += is_new
    assert num_new == (2 if objectives == ("info_nce", "gloria") else 0)


def test_the_bias_of_logits_is_copied_between_runs_that_learn_one():
    models = [make("sigmoid_matching", 0), make("sigmoid_matching", 1), make("semantic_matching", 2)]
    models[0].logit_bias.assign(-3.0)
    for model in models[1:]:
        copy_weights(SimpleNamespace(model=models[0]), model)
    assert float(models[1].logit_bias) == -3
    assert models[2].logit_bias is None
