import dataclasses
import json
import shutil

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf
from rich.console import Console

from medclip_keras.config import override
from medclip_keras.errors import Interrupted
from medclip_keras.evaluation.fine_tuned import fine_tune_section
from medclip_keras.fine_tuning import fine_tune
from medclip_keras.locks import sole_writer
from medclip_keras.models.image_encoder import resnet_sizes
from medclip_keras.models.stages import image_stages
from medclip_keras.preprocess.images import for_evaluation
from medclip_keras.preprocess.text import Tokenizer
from medclip_keras.records.batches import evaluation_images
from medclip_keras.records.labelled_images import Classes, count_labelled, kept, labelled_images
from medclip_keras.records.manifest import load_concepts, read_manifest, write_manifest
from medclip_keras.records.reading import image_folders, read_records
from medclip_keras.supervised import Start, classes_of, encoder_maker, fit_supervised, main
from medclip_keras.training.checkpoints import Checkpoints
from medclip_keras.training.classifier import Classifier, train_classifier
from medclip_keras.training.model import MedCLIP
from medclip_keras.training.run_json import read_run_json, write_run_json
from medclip_keras.training.train import PLAIN, Outcome

FINDINGS = ("Cardiomegaly", "Pleural Effusion")


@pytest.fixture(scope="module")
def config(tiny_run):
    """Two findings that the phantoms often have, learned quickly; without sentences."""
    settings = ["train.steps=30", "train.batch_size=8", "train.learning_rate=0.003"]
    settings += ["train.validate_every=15", "train.checkpoint_every=15"]
    config = override(tiny_run, [*settings, "evaluation.bootstrap=20", "evaluation.per_class=50"])
    evaluation = dataclasses.replace(config.evaluation, findings=FINDINGS)
    data = dataclasses.replace(config.data, texts=())
    return dataclasses.replace(config, evaluation=evaluation, data=data)


@pytest.fixture(scope="module")
def learned(config, tmp_path_factory):
    """A classifier that learned from random weights: its folder and what was measured."""
    workdir = tmp_path_factory.mktemp("supervised") / "random"
    return workdir, fit_supervised(config, Start(), workdir)


@pytest.fixture(scope="module")
def without_validation(config, tmp_path_factory):
    """The run on a copy of its records whose manifest knows of no validation split."""
    return _without_split(config, "valid", tmp_path_factory.mktemp("records") / "images")


def _without_split(config, split, copied):
    shutil.copytree(config.data.images[0], copied)
    manifest = read_manifest(copied)
    empty = {**manifest.splits[split], "shards": [], "num_records": 0}
    write_manifest(copied, dataclasses.replace(manifest, splits={**manifest.splits, split: empty}))
    return dataclasses.replace(config, data=dataclasses.replace(config.data, images=(str(copied),)))


@pytest.mark.parametrize("run_of", [lambda config: config, lambda config: multi_label(config)])
def test_without_a_validation_split_the_last_weights_are_taken(without_validation, tmp_path, run_of):
    config = override(run_of(without_validation), ["train.steps=2"])
    classes = classes_of(config)
    _, outcome = train_classifier(encoder_maker(config, "random"), classes, config, tmp_path)
    assert outcome.finished
    assert not (tmp_path / "checkpoints" / "best").exists()


def test_a_classifier_has_no_zero_shot_figures_and_its_best_weights_are_those_of_the_loss(config, tmp_path):
    config = override(config, ["train.steps=2", "train.best_by=zero_shot", "train.evaluate_every=1"])
    train_classifier(encoder_maker(config, "random"), classes_of(config), config, tmp_path)
    assert [folder.name for folder in (tmp_path / "checkpoints" / "best").iterdir()] == ["step-2"]


def states_of(config, split):
    return np.concatenate([b["label_states"] for b in evaluation_images(config, split).as_numpy_iterator()])


def multi_label(config):
    findings = ("Abnormal", *FINDINGS)
    evaluation = dataclasses.replace(config.evaluation, task="multi_label", findings=findings)
    return dataclasses.replace(config, evaluation=evaluation)


def single_rows(config, split):
    columns = [classes_of(multi_label(config)).names.index(name) for name in FINDINGS]
    return (states_of(config, split)[:, columns] == 1).sum(axis=1) == 1


def test_only_images_with_exactly_one_finding_are_drawn_and_labelled_by_it(config):
    classes = classes_of(config)
    assert classes == Classes(FINDINGS, one_each=True)
    expected = single_rows(config, "train").sum()
    assert 0 < expected < len(single_rows(config, "train"))
    assert count_labelled(config, classes, "train") == expected
    batches = list(labelled_images(config, classes, steps_per_epoch=4).take(6).as_numpy_iterator())
    assert {b["images"].shape for b in batches} == {(8, 32, 32, 1)}
    labels = np.concatenate([b["labels"] for b in batches])
    np.testing.assert_array_equal(labels.sum(axis=1), 1)
    assert labels.any(axis=0).all()


def test_batch_k_is_the_same_in_a_resumed_run(config):
    classes = classes_of(config)
    whole = list(labelled_images(config, classes, steps_per_epoch=4).take(7).as_numpy_iterator())
    resumed = labelled_images(config, classes, steps_per_epoch=4, start_step=5).take(2).as_numpy_iterator()
    for expected, found in zip(whole[5:], resumed, strict=True):
        for name in expected:
            np.testing.assert_array_equal(found[name], expected[name])
    assert not np.array_equal(whole[5]["images"], whole[6]["images"])


@pytest.mark.parametrize(
    ("uncertain", "label", "known"),
    [("positive", 1, 1), ("negative", 0, 1), ("half", 0.5, 1), ("ignored", 0, 0)],
)
def test_uncertain_labels_follow_the_policy_of_the_run(config, uncertain, label, known):
    config = multi_label(override(config, [f"data.uncertain={uncertain}", "data.balance=false"]))
    classes = classes_of(config)
    assert len(classes.names) == 21
    states = states_of(config, "train")
    assert (states == 3).any()
    batches = labelled_images(config, classes, steps_per_epoch=len(states))
    drawn = list(batches.unbatch().take(len(states)).as_numpy_iterator())  # one pass
    labels, knowns = (np.stack([d[name] for d in drawn]) for name in ("labels", "known"))
    expected = np.where(states == 3, label, states == 1)
    np.testing.assert_array_equal(np.sort(labels.sum(axis=1)), np.sort(expected.sum(axis=1)))
    np.testing.assert_array_equal(labels.sum(axis=0), expected.sum(axis=0))
    np.testing.assert_array_equal(knowns.sum(axis=0), np.where(states == 3, known, 1).sum(axis=0))


def test_smaller_share_of_labels_is_a_subset_of_a_larger_one(config):
    every = Classes(FINDINGS, one_each=False)
    half, most = (dataclasses.replace(every, share=share) for share in (0.4, 0.8))
    counts = [count_labelled(config, classes, "train") for classes in (half, most, every)]
    assert 0 < counts[0] < counts[1] < counts[2]
    assert count_labelled(config, half, "valid") == count_labelled(config, every, "valid")


def test_metrics_are_of_the_test_images_of_the_task(config, learned):
    workdir, metrics = learned
    found = metrics["data"]["phantom"]["supervised"]
    assert found["num_images"] == single_rows(config, "test").sum()
    assert found["num_training_images"] == {"1": single_rows(config, "train").sum()}
    assert metrics["weights"] == "random"
    assert json.loads((workdir / "evaluation" / "metrics.json").read_text()) == metrics
    assert (workdir / "evaluation" / "report.html").stat().st_size > 10_000


def test_the_loss_falls_on_the_images_that_are_learned_from(config, learned):
    classes, make = classes_of(config), encoder_maker(config, "random")
    model, outcome = train_classifier(make, classes, config, learned[0])  # finished: only restored
    assert outcome.finished
    keras.utils.set_random_seed(config.seed)
    fresh = Classifier(make(), classes, config).create_weights()
    plain = dataclasses.replace(config, augment=PLAIN)
    batch = next(iter(labelled_images(plain, classes, steps_per_epoch=4)))
    size = config.model.image.image_size
    stored = (for_evaluation(images["images"], size).numpy() for images in evaluation_images(config, "train"))
    exact = {image.tobytes() for images in stored for image in images}
    assert {image.tobytes() for image in batch["images"].numpy()} <= exact  # not augmented at all
    before, after = (float(m.objective(batch, training=False).loss) for m in (fresh, model))
    assert after < 0.7 * before


def test_command_evaluates_a_finished_run_again(config, learned, capsys):
    workdir, metrics = learned
    assert main(["--run", str(workdir / "run.json"), "--workdir", str(workdir)]) == 0
    assert json.loads((workdir / "evaluation" / "metrics.json").read_text())["data"] == metrics["data"]
    assert "supervised accuracy" in capsys.readouterr().out


def test_a_frozen_encoder_keeps_its_weights_and_the_head_learns(config):
    classes = classes_of(config)
    keras.utils.set_random_seed(config.seed)
    model = Classifier(encoder_maker(config, "random")(), classes, config, freeze=True).create_weights()
    model.compile(optimizer=keras.optimizers.SGD(0.1))
    before = [v.numpy() for v in (*model.encoder.weights, model.head.kernel)]
    model.train_step(next(iter(labelled_images(config, classes, steps_per_epoch=4))))
    *encoder, head = (v.numpy() for v in (*model.encoder.weights, model.head.kernel))
    for one, other in zip(encoder, before[:-1], strict=True):
        np.testing.assert_array_equal(one, other)
    assert np.abs(head - before[-1]).max() > 1e-4


def test_frozen_stages_stay_frozen_when_the_classifier_learns_all_others(config):
    run = override(config, ["model.image.frozen_stages=3"])
    encoder, classes = encoder_maker(run, "random")(), classes_of(run)
    encoder.backbone.trainable = False  # as a tower of a run with `train.frozen`
    model = Classifier(encoder, classes, run).create_weights()
    frozen = {
        v.path for stage in image_stages(encoder.backbone)[:3] for layer in stage for v in layer.weights
    }
    learned = {v.path for v in model.trainable_variables}
    assert learned == {v.path for v in encoder.backbone.weights} - frozen | {
        v.path for v in model.head.weights
    }
    assert 0 < len(frozen) < len(encoder.backbone.weights)


@pytest.fixture(scope="module")
def pretrained(config, tmp_path_factory):
    """A workdir as training leaves one, with random weights of another seed, and its model."""
    workdir = tmp_path_factory.mktemp("pretrained") / "run"
    write_run_json(config, workdir)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "heart"]
    Tokenizer(vocabulary, lower_case=True, max_tokens=config.data.max_tokens).save(workdir / "vocabulary")
    table = load_concepts(config.data.images[0])
    (workdir / "vocabulary" / "concepts.jsonl").write_text(table.to_jsonl())
    keras.utils.set_random_seed(99)
    model = MedCLIP(config, len(vocabulary)).build_towers()
    Checkpoints(workdir / "checkpoints", model, resumable=False).save(7)
    return workdir, model


def test_fine_tuning_starts_from_the_image_tower_of_a_workdir(config, pretrained, learned):
    workdir, model = pretrained
    encoder = encoder_maker(config, str(workdir))()
    for one, other in zip(encoder.weights, model.image_encoder.weights, strict=True):
        np.testing.assert_array_equal(one, other)
    classifier = Classifier(encoder, classes_of(config), config).create_weights()
    images = np.random.default_rng(0).normal(size=(3, 32, 32, 1)).astype(np.float32)
    features = model.describe_images(images)["image_features"]
    expected = features @ classifier.head.kernel + classifier.head.bias
    np.testing.assert_allclose(classifier(images), expected, atol=1e-6)
    learning = {v.path for v in classifier.trainable_variables}
    assert learning == {v.path for v in (*encoder.backbone.trainable_variables, *classifier.head.weights)}


def test_fine_tuning_computes_in_its_own_precision_and_not_in_that_of_the_start(config, pretrained):
    assert read_run_json(pretrained[0]).train.precision == "float32"
    mixed = override(config, ["train.precision=mixed_bfloat16"])
    try:
        keras.mixed_precision.set_global_policy("mixed_bfloat16")  # as `train_classifier`
        encoder = encoder_maker(mixed, str(pretrained[0]))()
        assert keras.mixed_precision.dtype_policy().name == "mixed_bfloat16"
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert {layer.compute_dtype for layer in encoder.backbone.layers if layer.weights} == {"bfloat16"}
    np.testing.assert_array_equal(encoder.weights[0], pretrained[1].image_encoder.weights[0])


def test_an_interruption_says_after_which_step(config, tmp_path, monkeypatch):
    def stop(*arguments, **options):
        return None, Outcome(4, 30, interrupted=True)

    monkeypatch.setattr("medclip_keras.supervised.train_classifier", stop)
    with pytest.raises(Interrupted, match="stopped after step 4 of 30; the checkpoint is saved"):
        fit_supervised(config, Start(), tmp_path / "run")


def test_a_classifier_is_compiled_by_xla_if_asked(config):
    for compiled in (False, True):
        run = override(config, [f"train.jit_compile={compiled}".lower()])
        model = Classifier(encoder_maker(run, "random")(), classes_of(run), run).create_weights()
        images = tf.zeros((2, 32, 32, 1))
        encode = tf.function(lambda images, model=model: model.encode({"images": images}, training=True))
        graph = encode.get_concrete_function(images).graph.as_graph_def()
        assert ("_XlaMustCompile" in str(graph)) == compiled


def test_preset_is_loaded_for_start_preset_only(config, tmp_path):
    folder = str(tmp_path / "preset")
    sizes = resnet_sizes("basic_block", [1, 1])
    backbone = keras_hub.models.ResNetBackbone(image_shape=(32, 32, 3), **sizes)
    backbone.save_to_preset(folder)
    config = override(config, [f"model.image.preset={folder}"])
    loaded = encoder_maker(config, "preset")().backbone
    for one, other in zip(loaded.weights, backbone.weights, strict=True):
        np.testing.assert_array_equal(one, other)
    assert encoder_maker(config, "random")().backbone.name == "small_resnet"


def test_a_workdir_that_another_process_writes_is_refused(config, tmp_path):
    refused = pytest.raises(ValueError, match="`--workdir` must be one that no other process is writing")
    with sole_writer(tmp_path / "run"), refused:
        fit_supervised(config, Start(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_workdir_of_another_start_is_refused(config, learned):
    sentence = r"`workdir` must be empty, or hold this very run; it holds one with"
    with pytest.raises(ValueError, match=sentence):
        fit_supervised(config, Start(freeze=True), learned[0])


def test_images_without_any_of_the_findings_are_refused_before_anything_is_written(config, tmp_path):
    evaluation = dataclasses.replace(config.evaluation, findings=("Hernia", "Fibrosis"))
    with pytest.raises(ValueError, match=r"`data.images` must be folders with images .* Hernia, Fibrosis"):
        fit_supervised(dataclasses.replace(config, evaluation=evaluation), Start(), tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_run_without_test_images_is_refused_before_the_training(config, tmp_path):
    untested = _without_split(config, "test", tmp_path / "images")
    with pytest.raises(ValueError, match="'test'"):
        fit_supervised(untested, Start(), tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--start", "random"], "`--run` must be named, unless --start is a workdir"),
        (["--start", "preset", "--run", "phantom_tiny"], "`--start` must be random or a workdir, for the"),
        (["--start", "/nowhere"], "`workdir` must be a folder in which a run was trained"),
        (["--run", "phantom_tiny", "--labels_share", "0"], "`--labels_share` must be over 0 and up to 1"),
        (["--run", "phantom_tiny"], "`data.images` must be at least one folder of image records"),
    ],
)
def test_wrong_arguments_are_refused(arguments, sentence, tmp_path, capsys):
    assert main([*arguments, "--workdir", str(tmp_path / "none")]) == 1
    assert sentence in capsys.readouterr().err


def test_a_workdir_of_another_tower_is_refused(config, pretrained):
    other = override(config, ["model.image.width=16"])
    with pytest.raises(ValueError, match=r"`--start` must be a workdir whose image tower is the run's"):
        encoder_maker(other, str(pretrained[0]))


def test_fine_tuning_learns_from_each_start_share_and_seed_and_leaves_the_run_as_it_is(config, pretrained):
    workdir, _ = pretrained
    evaluation = dataclasses.replace(
        config.evaluation, fine_tune_steps=2, probe_fractions=(0.5, 1.0), probe_seeds=1
    )
    run = dataclasses.replace(config, evaluation=evaluation)
    before = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
    console = Console(record=True, width=200)
    found = fine_tune(run, run.data, workdir, console)
    assert {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()} == before
    assert list(found.metrics["starts"]) == ["trained", "random"]
    for by_share in found.metrics["starts"].values():
        (half,), (whole,) = (by_share[share]["num_training_images"] for share in ("0.5", "1"))
        assert half < whole == count_labelled(config, classes_of(config), "train")
        accuracy = by_share["1"]["seeds"]["accuracy"]
        assert accuracy["number"] == 1
        assert accuracy["mean"] == by_share["1"]["first_seed"]["accuracy"]["value"]
    assert console.export_text().count("Fine-tuning: ") == 4
    section = fine_tune_section(found)
    assert [row[0] for row in section.tables[0].rows[::2]] == [
        "trained, 50 % of labels", "trained, all labels", "random, 50 % of labels", "random, all labels",
    ]  # fmt: skip


def test_another_seed_learns_from_other_images_of_a_share(config):
    def keys(seed):
        classes = dataclasses.replace(classes_of(config, 0.5), share_seed=seed)
        return count_labelled(config, classes, "train"), kept_keys(config, classes)

    (_, first), (_, again), (number, second) = (keys(seed) for seed in (0, 0, 1))
    assert first == again != second
    assert number == len(second)


def kept_keys(config, classes):
    keep = kept(config.data, classes, "train")
    records = read_records(image_folders(config.data, "train"), "train", keep)
    return sorted(record.numpy() for record in records)
