"""A run from its first step to its last, whole, interrupted, killed and gone wrong."""

import json
import math
import os
import shutil
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from etils import epath
from rich.console import Console

from medclip_keras.config import override
from medclip_keras.knowledge.concepts import load_table
from medclip_keras.locks import sole_writer
from medclip_keras.objectives.semantic_matching import label_similarity
from medclip_keras.training import train as training
from medclip_keras.training.checkpoint_files import CheckpointFolder
from medclip_keras.training.concept_kernel import label_kernel, tree_similarity
from medclip_keras.training.model import MedCLIP, build_optimizer
from medclip_keras.training.restore import load_model
from medclip_keras.training.train import train


def weights_of(workdir) -> dict[str, np.ndarray]:
    """Every variable, seeds of dropout included, by its place in the model."""
    return {f"{i} {v.name}": v.numpy() for i, v in enumerate(load_model(workdir, "last").model.variables)}


def scalars_of(workdir) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = {}
    for path in sorted((workdir / "tensorboard" / "training").glob("events*")):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                if value.tensor.dtype == tf.float32.as_datatype_enum:
                    found.setdefault(value.tag, {})[event.step] = float(tf.make_ndarray(value.tensor))
    return found


@pytest.fixture(scope="module")
def unbroken(tiny_run, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("unbroken")
    console = Console(record=True, width=160)
    outcome = train(tiny_run, workdir, console)
    return workdir, outcome, console.export_text()


def test_train_leaves_what_the_design_promises(unbroken, tiny_run):
    workdir, outcome, said = unbroken
    assert outcome.step == outcome.total_steps == 7
    run = json.loads((workdir / "run.json").read_text())
    assert run["config"]["train"]["steps"] == 7
    assert set(run["records"]) == {*tiny_run.data.images, *tiny_run.data.texts}
    assert {p.name for p in (workdir / "vocabulary").iterdir()} == {
        "concepts.jsonl", "wordpieces.txt", "tokenizer.json"
    }  # fmt: skip
    assert "random weights" in said
    assert "step 7/7" in said


def test_train_writes_scalars_and_the_similarity_matrices(unbroken, tiny_run):
    scalars = scalars_of(unbroken[0])
    names = ("loss", "kl", "temperature", "gradient_norm", "learning_rate", "images_per_second")
    for name in names:
        assert sorted(scalars[f"train/{name}"]) == [2, 4, 6], name
    assert sorted(scalars["valid/kl"]) == [4, 7]
    # One warm-up step of 7, then half a cosine over 6: the share is (1 + cos(pi (k - 1) / 6)) / 2.
    for step in (2, 4, 6):
        share = (1 + math.cos(math.pi * (step - 1) / 6)) / 2
        assert scalars["train/learning_rate"][step] == pytest.approx(
            share * tiny_run.train.learning_rate, rel=1e-4
        )


def test_the_projector_has_a_label_for_every_embedding_and_no_identifier(unbroken, tiny_run):
    board = unbroken[0] / "tensorboard" / "training"
    embeddings = np.loadtxt(board / "embeddings.tsv")
    header, *labels = (board / "labels.tsv").read_text().splitlines()
    assert header == "kind\tfinding\tfindings"
    assert len(labels) == len(embeddings)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-3)
    names = {*load_table("chest21").names, "none"}
    for label in labels:
        kind, finding, findings = label.split("\t")
        assert kind in ("image", "text")
        assert set(findings.split(", ")) <= names
        assert finding == findings or (finding == "several" and ", " in findings)
    assert 'tensor_path: "embeddings.tsv"' in (board / "projector_config.pbtxt").read_text()


@pytest.fixture
def stop_at(monkeypatch):
    """Sends this process a signal while a step is done, as a user or a cluster does."""

    class SendsSignal(training.StopOnNaN):
        number, when = signal.SIGTERM, 0

        def on_step(self, step, logs):
            super().on_step(step, logs)
            if step == self.when:
                os.kill(os.getpid(), self.number)

    monkeypatch.setattr(training, "StopOnNaN", SendsSignal)

    def send(step: int, number: int = signal.SIGTERM) -> None:
        SendsSignal.when, SendsSignal.number = step, number

    return send


def everything_of(workdir) -> dict[str, np.ndarray]:
    """Every variable of the last and the best checkpoint: weights, optimizer, seeds, counters."""
    found = {}
    for which in ("last", "best"):
        saved = CheckpointFolder(epath.Path(workdir) / "checkpoints" / which).find()[0]
        reader = tf.train.load_checkpoint(saved.prefix)
        names = reader.get_variable_to_shape_map()
        found |= {f"{which}/{n}": reader.get_tensor(n) for n in names if "OBJECT_GRAPH" not in n}
        found |= {f"{which}/{n}": np.array(value or 0) for n, value in saved.manifest()["state"].items()}
    return found


@pytest.mark.slow
def test_a_run_stopped_at_an_odd_step_ends_with_every_variable_of_the_unbroken_one(
    tiny_run, stop_at, tmp_path
):
    # Validations at 2, 4, 6 and 7; one more, at 5 where the run is stopped, would halve the rate too soon.
    changes = ["train.schedule=plateau", "train.plateau_patience=1", "train.validate_every=2"]
    run = override(tiny_run, changes)
    train(run, tmp_path / "whole")
    stop_at(5)
    stopped = train(run, tmp_path / "stopped")
    assert (stopped.step, stopped.finished) == (5, False)
    stop_at(0)
    assert train(run, tmp_path / "stopped").finished
    expected, found = (everything_of(tmp_path / name) for name in ("whole", "stopped"))
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(value, found[name], err_msg=name)


def handlers():
    return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGVTALRM)]


def test_handlers_of_signals_are_restored(tiny_run, stop_at, tmp_path):
    before = handlers()
    stop_at(2, signal.SIGINT)
    assert train(tiny_run, tmp_path).step == 2
    assert handlers() == before


def test_ctrl_c_before_the_first_step_is_done_ends_training_at_once(tiny_run, stop_at, tmp_path):
    stop_at(1, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(tiny_run, tmp_path)
    assert not (tmp_path / "checkpoints" / "last").exists()
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0, 0)


def test_a_second_training_in_one_workdir_is_refused_and_writes_nothing(tiny_run, tmp_path):
    workdir = tmp_path / "run"
    refused = pytest.raises(ValueError, match="`workdir` must be one that no other process is writing")
    with sole_writer(workdir, suffix=".training.lock"), refused:
        train(tiny_run, workdir)
    assert not workdir.exists()


def test_a_finished_run_is_not_trained_again_and_none_of_its_files_is_rewritten(unbroken, tiny_run):
    def files():
        return {p: p.stat().st_mtime_ns for p in unbroken[0].rglob("*") if p.is_file()}

    before = files()
    assert train(tiny_run, unbroken[0]).step == 7
    assert files() == before


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(tiny_run, tmp_path, monkeypatch):
    sound, before = MedCLIP.train_step, handlers()

    def poisoned(self, batch):
        logs = sound(self, batch)
        wrong = self.optimizer.iterations >= 5
        return logs | {"loss": tf.where(wrong, math.nan, logs["loss"])}

    monkeypatch.setattr(MedCLIP, "train_step", poisoned)
    with pytest.raises(FloatingPointError, match="at step 5"):
        train(tiny_run, tmp_path)
    assert load_model(tmp_path, "last").step == 3
    assert handlers() == before

    # The advice of the sentence: a lower rate, and the same command.
    monkeypatch.setattr(MedCLIP, "train_step", sound)
    console = Console(record=True, width=200)
    assert train(override(tiny_run, ["train.learning_rate=1e-4"]), tmp_path, console).finished
    # One warm-up step of 7; three steps are done, so the cosine over 6 is at 2.
    rate = f"{1e-4 * (1 + math.cos(math.pi * 2 / 6)) / 2:.2g}"
    said = (
        f"Continues after step 3 with train.learning_rate 0.001 → 0.0001: the next step has the rate {rate}"
    )
    assert said in console.export_text()


def test_more_steps_continue_a_finished_run_by_the_cosine_of_all_steps(unbroken, tiny_run, tmp_path):
    workdir, console = tmp_path / "run", Console(record=True, width=200)
    shutil.copytree(unbroken[0], workdir)
    outcome = train(override(tiny_run, ["train.steps=14"]), workdir, console)
    assert (outcome.step, outcome.finished) == (14, True)
    # One warm-up step of 14 (a tenth), then a cosine over 13; the rate is read after the step.
    for step in (8, 10, 12, 14):
        share = (1 + math.cos(math.pi * (step - 1) / 13)) / 2
        rate = scalars_of(workdir)["train/learning_rate"][step]
        assert rate == pytest.approx(share * 1e-3, rel=1e-3), step
    assert "Continues after step 7 with train.steps 7 → 14" in console.export_text()


def test_more_steps_of_a_plateau_give_every_variable_of_one_run_of_all_steps(tiny_run, tmp_path):
    changes = ["train.schedule=plateau", "train.plateau_patience=1", "train.validate_every=2"]
    longer, shorter = (override(tiny_run, [*changes, f"train.steps={steps}"]) for steps in (6, 4))
    train(longer, tmp_path / "whole")
    train(shorter, tmp_path / "continued")
    assert train(longer, tmp_path / "continued").step == 6
    expected, found = everything_of(tmp_path / "whole"), everything_of(tmp_path / "continued")
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(value, found[name], err_msg=name)


@pytest.mark.parametrize("assignment", ["model.image.backbone=resnt18", "model.text.frozen_layers=9"])
def test_a_run_whose_model_cannot_be_built_does_not_claim_the_workdir(tiny_run, assignment, tmp_path):
    wrong = override(tiny_run, [assignment, "model.text.vocabulary_size=90"])
    with pytest.raises(ValueError, match=rf"`{assignment.partition('=')[0]}` must be"):
        train(wrong, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_no_decay_on_biases_norms_and_the_logit_scale(tiny_run):
    model = MedCLIP(tiny_run, 50).build_towers()
    optimizer = build_optimizer(tiny_run, 10)
    optimizer.build(model.trainable_variables)
    decayed = [v.path for v in model.trainable_variables if optimizer._use_weight_decay(v)]
    kept = [v.path for v in model.trainable_variables if not optimizer._use_weight_decay(v)]
    assert decayed
    assert all(path.endswith(("kernel", "embeddings")) for path in decayed), decayed
    assert all(path.endswith(("bias", "gamma", "beta", "log_logit_scale")) for path in kept), kept


def test_batch_size_must_divide_among_replicas(tiny_run, tmp_path, monkeypatch):
    devices = [SimpleNamespace(name=f"GPU:{n}") for n in range(4)]
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: devices)
    with pytest.raises(ValueError, match=r"`train.batch_size` must be a multiple of the 4 replicas"):
        train(tiny_run, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_kernel_of_the_switches_reaches_the_loss(tiny_run, tmp_path, monkeypatch):
    run = override(tiny_run, ["objective.concept_weights=idf", "objective.tree_closeness=0.5"])
    table = load_table("chest21")

    class BuiltError(Exception):
        pass

    built = []

    def build(*arguments):
        built.append(MedCLIP(*arguments))
        raise BuiltError

    monkeypatch.setattr("medclip_keras.training.train.MedCLIP", build)
    with pytest.raises(BuiltError):
        train(run, tmp_path)
    rng = np.random.default_rng(0)
    labels = {f"{side}_labels": rng.integers(0, 2, (4, 21)).astype("float32") for side in ("image", "text")}
    known = {f"{side}_known": np.ones((4, 21), "float32") for side in ("image", "text")}
    tokens = np.full((4, 32), 5, "int32")
    batch = {"images": rng.normal(size=(4, 32, 32, 1)), "token_ids": tokens, "padding_mask": tokens > 0}
    [model] = built
    weights = np.sqrt(np.diag(label_kernel(run, table)))
    kernel = np.outer(weights, weights) * (np.eye(21) + tree_similarity(table)) / 2
    expected = label_similarity(labels["image_labels"], labels["text_labels"], concept_kernel=kernel)
    outcome = model.build_towers().objective(batch | labels | known, training=False)
    np.testing.assert_allclose(outcome.similarity, expected, rtol=1e-5)


def test_a_missing_best_checkpoint_is_said_and_the_last_is_loaded(unbroken, tmp_path, caplog):
    shutil.copytree(unbroken[0], tmp_path / "run")
    assert load_model(tmp_path / "run").checkpoint == "best"
    assert not [r for r in caplog.records if "no best checkpoint" in r.message]
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "best")
    loaded = load_model(tmp_path / "run")
    assert (loaded.checkpoint, loaded.step) == ("last", 7)
    assert "no best checkpoint" in caplog.text


def test_weights_that_are_not_at_hand_are_refused_with_what_to_do(tiny_run, tmp_path, monkeypatch):
    named = override(tiny_run, ["model.text.preset=$MEDCLIP_WEIGHTS/Bio_ClinicalBERT"])
    with pytest.raises(ValueError, match=r"`model.text.preset` must be a path whose .* Set MEDCLIP_WEIGHTS"):
        train(named, tmp_path / "unset")
    assert not (tmp_path / "unset").exists()

    def download(*arguments, **options):
        raise ConnectionError("no network")

    monkeypatch.setattr("keras_hub.models.Backbone.from_preset", download)
    monkeypatch.setattr("keras_hub.models.BertTokenizer.from_preset", download)
    for preset in ("model.image.preset=resnet_50_imagenet", "model.text.preset=bert_tiny_en_uncased"):
        with pytest.raises(ValueError, match=r"download failed: ConnectionError. Name a local folder"):
            train(override(tiny_run, [preset]), tmp_path / "offline")
        assert not (tmp_path / "offline").exists()
