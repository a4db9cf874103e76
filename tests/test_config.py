"""Configurations: what is refused, with which words, and that run.json replays a run."""

import dataclasses
import inspect
import json
import re

import pytest

from medclip_keras.config import (
    AugmentConfig,
    ObjectiveConfig,
    RunConfig,
    TrainConfig,
    from_dict,
    override,
    to_dict,
)
from medclip_keras.runs import RUNS, get_run
from medclip_keras.runs.__main__ import main


@pytest.mark.parametrize("name", RUNS)
def test_a_run_survives_its_json(name):
    run = get_run(name)
    assert from_dict(json.loads(json.dumps(to_dict(run)))) == run
    assert run.name == name


@pytest.mark.parametrize("name", RUNS)
def test_every_named_run_is_a_letter(name):
    letter = RUNS[name].__doc__
    assert "Command: `" in letter
    assert "python -m medclip_keras.fit" in letter


def test_runs_lists_the_letters_and_every_field_of_one_run(capsys):
    assert main([]) == 0
    said = capsys.readouterr().out
    assert all(f"{name}\n\n{inspect.getdoc(run)}\n" in said for name, run in RUNS.items())
    assert main(["phantom_tiny"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("phantom_tiny\n\nThe default: ")
    run = get_run("phantom_tiny")
    fields = said[said.index("\nname=") + 1 :].splitlines()
    assert override(override(run, ["name=other", "train.steps=1", "evaluation.tasks=[]"]), fields) == run
    assert "train.learning_rate=0.001" in fields
    assert main(["phantom_tinny"]) == 1
    assert "Near names: phantom_tiny" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["medclip_resnet50", "medclip_swin_tiny"])
def test_runs_of_medclip_lower_the_case_as_released_and_say_so(name):
    assert get_run(name).model.text.lower_case
    assert "Lower case: yes, as released" in RUNS[name].__doc__


def test_get_run_replays_a_run_json(tmp_path):
    run = override(get_run("phantom_tiny"), ["seed=5", "augment.flip=0"])
    (tmp_path / "run.json").write_text(json.dumps({"config": to_dict(run), "versions": {}}))
    assert get_run(str(tmp_path / "run.json")) == run


@pytest.mark.parametrize(
    ("assignment", "sentence"),
    [
        ("train.stpes=3", "`train.stpes` must be a field of the run. Near names: train.steps"),
        ("steps=3", "`steps` must be a field of the run. Near names: train.steps"),
        ("train=3", "`train` must be a dictionary or an instance of TrainConfig. Received: 3."),
        ("train.steps=many", "`train.steps` must be a valid integer"),
        ("train.steps=-1", "`train.steps` must be at least 0. Received: -1."),
        ("data.coding=sgned", "must be 'multi_hot' or 'signed'. Received: 'sgned'. Near names: signed."),
        (
            "model.image.image_size=300",
            "`model.image.image_size` must be at most data.stored_image_size (256)",
        ),
        ("data.split_fractions=[0.5,0.1,0.1]", "`data.split_fractions` must be three shares that sum to 1"),
        (
            "objective.target_temperature=0",
            "`objective.target_temperature` must be greater than 0.",
        ),
        ("objective.tree_closeness=1.1", "`objective.tree_closeness` must be at most 1. Received: 1.1."),
        ("objective.concept_weights=tfidf", "must be 'none' or 'idf'. Received: 'tfidf'. Near names: idf."),
        ("seed", "`--set` must be of the form a.b=c"),
    ],
)
def test_wrong_assignments_are_refused(assignment, sentence):
    with pytest.raises(ValueError, match="must be") as error:
        override(RunConfig("mine"), [assignment])
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    ("assignments", "sentence"),
    [
        (
            ["objective.name=convirt", "data.pairing=own_report"],
            "`data.pairing` must be auto or pairs for the objective convirt, which learns from pairs alone.",
        ),
        (["objective.name=gloria", "objective.tile_size=64"], "`objective.tile_size` must be 0 for the obj"),
        (["data.text_unit=report"], "`data.text_unit` must be sentence unless data.pairing is pairs"),
        (["data.paired_share=0"], "`data.paired_share` must be greater than 0. Received: 0."),
        (
            ["augment.crop_share=[0.9,0.5]"],
            "`augment.crop_share` must be two ascending numbers.",
        ),
        (["augment.blur_sigma=[-1,2]"], "`augment.blur_sigma.0` must be at least 0. Received: -1."),
        (["objective.instance_weight=2"], "`objective.instance_weight` must be at most 1. Received: 2."),
        (
            ["objective.name=clip"],
            "`objective.name` must be one of semantic_matching, sigmoid_ma",
        ),
        (["objective.name=info_nse"], "Received: 'info_nse'. Near names: info_nce."),
    ],
)
def test_objectives_and_their_data_must_fit(assignments, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        override(get_run("phantom_tiny"), assignments)


def test_auto_pairing_is_what_the_objective_is_made_for():
    assert get_run("medclip_resnet50").pairing == "independent"
    assert get_run("medclip_resnet50_as_released").pairing == "label_overlap"
    assert {get_run(f"{name}_resnet50").pairing for name in ("clip", "convirt", "gloria")} == {"pairs"}
    assert override(get_run("phantom_tiny"), ["objective.name=mixed_matching"]).pairing == "own_report"


def test_an_unknown_field_in_a_file_is_refused_with_near_names():
    values = to_dict(RunConfig("mine"))
    values["train"]["learning_rat"] = 1
    with pytest.raises(ValueError, match=r"Near names: train.learning_rate"):
        from_dict(values)


def test_an_unknown_field_of_a_section_in_python_is_refused_with_near_names():
    with pytest.raises(ValueError, match=r"`train.stpes`.*Near names: train.steps"):
        TrainConfig(stpes=3)
    with pytest.raises(ValueError, match=r"`model.image.bakbone`.*Near names: model.image.backbone"):
        RunConfig("mine", model={"image": {"bakbone": "resnet50"}})


def test_zero_shot_figures_that_are_not_taken_cannot_choose_the_best_weights():
    with pytest.raises(ValueError, match=r"`train.evaluate_every` must be above 0 with train.best_by.*: 0"):
        override(RunConfig("mine"), ["train.best_by=zero_shot"])


def test_assignments_take_numbers_lists_and_words():
    run = override(
        RunConfig("mine"), ["train.learning_rate=1e-3", 'data.images=["a","b"]', "model.image.preset=x/y"]
    )
    assert (run.train.learning_rate, run.data.images, run.model.image.preset) == (1e-3, ("a", "b"), "x/y")


@pytest.mark.parametrize(
    ("assignment", "requirement"),
    [
        ("augment.flip=3", "at most 1"),
        ("augment.brightness=-1", "at least 0"),
        ("augment.rotation_degrees=181", "at most 180"),
        ("augment.scale=[1.1,0.8]", "two ascending numbers"),
        ("data.max_tokens=2", "at least 3"),
        ('data.phantom={"num_paired":-1}', "at least 0"),
        ("evaluation.bootstrap=0", "at least 1"),
        ("evaluation.findings=[]", "at least 1 item"),
        ('evaluation.findings=["Edema", "Edema"]', "names that differ"),
        ("evaluation.probe_fractions=[2]", "at most 1"),
        ("model.image.image_size=0", "at least 16"),
        ("model.image.width=12", "a multiple of 8"),
        ("model.initial_temperature=0", "greater than 0"),
        ("model.projection_dim=0", "at least 1"),
        ("model.text.dropout=1", "less than 1"),
        ("model.text.max_positions=20", "0, or at least data.max_tokens (77)"),
        ("model.text.num_heads=5", "a divisor of model.text.hidden_dim (768)"),
        ("model.text.num_layers=0", "at least 1"),
        ("seed=-1", "at least 0"),
        ("train.checkpoint_every=-1", "at least 1"),
        ("train.clip_norm=0", "greater than 0"),
        ("train.epochs=-3", "greater than 0"),
        ("train.learning_rate=NaN", "a finite number"),
        ("train.log_every=0", "at least 1"),
        ("train.validate_every=0", "at least 1"),
        ("train.warmup_fraction=1", "less than 1"),
        ("train.weight_decay=-1", "at least 0"),
    ],
)
def test_every_number_has_its_bounds(assignment, requirement):
    with pytest.raises(ValueError, match=re.escape(requirement)) as error:
        override(RunConfig("mine"), [assignment])
    assert str(error.value).startswith(f"`{assignment.split('=')[0]}")
    assert "Received: " in str(error.value)


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (
            lambda: TrainConfig(strategy="bogus"),
            "`train.strategy` must be 'auto', 'one_device', 'mirrored' or 'multi_worker'. Received: 'bogus'.",
        ),
        (
            lambda: TrainConfig(batch_sise=3),
            "`train.batch_sise` must be a field of the run. Near",
        ),
        (
            lambda: dataclasses.replace(AugmentConfig(), flip=3),
            "`augment.flip` must be at most 1. Received: 3.",
        ),
        (lambda: ObjectiveConfig(name="gloris"), "Received: 'gloris'. Near names: gloria."),
    ],
)
def test_building_from_python_is_validated_with_the_same_sentence(build, sentence):
    with pytest.raises(ValueError, match="must be") as error:
        build()
    assert sentence in str(error.value)


PRETRAINED = [name for name in RUNS if RUNS[name]().train.learning_rate <= 1e-4]


@pytest.mark.parametrize("name", PRETRAINED)
def test_a_run_with_a_fine_tuning_rate_starts_from_pretrained_weights(name, monkeypatch):
    monkeypatch.setenv("MEDCLIP_WEIGHTS", "/weights")
    model = get_run(name).model
    assert model.text.preset == "/weights/Bio_ClinicalBERT"
    assert model.image.preset in ("resnet_50_imagenet", "swin_tiny_patch4_window7_224")
    assert len(PRETRAINED) == 6
