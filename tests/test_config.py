"""Configurations: what is refused, with which words, and that run.json replays a run."""

import json
import re

import pytest

from medclip_keras.config import RunConfig, from_dict, override, to_dict
from medclip_keras.runs import RUNS, get_run


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


def test_get_run_replays_a_run_json(tmp_path):
    run = override(get_run("phantom_tiny"), ["seed=5", "augment.flip=0"])
    (tmp_path / "run.json").write_text(json.dumps({"config": to_dict(run), "versions": {}}))
    assert get_run(str(tmp_path / "run.json")) == run


@pytest.mark.parametrize(
    ("assignment", "sentence"),
    [
        ("train.stpes=3", "`train.stpes` must be a field of the run. Near names: train.steps"),
        ("steps=3", "`steps` must be a field of the run. Near names: train.steps"),
        ("train=3", "`train` must be valid"),
        ("train.steps=many", "`train.steps` must be valid"),
        ("train.steps=-1", "`train.steps` must be 0 (use epochs) or more. Received: -1."),
        ("data.coding=three", "`data.coding` must be valid"),
        (
            "model.image.image_size=300",
            "`model.image.image_size` must be at most data.stored_image_size (256)",
        ),
        ("data.split_fractions=[0.5,0.1,0.1]", "`data.split_fractions` must be three shares that sum to 1"),
        ("objective.target_temperature=0", "`objective.target_temperature` must be positive"),
        ("objective.tree_closeness=1.1", "`objective.tree_closeness` must be in [0, 1]. Received: 1.1."),
        ("objective.concept_weights=tfidf", "`objective.concept_weights` must be valid"),
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
        (["data.text_unit=report"], "`data.text_unit` must be sentence unless data.pairing is pairs"),
        (["data.paired_share=0"], "`data.paired_share` must be in (0, 1]. Received: 0"),
        (["augment.crop_share=[0.9,0.5]"], "`augment.crop_share` must be two ascending shares in (0, 1]."),
        (["augment.blur_sigma=[-1,2]"], "`augment.blur_sigma` must be two ascending widths, 0 or more."),
        (["objective.instance_weight=2"], "`objective.instance_weight` must be in [0, 1]. Received: 2"),
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


def test_assignments_take_numbers_lists_and_words():
    run = override(
        RunConfig("mine"), ["train.learning_rate=1e-3", 'data.images=["a","b"]', "model.image.preset=x/y"]
    )
    assert (run.train.learning_rate, run.data.images, run.model.image.preset) == (1e-3, ("a", "b"), "x/y")
