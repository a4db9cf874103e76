"""A locked tower keeps its weights and runs as in inference; the other one learns. And towers under XLA."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from medclip_keras.config import override
from medclip_keras.models.image_encoder import BACKBONES
from medclip_keras.training.model import MedCLIP

from .replica_gradients import tiny_resnet
from .test_losses import VOCABULARY, make_batch

BACKBONES["tiny_resnet"] = tiny_resnet


def make_model(run, *changes) -> MedCLIP:
    keras.utils.set_random_seed(4)
    model = MedCLIP(override(run, list(changes)), VOCABULARY).build_towers()
    model.compile(optimizer=keras.optimizers.SGD(0.1), jit_compile=False)
    return model


@pytest.mark.parametrize(
    ("lock", "still"),
    [
        ("image", ["image_encoder"]),
        ("text", ["text_encoder"]),
        ("image_backbone", ["image_encoder/res_net_backbone"]),
        ("text_backbone", ["text_encoder/bert"]),
    ],
)
def test_locked_weights_stay_and_all_others_move(lock, still, tiny_run):
    model = make_model(tiny_run, f"train.lock={lock}", "model.image.backbone=tiny_resnet")
    tower = still[0].partition("_")[0]
    encoder = getattr(model, f"{tower}_encoder")
    locked = encoder.backbone if "_backbone" in lock else encoder
    before = {id(v): v.numpy() for v in model.variables}
    model.train_step(make_batch(tiny_run))
    moved = {id(v) for v in model.variables if not np.array_equal(v.numpy(), before[id(v)])}
    kept = {id(v) for v in locked.variables}
    assert not moved & kept  # moving averages and dropout seeds too
    others = [v for v in model.trainable_variables if "key/bias" not in v.path]
    assert {id(v) for v in others} <= moved
    assert len(others) > 5


def test_a_locked_tower_gets_no_dropout(tiny_run):
    batch = make_batch(tiny_run)
    for lock, same in (("text", True), ("none", False)):
        model = make_model(tiny_run, f"train.lock={lock}", "model.text.dropout=0.5")
        one, other = (model.encode(batch, training=t)["text_embeddings"] for t in (True, False))
        assert np.allclose(one, other, atol=1e-6) == same


def test_towers_compiled_by_xla_give_the_same_gradients(tiny_run):
    plain, compiled = (
        make_model(tiny_run, "model.text.dropout=0", f"train.jit_compile={on}") for on in ("false", "true")
    )
    batch = make_batch(tiny_run)
    graph = tf.function(lambda b: compiled.encode(b, training=True)).get_concrete_function(batch).graph
    assert "_XlaMustCompile" in str(graph.as_graph_def())
    expected, found = (model.global_gradients(batch)[1] for model in (plain, compiled))
    largest = max(float(np.abs(g).max()) for g in expected)
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5 * largest)
