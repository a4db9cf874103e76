import dataclasses
import json

import numpy as np
import pytest

from medclip_keras.evaluation.evaluator import evaluate
from medclip_keras.evaluation.table import sizes


@pytest.mark.parametrize("mode", ["single", "ensemble"])
def test_an_oracle_scores_one_in_zero_shot(measured, mode):
    found = measured.metrics["zero_shot"]["trained"][mode]
    assert found["accuracy"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert found["auroc"]["value"] == 1.0
    assert all(of_class["auroc"]["value"] == 1.0 for of_class in found["by_class"].values())


def test_an_oracle_scores_one_in_retrieval(measured):
    found = measured.metrics["retrieval"]["trained"]
    assert {k: v["value"] for k, v in found.items()} == {f"precision_at_{k}": 1.0 for k in (1, 2, 5, 10)}


@pytest.mark.parametrize("mode", ["single", "ensemble"])
def test_a_blind_model_scores_chance_within_its_interval(measured, mode):
    metrics = measured.metrics["zero_shot"]
    for key, chance in metrics["baseline"].items():
        found = metrics["untrained"][mode][key]
        if key == "macro_f1":  # of always the same class, which a guess beats
            assert chance < found["low"]
            continue
        assert found["low"] < chance < found["high"]
        assert found["high"] - found["low"] < 0.4


def test_a_blind_model_retrieves_at_chance(measured):
    metrics = measured.metrics["retrieval"]
    assert metrics["baseline"] == {f"precision_at_{k}": pytest.approx(1 / 3) for k in (1, 2, 5, 10)}
    found = metrics["untrained"]["precision_at_10"]
    assert found["low"] < 1 / 3 < found["high"]


def test_only_images_with_exactly_one_of_the_findings_are_classified(measured, world):
    states = np.concatenate([b["label_states"] for b in world.image_batches()])
    columns = [world.names.index(name) for name in world.findings]
    expected = {
        name: int(((states[:, columns] == 1).sum(axis=1) == 1)[states[:, column] == 1].sum())
        for name, column in zip(world.findings, columns, strict=True)
    }
    assert measured.metrics["zero_shot"]["num_positive"] == expected
    assert measured.metrics["retrieval"]["num_queries"] == sum(expected.values())


def test_metrics_do_not_depend_on_the_order_or_batches_of_the_records(config, measured, world):
    rows = {k: np.concatenate([b[k] for b in world.image_batches()]) for k in world.image_batches()[0]}
    order = np.random.default_rng(1).permutation(len(rows["images"]))
    batches = [{k: v[order[i : i + 33]] for k, v in rows.items()} for i in range(0, len(order), 33)]
    again = world.evaluate(config, batches, untrained=world.blind)
    for who in ("trained", "untrained"):
        assert again.metrics["zero_shot"][who] == measured.metrics["zero_shot"][who]
        assert again.metrics["retrieval"][who] == measured.metrics["retrieval"][who]


def test_swapped_labels_ruin_an_oracle(config, world):
    swap = [0, 2, 1, 3, 4, 5]
    batches = [{**b, "label_states": b["label_states"][:, swap]} for b in world.image_batches()]
    metrics = world.evaluate(config, batches).metrics
    by_class = metrics["zero_shot"]["trained"]["ensemble"]["by_class"]
    accuracy = {name: found["accuracy"]["value"] for name, found in by_class.items()}
    assert accuracy == {"Edema": 0.0, "Cardiomegaly": 0.0, "Pleural Effusion": 1.0}
    assert metrics["retrieval"]["trained"]["precision_at_1"]["value"] < 0.6


def test_multi_label_measures_abnormal_against_normal_prompts(config, world, tmp_path):
    prompts = {"Edema": ["edema"], "Mass": ["mass", "a mass"], "Hernia": ["hernia"], "No Finding": ["normal"]}
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps(prompts))
    findings = ("Abnormal", "Edema", "Mass", "Hernia")
    config = dataclasses.replace(config, task="multi_label", findings=findings, prompts=str(path))
    metrics = world.evaluate(config).metrics
    zero_shot = metrics["zero_shot"]
    assert zero_shot["num_images"] == 240
    assert set(zero_shot["baseline"]) == {"auroc", "auprc"}  # no thresholds of F1 without validation images
    for mode in ("single", "ensemble"):
        by_class = zero_shot["trained"][mode]["by_class"]
        # "Abnormal" includes images with Cardiomegaly or an effusion, which have no prompt here.
        assert {name: by_class[name]["auroc"]["value"] for name in by_class} == dict.fromkeys(findings, 1.0)
    assert set(metrics["retrieval"]["num_candidates"]) == {"Edema", "Mass", "Hernia"}


def test_data_sets_are_measured_separately(config, world):
    blank = [{**b, "label_states": np.full_like(b["label_states"], 2)} for b in world.image_batches(60)]
    images = {"w": world.image_batches(), "blank": blank}
    results = evaluate(world.oracle, images, world.sentence_batches(), config, world.names)
    assert results["blank"].metrics == {}
    assert results["w"].metrics["zero_shot"]["trained"]["single"]["accuracy"]["value"] == 1.0


@pytest.mark.parametrize("tasks", [("zero_shot",), ("retrieval",)])
def test_only_the_requested_tasks_run(config, tasks, world):
    found = world.evaluate(dataclasses.replace(config, tasks=tasks)).metrics
    assert {*found} - {"cross_retrieval"} == {*tasks}
    assert ("cross_retrieval" in found) == ("retrieval" in tasks)


@pytest.mark.parametrize("task", ["fine_tune", "leaks"])
def test_tasks_that_are_measured_elsewhere_may_stand_alone(config, task, world):
    assert set(world.evaluate(dataclasses.replace(config, tasks=(task,))).metrics) <= {"leaks"}


def test_without_sentences_there_is_no_retrieval(config, world):
    assert set(world.evaluate(config, sentences=[]).metrics) == {"zero_shot"}


@pytest.mark.parametrize(
    ("findings", "task", "expected"),
    [
        (("Edema", "Effusion"), "single_finding", "concepts of the table.*Near names: Pleural Effusion"),
        (("Edema", "Abnormal"), "single_finding", "concepts of the table"),
        (("Edema", "No Finding"), "multi_label", "findings other than the normal class.*Use 'Abnormal'"),
        (("Edema",), "single_finding", "at least 2"),
    ],
)
def test_unusable_findings_are_refused(config, findings, task, expected, world):
    config = dataclasses.replace(config, findings=findings, task=task)
    with pytest.raises(ValueError, match=f"`evaluation.findings` must be {expected}"):
        evaluate(world.oracle, {}, [], config, world.names)


def test_nothing_to_evaluate_is_refused(config, world):
    blank = [{**b, "label_states": np.zeros_like(b["label_states"])} for b in world.image_batches(60)]
    with pytest.raises(ValueError, match="`images` must be a data set with held-out images"):
        world.evaluate(config, blank, sentences=[])


def test_batches_in_another_order_the_second_time_are_refused(config, world):
    class Restless:
        reads = 0

        def __iter__(self):
            self.reads += 1
            return iter(world.image_batches(seed=self.reads))

    with pytest.raises(ValueError, match="same order"):
        world.evaluate(config, Restless(), sentences=[])


def test_embeddings_that_are_not_finite_are_refused(config, world):
    class Broken(type(world.oracle)):
        def embed_images(self, images):
            return np.full((len(images), len(world.names)), np.nan, np.float32)

    with pytest.raises(ValueError, match="`scores` must be finite"):
        world.evaluate(config, sentences=[], embedder=Broken())


def test_a_finding_without_sentences_is_named_and_in_no_figure_of_retrieval(config, measured, world):
    edema = world.names.index("Edema")
    sentences = [
        {name: values[batch["label_states"][:, edema] != 1] for name, values in batch.items()}
        for batch in world.sentence_batches()
    ]
    result = world.evaluate(config, sentences=sentences)
    found, every = result.metrics["retrieval"], measured.metrics
    assert found["num_candidates"]["Edema"] == 0
    assert found["not_retrieved"] == ["Edema"]
    assert every["retrieval"]["not_retrieved"] == []
    without = every["zero_shot"]["num_images"] - every["zero_shot"]["num_positive"]["Edema"]
    assert found["num_queries"] == without
    assert {k: v["value"] for k, v in found["trained"].items()} == {
        f"precision_at_{k}": 1.0 for k in (1, 2, 5, 10)
    }
    assert "has this finding alone: Edema" in sizes(result)
