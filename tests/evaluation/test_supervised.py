import dataclasses

import numpy as np
import pytest

from medclip_keras.evaluation.report import figures_of, write
from medclip_keras.evaluation.supervised import measure_classifier
from medclip_keras.evaluation.table import rows, sizes


def measured_with(world, config, names, *, called=None, share=1.0, batches=None):
    """Result of a classifier that reads the logits of `names` from the pixels and calls them `called`."""
    columns = [world.names.index(name) for name in names]
    options = {"num_training_images": 77, "share": share}

    def score(images):
        return images.reshape(len(images), -1)[:, columns].astype(np.float32)

    batches = batches or world.image_batches()
    return measure_classifier(score, called or names, batches, config, world.names, **options)


def test_a_perfect_classifier_scores_one_on_the_images_of_zero_shot(world, config, measured):
    found = measured_with(world, config, world.findings).metrics["supervised"]
    assert found["trained"]["1"]["accuracy"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert found["num_positive"] == measured.metrics["zero_shot"]["num_positive"]
    assert found["num_training_images"] == {"1": 77}


def test_logits_are_matched_to_concepts_by_name(world, config):
    names = world.findings[::-1]
    right, wrong = (
        measured_with(world, config, names, called=called).supervised.estimates["1"]["trained"].overall
        for called in (names, world.findings)
    )
    assert right["accuracy"].value == 1.0
    assert wrong["accuracy"].value < 0.5


def test_abnormal_is_the_opposite_of_no_finding(world, config):
    config = dataclasses.replace(config, task="multi_label", findings=("Abnormal", "Mass"))
    by_class = measured_with(world, config, world.names).supervised.estimates["1"]["trained"].by_class
    assert {name: found["auroc"].value for name, found in by_class.items()} == {"Abnormal": 1.0, "Mass": 1.0}


def test_without_an_image_of_the_task_there_is_no_result(world, config):
    blank = [{**b, "label_states": np.zeros_like(b["label_states"])} for b in world.image_batches(60)]
    assert measured_with(world, config, world.findings, batches=blank).metrics == {}


@pytest.mark.parametrize("task", ["single_finding", "multi_label"])
def test_a_classifiers_report_has_rows_and_plots(world, config, tmp_path, task):
    config = dataclasses.replace(config, task=task)
    result = measured_with(world, config, world.names, share=0.1)
    write({"world": result}, tmp_path, {"run": "peer"})
    curves = {"roc", "precision_recall"}
    assert set(figures_of(result)) == (curves | {"confusion"} if task == "single_finding" else curves)
    found = {row.name: row for row in rows(result)}
    assert found["supervised macro AUROC, 10 % of labels"].trained.value == 1.0
    assert found["supervised macro AUROC, 10 % of labels"].untrained is None
    assert "77 training images" in sizes(result)
    assert "supervised, 10 % of labels" in (tmp_path / "report.html").read_text()
