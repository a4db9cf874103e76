import dataclasses

import numpy as np
import pytest

from medclip_keras.evaluation.plots import draw
from medclip_keras.evaluation.report import write
from medclip_keras.evaluation.supervised import measure_classifier
from medclip_keras.evaluation.table import rows, sizes


def sees(names, world):
    """A classifier that reads the logits of some concepts off the pixels."""
    columns = [world.names.index(name) for name in names]
    return lambda images: images.reshape(len(images), -1)[:, columns].astype(np.float32)


def measured_with(world, config, score, names, share=1.0):
    options = {"num_training_images": 77, "share": share}
    return measure_classifier(score, names, world.image_batches(), config, world.names, **options)


def test_a_classifier_that_sees_scores_one_on_the_images_of_zero_shot(world, config, measured):
    result = measured_with(world, config, sees(world.findings, world), world.findings)
    figures = result.metrics["supervised"]
    assert figures["trained"]["1"]["accuracy"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert figures["num_positive"] == measured.metrics["zero_shot"]["num_positive"]
    assert figures["num_training_images"] == {"1": 77}


def test_logits_stand_for_the_concepts_by_name_not_by_place(world, config):
    names = world.findings[::-1]
    assert (
        measured_with(world, config, sees(names, world), names).metrics["supervised"]["trained"]["1"][
            "accuracy"
        ]["value"]
        == 1.0
    )
    wrong = measured_with(world, config, sees(names, world), world.findings)
    assert wrong.metrics["supervised"]["trained"]["1"]["accuracy"]["value"] < 0.5


def test_abnormal_is_the_opposite_of_no_finding(world, config):
    config = dataclasses.replace(config, task="multi_label", findings=("Abnormal", "Mass"))
    by_class = measured_with(world, config, sees(world.names, world), world.names).metrics["supervised"][
        "trained"
    ]["1"]["by_class"]
    assert {name: by_class[name]["auroc"]["value"] for name in by_class} == {"Abnormal": 1.0, "Mass": 1.0}


def test_without_an_image_of_the_task_there_is_no_result(world, config):
    blank = [{**b, "label_states": np.zeros_like(b["label_states"])} for b in world.image_batches(60)]
    options = {"num_training_images": 1}
    result = measure_classifier(
        sees(world.names, world), world.findings, blank, config, world.names, **options
    )
    assert result.metrics == {}


@pytest.mark.parametrize("task", ["single_finding", "multi_label"])
def test_its_report_has_rows_and_figures(world, config, tmp_path, task):
    config = dataclasses.replace(config, task=task)
    result = measured_with(world, config, sees(world.names, world), world.names, share=0.1)
    write({"world": result}, tmp_path, {"run": "peer"})
    assert set(draw(result)) == ({"roc", "confusion"} if task == "single_finding" else {"roc"})
    found = {row.name: row for row in rows(result)}
    assert found["supervised macro AUROC, 10 % of labels"].trained.value == 1.0
    assert found["supervised macro AUROC, 10 % of labels"].untrained is None
    assert "77 training images" in sizes(result)
    assert "supervised, 10 % of labels" in (tmp_path / "report.html").read_text()
