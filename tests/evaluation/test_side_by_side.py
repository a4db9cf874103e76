"""Runs beside each other: paired differences on shared images, by name, over patients."""

import csv
import dataclasses
import json
import shutil

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from medclip_keras.evaluate import main
from medclip_keras.evaluation.classification import estimate_scores
from medclip_keras.evaluation.metrics import Bootstrap
from medclip_keras.evaluation.report import write
from medclip_keras.evaluation.side_by_side import compare, read_runs, write_comparison
from tests.evaluation.conftest import BlindEmbedder, evaluate_world


@pytest.fixture(scope="module")
def folders(config, tmp_path_factory):
    """Evaluations of the oracle, of a blind model, and of another blind one."""
    root = tmp_path_factory.mktemp("runs")
    results = {"oracle": None, "blind": BlindEmbedder(), "blinder": BlindEmbedder(1)}
    for name, embedder in results.items():
        result = evaluate_world(config, embedder=embedder)
        write({"world": result}, root / name / "evaluation", {"run": name})
    return root


def read_scores(folder):
    with (folder / "evaluation" / "scores.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_differences_are_those_of_the_scores_and_paired_by_name_in_any_order(folders, tmp_path):
    moved = tmp_path / "blind"
    shutil.copytree(folders / "blind", moved)
    rows = read_scores(moved)
    images = [rows[i : i + 3] for i in range(0, len(rows), 3)]
    with (moved / "evaluation" / "scores.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(row for image in images[:0:-1] for row in image)  # reversed, without the first
    found = compare(read_runs([str(folders / "oracle"), str(moved)]), Bootstrap(200, 0))
    paired = found["zero_shot_ensemble"]["world"]
    assert paired["num_images"] == len(images) - 1
    assert paired["num_images_of_runs"] == [len(images), len(images) - 1]
    kept = [{row["class"]: row for row in image} for image in images[1:]]
    scores = np.array([[float(row["score"]) for row in image.values()] for image in kept])
    scores -= scores.mean(axis=1, keepdims=True)
    truth = np.array([[int(row["truth"]) for row in image.values()] for image in kept])
    areas = [roc_auc_score(truth[:, k], scores[:, k]) for k in range(3)]
    values = paired["metrics"]["auroc"]
    assert values["values"][0]["value"] == 1
    assert values["values"][1]["value"] == pytest.approx(np.mean(areas), abs=1e-9)
    (difference,) = values["differences"]
    assert difference["value"] == pytest.approx(np.mean(areas) - 1, abs=1e-9)
    assert difference["high"] < 0
    name = f"by_class.{next(iter(kept[0]))}.auroc"
    assert paired["metrics"][name]["differences"][0]["value"] == pytest.approx(areas[0] - 1, abs=1e-9)


def test_a_run_beside_itself_differs_by_nothing(folders, tmp_path):
    shutil.copytree(folders / "blind", tmp_path / "twin")
    found = compare(read_runs([str(folders / "blind"), str(tmp_path / "twin")]), Bootstrap(50, 0))
    for metric in found["zero_shot_ensemble"]["world"]["metrics"].values():
        assert metric["differences"] == [{"value": 0.0, "low": 0.0, "high": 0.0}]


def test_intervals_are_over_patients_of_two_images(folders):
    """A patient's images come together, so the interval is wider than over images."""
    runs = read_runs([str(folders / "blind"), str(folders / "blinder")])
    paired = compare(runs, Bootstrap(500, 0))["zero_shot_ensemble"]["world"]
    task = runs[0].scored["world"].task
    assert paired["num_patients"] == len(np.unique(task.patient_ids)) < paired["num_images"]
    assert paired["has_patients"]
    own = estimate_scores(task, runs[0].scored["world"].scores, Bootstrap(500, 0)).overall["accuracy"]
    assert paired["metrics"]["accuracy"]["values"][0] == own.to_dict()


def test_a_table_without_patients_is_read_and_said(folders, tmp_path):
    old = tmp_path / "old"
    shutil.copytree(folders / "blind", old)
    rows = read_scores(old)
    with (old / "evaluation" / "scores.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0])[:-1], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    runs = read_runs([str(folders / "oracle"), str(old)])
    found = write_comparison(runs, tmp_path / "out", Bootstrap(20, 0))
    assert not found["zero_shot_ensemble"]["world"]["has_patients"]
    assert "names no patients" in (tmp_path / "out" / "report.html").read_text()


def test_the_command_writes_a_page_and_json(folders, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = ["oracle", "blind", "blinder"]
    assert main(["--compare", *(str(folders / name) for name in names)]) == 0
    found = json.loads((tmp_path / "comparison" / "comparison.json").read_text())
    assert found["runs"] == names
    assert found["metrics"]["world.zero_shot.ensemble.accuracy"][0]["value"] == 1
    assert found["metrics"]["world.retrieval.precision_at_1"][0]["value"] == 1
    page = (tmp_path / "comparison" / "report.html").read_text()
    for name in names[1:]:
        assert f"{name} less oracle" in page
    assert " *</td>" in page
    assert "comparison/report.html" in capsys.readouterr().out


def test_what_cannot_be_compared_is_refused(folders, config, tmp_path):
    oracle = str(folders / "oracle")
    for wanted, form in (
        ([oracle], "at least two folders"),
        ([oracle, str(tmp_path)], "folders with metrics.json and scores.csv"),
        ([oracle, oracle], "distinct folders"),
    ):
        with pytest.raises(ValueError, match=form):
            read_runs(wanted)
    other = evaluate_world(dataclasses.replace(config, findings=config.findings[:2]))
    write({"world": other}, tmp_path / "other", {"run": "other"})
    with pytest.raises(ValueError, match="with the same task and classes"):
        compare(read_runs([oracle, str(tmp_path / "other")]), Bootstrap(0, 0))
    relabelled = tmp_path / "relabelled"
    shutil.copytree(folders / "blind", relabelled)
    path = relabelled / "evaluation" / "scores.csv"
    first, *rest = path.read_text().splitlines()
    swapped = [",".join([*c[:4], str(1 - int(c[4])), c[5]]) for c in (line.split(",") for line in rest[:3])]
    path.write_text("\n".join([first, *swapped, *rest[3:]]) + "\n")
    with pytest.raises(ValueError, match="with equal labels of each image"):
        compare(read_runs([oracle, str(relabelled)]), Bootstrap(0, 0))
