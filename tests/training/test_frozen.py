"""Frozen towers: features are computed once, and what learns from them is the model of every other run."""

import io

import keras
import numpy as np
import pytest
from rich.console import Console

from medclip_keras.config import override
from medclip_keras.records.batches import training_batches
from medclip_keras.training import frozen
from medclip_keras.training.frozen import frozen_features
from medclip_keras.training.model import MedCLIP
from medclip_keras.training.restore import load_model, load_untrained
from medclip_keras.training.train import PLAIN, train

PLAIN_FIELDS = {
    "flip": 0, "brightness": 0, "contrast": 0, "rotation_degrees": 0, "translation": 0, "scale": "[1,1]",
    "crop": "false",
}  # fmt: skip
FROZEN = ["train.frozen=both", "model.image.pooling=mean_max", "train.steps=5", "train.validate_every=3"]


def said_by(train_it) -> str:
    console = Console(file=io.StringIO(), width=300)
    train_it(console)
    return console.file.getvalue()


def weights(model):
    return [v.numpy() for v in model.trainable_variables]


@pytest.fixture(scope="module")
def run(tiny_run):
    return override(tiny_run, FROZEN)


@pytest.fixture(scope="module")
def trained(run, tmp_path_factory):
    """The workdir of a run of frozen towers, and what it said."""
    workdir = tmp_path_factory.mktemp("frozen") / "run"
    said = said_by(lambda console: train(run, workdir, console))
    return workdir, said


@pytest.mark.parametrize(
    ("pairing", "towers", "taken"),
    [
        ("independent", "both", 2), ("independent", "image", 1), ("independent", "text", 1),
        ("own_report", "both", 2), ("label_overlap", "both", 2), ("pairs", "both", 2),
    ],
)  # fmt: skip
def test_batches_of_features_are_those_of_images_and_texts(pairing, towers, taken, tiny_run, trained):
    tokenizer, cache = load_model(trained[0]).tokenizer, trained[0] / "features"
    unit = "report" if pairing == "pairs" else "sentence"
    changes = [f"train.frozen={towers}", f"data.pairing={pairing}", f"train.feature_cache={cache}"]
    run = override(tiny_run, [*FROZEN, *changes, f"data.text_unit={unit}"])
    model = load_untrained(trained[0], load_model(trained[0]))
    features = frozen_features(model, run, tokenizer, cache, Console(quiet=True))
    assert len(features) == taken
    plain = override(run, [f"augment.{k}={v}" for k, v in PLAIN_FIELDS.items()])
    draws = [
        training_batches(plain, tokenizer, steps_per_epoch=3, start_step=4, features=given)
        for given in (features, None)
    ]
    by_features, by_inputs = (next(iter(draw)) for draw in draws)
    assert {"image_features", "text_features"} & {*by_features} == {*features}
    assert ("images" in by_features) == ("image_features" not in by_features)
    for name in by_features.keys() & by_inputs.keys():
        np.testing.assert_array_equal(by_features[name], by_inputs[name])
    one, other = (model.encode(batch, training=False) for batch in (by_features, by_inputs))
    for name in one:
        np.testing.assert_allclose(one[name], other[name], atol=1e-5)
        assert np.abs(one[name][0] - one[name][1]).max() > 1e-3


def test_the_fields_of_a_plain_draw_are_those_of_training(tiny_run):
    assert override(tiny_run, [f"augment.{k}={v}" for k, v in PLAIN_FIELDS.items()]).augment == PLAIN


def test_projections_learn_and_backbones_stay(trained, run):
    workdir, said = trained
    loaded = load_model(workdir, "last")
    before, after = load_untrained(workdir, loaded), loaded.model
    assert [v.path.split("/", 1)[1] for v in after.trainable_variables if "projection" not in v.path] == [
        "log_logit_scale"
    ]
    for tower in ("image_encoder", "text_encoder"):
        pairs = zip(getattr(before, tower).weights, getattr(after, tower).weights, strict=True)
        moved = {a.path.split("/")[-2] for a, b in pairs if not np.array_equal(a.numpy(), b.numpy())}
        assert moved == {"projection"}
    assert "image features: " in said
    assert "text features: " in said
    assert "s left" in said


def test_another_workdir_takes_the_features_that_are_there(trained, run, tmp_path, monkeypatch):
    monkeypatch.setattr(frozen, "_encode_images", lambda *_: 1 / 0)
    monkeypatch.setattr(frozen, "_encode_texts", lambda *_: 1 / 0)
    shared = override(run, [f"train.feature_cache={trained[0] / 'features'}"])
    said = said_by(lambda console: train(shared, tmp_path / "other", console))
    assert "The features of" in said
    assert not (tmp_path / "other" / "features").exists()
    one, other = (load_model(w, "last").model for w in (trained[0], tmp_path / "other"))
    for a, b in zip(weights(one), weights(other), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("file", ["features.bin", "contents.bin", "manifest.json"])
def test_damaged_features_are_made_again(file, trained, run):
    workdir, _ = trained
    (path,) = workdir.glob(f"features/image-*/{file}")
    whole = path.read_bytes()
    path.write_bytes(whole[:-8] + bytes(8))
    said = said_by(lambda console: train(run, workdir, console))
    assert "is damaged: " in said
    assert "It is made again." in said
    if file != "manifest.json":
        np.testing.assert_allclose(
            np.frombuffer(path.read_bytes(), "<f4"), np.frombuffer(whole, "<f4"), atol=1e-5
        )


def test_other_weights_or_pooling_have_features_of_their_own(trained, run, tmp_path):
    tokenizer = load_model(trained[0]).tokenizer

    def new_folders(seed, *changes):
        known = {path.name for path in tmp_path.iterdir()}
        config = override(run, [f"train.feature_cache={tmp_path}", *changes])
        keras.utils.set_random_seed(seed)
        model = MedCLIP(config, len(tokenizer.vocabulary)).build_towers()
        frozen_features(model, config, tokenizer, "unused", Console(quiet=True))
        return sorted(path.name.partition("-")[0] for path in tmp_path.iterdir() if path.name not in known)

    assert new_folders(0) == ["image", "text"]
    assert new_folders(0, "train.learning_rate=0.1", "model.projection_dim=4") == []
    assert new_folders(0, "model.image.pooling=mean") == ["image"]
    assert new_folders(0, "data.min_words=5") == ["text"]
    assert new_folders(1) == ["image", "text"]


class StopAt(keras.callbacks.Callback):
    def __init__(self, step):
        super().__init__()
        self.left = step

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if not self.left:
            self.model.stop_training = True


def test_a_stopped_run_resumes_to_the_bit(trained, run, tmp_path):
    workdir = tmp_path / "stopped"
    assert train(run, workdir, Console(quiet=True), [StopAt(2)]).step == 2
    assert train(run, workdir, Console(quiet=True)).finished
    one, other = (load_model(w, "last").model for w in (trained[0], workdir))
    for a, b in zip(weights(one), weights(other), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_killed_computation_leaves_no_features(run, tmp_path, monkeypatch):
    def broken(*_):
        yield np.zeros(2, np.int64), np.zeros((2, 3), np.float32)
        raise KeyboardInterrupt

    monkeypatch.setattr(frozen, "_encode_images", broken)
    with pytest.raises(KeyboardInterrupt):
        train(run, tmp_path, Console(quiet=True))
    assert not list((tmp_path / "features").iterdir())


def test_contradictions_are_refused(tiny_run):
    for change in ("train.lock=text", "objective.name=gloria"):
        with pytest.raises(ValueError, match=r"`train.frozen` must be none with train.lock"):
            override(tiny_run, ["train.frozen=image", change])
