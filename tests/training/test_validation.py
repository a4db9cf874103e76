"""Validation during training: figures that are not defined, and what is refused before it."""

import math
from types import SimpleNamespace

import pytest
from rich.console import Console

from medclip_keras.config import RunConfig, override
from medclip_keras.preflight import require_validation_images
from medclip_keras.training.checkpoints import Progress
from medclip_keras.training.validation import HeldOut, Validation

BY_ZERO_SHOT = ["train.best_by=zero_shot", "train.evaluate_every=1"]


def test_a_data_set_without_an_auroc_does_not_decide_the_best_weights():
    saved = []
    figures = {"one/auroc": math.nan, "one/accuracy": 0.1, "two/auroc": 0.75, "three/auroc": 0.25}
    checkpoints = SimpleNamespace(
        progress=Progress(), save_if_best=lambda *of_step: bool(saved.append(of_step)) or True
    )
    held_out = HeldOut(zero_shot=lambda is_stopped: figures)
    validation = Validation((0, 4), held_out, checkpoints, Console(quiet=True))
    validation.set_model(SimpleNamespace(run=override(RunConfig("mine"), BY_ZERO_SHOT)))
    validation.log = SimpleNamespace(scalars=lambda *values: None)
    validation.evaluate(4)
    assert saved == [(4, -0.5)]


def test_validation_images_without_any_auroc_are_refused_for_choosing_the_best_weights(tiny_run):
    settings = ["evaluation.task=multi_label", 'evaluation.findings=["Hernia"]', "train.evaluate_every=1"]
    require_validation_images(override(tiny_run, settings))
    with pytest.raises(
        ValueError, match=r"`train.best_by` must be kl, for no class .* 'zero_shot, of Hernia"
    ):
        require_validation_images(override(tiny_run, [*settings, "train.best_by=zero_shot"]))
