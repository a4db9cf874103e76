import dataclasses
import itertools

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from medclip_keras.evaluation import probe as module
from medclip_keras.evaluation.metrics import Bootstrap
from medclip_keras.evaluation.probe import STRENGTHS, Examples, fit, probe, share_of
from medclip_keras.evaluation.report import figures_of, write
from medclip_keras.evaluation.table import rows
from medclip_keras.evaluation.tasks import Task


def examples(features, labels, prefix=""):
    keys = np.array([f"{prefix}{(37 * n) % 1009:04d}" for n in range(len(labels))])
    return Examples(np.asarray(features, np.float32), np.asarray(labels, np.float64), keys)


def blobs(rng, per_class, num_classes=3, num_features=8, distance=6.0, noise_only=False):
    """Features around one point per class, or all around one point."""
    class_index = np.repeat(np.arange(num_classes), per_class)
    features = rng.normal(size=(len(class_index), num_features))
    if not noise_only:
        features[:, :num_classes] += distance * np.eye(num_classes)[class_index]
    return features, np.eye(num_classes)[class_index]


def task_of(labels, name="single_finding"):
    rows = np.arange(len(labels))
    return Task(name, tuple("abcdefgh"[: labels.shape[1]]), rows, labels, *[rows.astype(str)] * 2)


def probed(rng, noise_only=False, fractions=(1.0,), per_class=60, test_labels=None):
    drawn = [blobs(rng, per_class, noise_only=noise_only) for _ in range(3)]
    task = task_of(drawn[2][1] if test_labels is None else test_labels(drawn[2][1]))
    return probe(
        task,
        {"trained": drawn[2][0]},
        {"trained": examples(*drawn[0])},
        {"trained": examples(*drawn[1], "v")},
        shares=fractions,
        bootstrap=Bootstrap(200, seed=0),
    )


def test_noise_scores_chance_within_its_interval():
    metrics = probed(np.random.default_rng(1), noise_only=True).metrics
    assert metrics["baseline"]["accuracy"] == pytest.approx(1 / 3)
    found = metrics["trained"]["1"]["accuracy"]
    assert found["low"] < 1 / 3 < found["high"] < 0.5
    assert metrics["trained"]["1"]["strength"] <= STRENGTHS[2]  # noise: a strong penalty is best


def test_test_labels_change_only_the_metrics():
    def shuffled(labels):
        return np.random.default_rng(9).permutation(labels)

    truth = probed(np.random.default_rng(2))
    wrong = probed(np.random.default_rng(2), test_labels=shuffled)
    assert wrong.metrics["trained"]["1"]["strength"] == truth.metrics["trained"]["1"]["strength"]
    np.testing.assert_array_equal(wrong.scores["1"]["trained"], truth.scores["1"]["trained"])
    assert wrong.metrics["trained"]["1"]["accuracy"]["value"] < 0.5


def test_validation_labels_choose_the_strength():
    rng = np.random.default_rng(3)
    training = examples(*blobs(rng, 15, num_features=60, distance=1.0))
    features, labels = blobs(rng, 100, num_features=60, distance=1.0)
    validated = fit(training, examples(features, labels), "single_finding")
    misled = fit(training, examples(features, rng.permutation(labels)), "single_finding")
    assert misled.strength < validated.strength
    assert fit(training, None, "single_finding").strength == module.WITHOUT_VALIDATION


def test_sigmoid_probe_equals_one_regression_per_finding_on_its_known_images():
    rng = np.random.default_rng(4)
    features = 3 + 2 * rng.normal(size=(80, 5))
    labels = (features[:, :2] + rng.normal(size=(80, 2)) > 3.5).astype(float)
    labels[::7, 1] = np.nan
    found = fit(examples(features, labels), None, "multi_label")
    x = (features - features.mean(0)) / features.std(0)
    for k in range(2):
        known = ~np.isnan(labels[:, k])
        y, n = labels[known, k], known.sum()
        weights = np.where(y == 1, n / (2 * y.sum()), n / (2 * (1 - y).sum()))
        model = LogisticRegression(C=found.strength, tol=1e-8, max_iter=5000).fit(x[known], y, weights)
        np.testing.assert_allclose(found.weights[:, k], model.coef_[0], atol=1e-4)
        assert found.bias[k] == pytest.approx(model.intercept_[0], abs=1e-4)


def test_gradient_of_the_softmax_probe_is_zero_at_its_optimum():
    rng = np.random.default_rng(5)
    features, labels = blobs(rng, 30, distance=1.0)
    labels = np.concatenate([labels, labels[:20]])  # unequal classes
    features = np.concatenate([features, features[:20] + 0.3])
    found = fit(examples(features, labels), None, "single_finding")
    x = found.scaler.transform(np.float32(features)).astype(float)
    scores = x @ found.weights + found.bias
    probabilities = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    balance = len(labels) / (3 * labels.sum(0))  # classes weigh the same
    residual = (probabilities - labels) * (labels @ balance)[:, None]
    np.testing.assert_allclose(found.weights + found.strength * x.T @ residual, 0, atol=1e-4)
    np.testing.assert_allclose(residual.sum(0), 0, atol=1e-3)


def test_a_class_without_a_training_image_is_never_predicted():
    features, labels = blobs(np.random.default_rng(7), 40, distance=0.5)
    seen = labels[:, 1] == 0
    found = fit(examples(features[seen], labels[seen]), None, "single_finding")
    scores = found.scores(features)
    assert set(scores.argmax(1)) == {0, 2}
    assert np.ptp(scores[:, 1]) == 0


def test_validation_losses_weigh_the_classes_equally():
    # Probabilities of the true class: 1/2 twice and 1/4 once; classes of two images and of one.
    logits = np.log([[1.0, 1.0], [2.0, 2.0], [3.0, 1.0]])
    found = module._softmax_loss(logits, np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
    assert found == pytest.approx((np.log(2) + np.log(4)) / 2)
    # A positive at log 3 (3/4), negatives at 0 and log 3 (1/2 and 1/4), one unknown; a finding of one class.
    scores = np.log([[3.0, 1.0], [1.0, 1.0], [3.0, 1.0], [9.0, 1.0]])
    labels = np.array([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0], [np.nan, 0.0]])
    expected = (np.log(4 / 3) + (np.log(2) + np.log(4)) / 2) / 2
    assert module._sigmoid_loss(scores, labels) == pytest.approx(expected)
    assert np.isnan(module._sigmoid_loss(scores, labels[:, [1, 1]]))


def test_a_finding_without_a_positive_has_a_constant_score():
    rng = np.random.default_rng(8)
    features, labels = blobs(rng, 20)
    labels[:, 1] = 0
    scores = fit(examples(features, labels), None, "multi_label").scores(features)
    assert np.ptp(scores[:, 1]) == 0
    assert np.ptp(scores[:, 0]) > 0.1


def test_shares_are_taken_from_each_class_and_are_nested():
    labels = np.eye(3)[[0] * 50 + [1] * 10 + [2]]
    some = examples(np.zeros((61, 2)), labels)
    chosen = {share: share_of(some, share, "single_finding") for share in (0.02, 0.1, 0.5, 1.0)}
    counts = [labels[rows].sum(0).tolist() for rows in chosen.values()]
    assert counts == [[1, 1, 1], [5, 1, 1], [25, 5, 1], [50, 10, 1]]
    sets = [set(rows) for rows in chosen.values()]
    assert all(smaller < larger for smaller, larger in itertools.pairwise(sets))
    of_class = np.flatnonzero(labels[:, 0])
    assert set(of_class[np.argsort(some.keys[of_class])[:5]]) == set(chosen[0.1]) & set(of_class)
    assert len(share_of(some, 0.1, "multi_label")) == 7  # of 61


def test_more_labels_help():
    metrics = probed(np.random.default_rng(10), fractions=(0.05, 1.0)).metrics
    assert metrics["num_training_images"] == {"0.05": 9, "1": 180}
    assert metrics["num_validation_images"] == 180
    assert metrics["trained"]["0.05"]["accuracy"]["value"] <= metrics["trained"]["1"]["accuracy"]["value"]


def test_features_that_are_not_finite_are_refused():
    features, labels = blobs(np.random.default_rng(0), 5)
    features[3, 2] = np.inf
    with pytest.raises(ValueError, match="`features` must be finite"):
        fit(examples(features, labels), None, "single_finding")


@pytest.fixture(scope="module")
def probe_config(config):
    return dataclasses.replace(config, tasks=("probe",), probe_fractions=(1.0, 0.1))


def labelled(world, seed=100):
    return {"world": (world.image_batches(seed=seed), world.image_batches(120, seed=seed + 1))}


def run(world, config, sentences=(), **options):
    options = {"untrained": world.blind, "labelled": labelled(world)} | options
    return world.evaluate(config, sentences=sentences, **options)


def test_probe_of_an_oracle_scores_one_and_of_a_blind_model_chance(world, probe_config):
    result = run(world, probe_config)
    assert set(result.metrics) == {"probe"}
    metrics = result.metrics["probe"]
    assert metrics["trained"]["1"]["accuracy"]["value"] == 1.0
    blind = metrics["untrained"]["1"]["accuracy"]
    assert blind["low"] < 1 / 3 < blind["high"]
    columns = [world.names.index(name) for name in world.findings]
    states = np.concatenate([b["label_states"] for b in world.image_batches(seed=100)])
    assert metrics["num_training_images"]["1"] == ((states[:, columns] == 1).sum(axis=1) == 1).sum()


def test_probe_leaves_the_other_tasks_unchanged(world, config, measured):
    config = dataclasses.replace(config, tasks=("zero_shot", "retrieval", "probe"))
    result = run(world, config, world.sentence_batches())
    assert result.metrics["zero_shot"] == measured.metrics["zero_shot"]
    assert result.metrics["retrieval"] == measured.metrics["retrieval"]
    assert result.metrics["probe"]["num_images"] == result.metrics["zero_shot"]["num_images"]


def test_probe_has_rows_a_table_by_class_and_a_plot(world, config, tmp_path):
    config = dataclasses.replace(config, tasks=("zero_shot", "probe"), probe_fractions=(0.1, 1.0))
    result = run(world, config)
    found = {row.name: row for row in rows(result)}
    few, all_labels = (found[f"linear probe accuracy{share}"] for share in (", 10 % of labels", ""))
    assert all_labels.trained.value == 1.0
    assert few.untrained.value == result.metrics["probe"]["untrained"]["0.1"]["accuracy"]["value"]
    assert "probe" in figures_of(result)
    write({"world": result}, tmp_path, {"run": "test run"})
    assert "by class, linear probe, all labels" in (tmp_path / "report.html").read_text()


def test_multi_label_probe_has_the_class_abnormal(world, probe_config):
    findings = ("Abnormal", "Mass", "Edema")
    config = dataclasses.replace(probe_config, task="multi_label", findings=findings)
    metrics = run(world, config).metrics["probe"]
    assert set(metrics["baseline"]) == {"auroc", "auprc", "macro_f1"}
    assert metrics["trained"]["1"]["macro_f1"]["value"] == 1.0  # at thresholds of validation images
    by_class = metrics["trained"]["1"]["by_class"]
    assert {k: v["auroc"]["value"] for k, v in by_class.items()} == dict.fromkeys(findings, 1.0)
    assert metrics["num_training_images"] == {"1": 240, "0.1": 24}


def test_without_validation_images_the_strength_is_the_documented_one(world, probe_config):
    only_training = {"world": (world.image_batches(seed=100), ())}
    metrics = run(world, probe_config, labelled=only_training).metrics["probe"]
    assert metrics["num_validation_images"] == 0
    assert metrics["trained"]["1"]["strength"] == module.WITHOUT_VALIDATION


def test_no_probe_without_training_images_of_two_classes(world, probe_config, config):
    with pytest.raises(ValueError, match=r"`images` must be .*, and such training images"):
        run(world, probe_config, labelled={"world": ((), ())})
    both = dataclasses.replace(config, tasks=("zero_shot", "probe"))
    assert set(run(world, both, labelled={}).metrics) == {"zero_shot"}


def test_further_draws_of_a_share_are_other_images_and_their_spread_is_given(world, probe_config):
    examples = Examples(np.zeros((40, 1)), np.eye(2)[np.arange(40) % 2], np.arange(40).astype(str))
    drawn = [tuple(share_of(examples, 0.25, "single_finding", seed)) for seed in range(4)]
    assert len(set(drawn)) == 4
    for of_seed in drawn:
        assert np.bincount(np.array(of_seed) % 2).tolist() == [5, 5]
    config = dataclasses.replace(probe_config, probe_seeds=3, bootstrap=20)
    found = run(world, config).metrics["probe"]["trained"]
    assert "seeds" not in found["1"]  # all images are one draw
    spread = found["0.1"]["seeds"]
    assert set(spread) == {"accuracy", "balanced_accuracy", "macro_f1", "auroc", "auprc"}
    assert spread["accuracy"]["number"] == 3
    one = run(world, dataclasses.replace(config, probe_seeds=1)).metrics["probe"]["trained"]
    assert one["0.1"] == {name: of for name, of in found["0.1"].items() if name != "seeds"}
