"""Data efficiency: shares of patients, a training each, resumed where it stopped, and its page."""

import json

import numpy as np
import pytest
from rich.console import Console

from medclip_keras.config import RunConfig, override, to_dict
from medclip_keras.data_efficiency import Plan, _train, main, measure_data_efficiency
from medclip_keras.records.batches import evaluation_sentences
from medclip_keras.runs import phantom_tiny
from medclip_keras.supervised import Start
from medclip_keras.training.run_json import read_run_json


def patients_of(run, share):
    run = override(run, [f"data.patient_share={share}"])
    batches = evaluation_sentences(run, "train").as_numpy_iterator()
    return {patient for batch in batches for patient in batch["patient_id"].tolist()}


def test_a_smaller_share_of_the_patients_is_part_of_a_larger_one(fitted):
    run = read_run_json(fitted.workdir)
    found = [patients_of(run, share) for share in (0.1, 0.4, 1)]
    assert found[0] < found[1] < found[2]
    deviation = np.sqrt(0.4 * 0.6 / len(found[2]))
    assert abs(len(found[1]) / len(found[2]) - 0.4) < 4 * deviation
    assert override(run, ["data.patient_share=0.1"]).data.images == run.data.images
    of_test = [
        [b["record_key"].tolist() for b in evaluation_sentences(override(run, a), "test").as_numpy_iterator()]
        for a in ([], ["data.patient_share=0.1"])
    ]
    assert of_test[0] == of_test[1]


@pytest.mark.slow
def test_the_command_trains_each_share_and_seed_once_and_draws_the_curve(fitted, tmp_path, capsys):
    run = read_run_json(fitted.workdir)
    arguments = ["--run", str(fitted.workdir / "run.json"), "--workdir", str(tmp_path), "--seeds", "3"]
    arguments += ["--images", *run.data.images, "--texts", *run.data.texts, "--fractions", "1", "0.3"]
    few = ["train.steps=3", "evaluation.bootstrap=20", 'evaluation.tasks=["zero_shot"]']
    assert main([*arguments, "--set", *few]) == 0
    found = json.loads((tmp_path / "data_efficiency.json").read_text())
    cells = [(point["kind"], point["share"], point["seed"]) for point in found["points"]]
    assert cells == [(kind, share, 3) for share in (0.3, 1.0) for kind in ("zero_shot", "supervised")]
    for point in found["points"]:
        cell = tmp_path / f"{point['kind']}-{point['share']:g}-seed3"
        metrics = json.loads((cell / "evaluation" / "metrics.json").read_text())["data"]["phantom"]
        variants = metrics[point["kind"]]["trained"]
        value = variants["ensemble" if point["kind"] == "zero_shot" else f"{point['share']:g}"]["accuracy"]
        assert point["data"]["phantom"]["accuracy"] == value
        assert read_run_json(cell).seed == 3
    assert "30 % of the training patients" in capsys.readouterr().out
    page = (tmp_path / "report.html").read_text()
    assert page.count("<svg role=") == 2
    assert "accuracy, supervised, the same start, 30 %" in page
    assert main([*arguments, "--set", *few]) == 0
    assert "of the training patients" not in capsys.readouterr().out  # nothing is trained again
    for change, sentence in (("train.batch_size=6", "train.batch_size"), ("train.steps=4", "of 3 steps")):
        assert main([*arguments, "--set", *few, change]) == 1
        assert sentence in capsys.readouterr().err


def test_finished_trainings_are_taken_evaluated_again_or_refused(monkeypatch, tmp_path):
    trained = []

    def train(kind, run, cell, console):
        trained.append(kind)
        (cell / "evaluation").mkdir(parents=True, exist_ok=True)
        metrics = {"evaluation": to_dict(run)["evaluation"], "data": {}}
        (cell / "evaluation" / "metrics.json").write_text(json.dumps(metrics))
        (cell / "run.json").write_text(json.dumps({"config": to_dict(run), "records": {}}))

    monkeypatch.setattr("medclip_keras.data_efficiency._train", train)
    monkeypatch.setattr("medclip_keras.data_efficiency._records", lambda run, *_: run.data)
    run, plan = RunConfig("mine"), Plan((1.0,), (0,))

    def trained_by(*changes):
        trained.clear()
        measure_data_efficiency(override(run, list(changes)), plan, tmp_path, Console(quiet=True))
        return trained

    both = ["zero_shot", "supervised"]
    assert trained_by() == both
    assert trained_by() == []
    assert trained_by("evaluation.bootstrap=20") == both
    with pytest.raises(ValueError, match=r"`--workdir` must be empty or hold .*seed0, of 10 epochs'"):
        trained_by("evaluation.bootstrap=20", "train.epochs=20")
    assert trained == []


@pytest.mark.parametrize(
    ("assignment", "weights"),
    [
        ("model.image.preset=", "random"),
        ("model.image.preset=resnet_18_imagenet", "preset"),
        ("train.start_from=earlier/run", "earlier/run"),
    ],
)
def test_the_supervised_peer_starts_where_the_run_starts(monkeypatch, tmp_path, assignment, weights):
    started = []
    monkeypatch.setattr(
        "medclip_keras.supervised.fit_supervised", lambda _, start, *more: [started.append(start)]
    )
    run = override(phantom_tiny(), [assignment, "data.patient_share=0.3"])
    _train("supervised", run, tmp_path, Console())
    assert started == [Start(weights, labels_share=0.3)]


def test_shares_and_seeds_are_checked_first(tmp_path, capsys):
    for wrong in (["--fractions", "0"], ["--fractions", "1.5"], ["--seeds", "-1"]):
        assert main(["--workdir", str(tmp_path), *wrong]) == 1
        assert "`--" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    assert Plan((1, 0.5, 1), (1, 0, 1), supervised=False).cells() == [
        ("zero_shot", share, seed) for share in (0.5, 1) for seed in (0, 1)
    ]
