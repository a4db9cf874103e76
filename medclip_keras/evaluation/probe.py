"""Linear probe: logistic regression from the features of a frozen image encoder to the findings.

With x_i the features of training image i before the projection, each standardised over the training images,
y_i its class, and c_y such that all classes weigh the same,

    W, b  minimise  |W|^2 / 2 + C sum_i c_(y_i) loss(y_i, W x_i + b)

In `single_finding` the loss is the cross-entropy of the softmax; in `multi_label` it is, separately for each
finding, the cross-entropy of the sigmoid over the images in which the finding is known. C is the member of
`STRENGTHS` with the smallest class-balanced cross-entropy on the validation images, one for all findings; the
test images are classified once, with it. A share of the labels is the training images with the smallest
record keys, so smaller shares are subsets of larger ones; further draws of a share say how much depends on
which images have labels. The validation images are all used, whatever the
share.

Follows: Radford et al., ICML 2021 (CLIP), section 3.2, for the logistic regression and the features; Zhang et
    al., MLHC 2022 (ConVIRT), section 5, for the shares; Wang et al., EMNLP 2022, Table 2, which calls it
    fine-tuning.
Departs: MedCLIP's released code trains the same weights with Adam (20 epochs of augmented images, rate 5e-4)
    and stops where the test images are classified best.
"""

import dataclasses
import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from medclip_keras.errors import require
from medclip_keras.evaluation.arrays import ByModel, Floats, Ints, Strings
from medclip_keras.evaluation.classification import estimate_scores, f1_thresholds, score_statistics
from medclip_keras.evaluation.metrics import Bootstrap, mean_and_std
from medclip_keras.evaluation.results import ClassificationResult
from medclip_keras.evaluation.tasks import Task, first_of_each_class

STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)  # C, from the strongest penalty to the weakest
WITHOUT_VALIDATION = 1e-2  # C if there are no validation images

Regression = tuple[Floats, Floats]  # weights (F, num_classes), bias (num_classes,)


@dataclass(frozen=True)
class Examples:
    """Features and labels of images."""

    features: Floats  # (num_images, F)
    labels: Floats  # (num_images, num_classes) of 0, 1 and NaN (unknown)
    keys: Strings  # (num_images,), distinct

    def at(self, rows: Ints) -> "Examples":
        """The examples of some rows."""
        return Examples(self.features[rows], self.labels[rows], self.keys[rows])


@dataclass(frozen=True)
class Probe:
    """A fitted probe."""

    scaler: StandardScaler
    weights: Floats  # (F, num_classes)
    bias: Floats  # (num_classes,)
    strength: float  # C

    def scores(self, features: Floats) -> Floats:
        """Features (num_images, F) to scores (num_images, num_classes)."""
        scores: Floats = self.scaler.transform(features) @ self.weights + self.bias
        return scores


def probe(
    task: Task,
    features: ByModel,
    training: Mapping[str, Examples],
    validation: Mapping[str, Examples],
    *,
    shares: Sequence[float],
    bootstrap: Bootstrap,
    num_seeds: int = 1,
) -> ClassificationResult:
    """Fit a probe for each model and each share of the labels, and classify the test images.

    Args:
        task: the test images; its name selects softmax or sigmoids.
        features: model → float (num_images, F) of the test images.
        training: model → images to fit on; the same images for every model.
        validation: model → images to choose the strength on; empty if there are none.
        shares: of the training images, in (0, 1].
        bootstrap: of the intervals.
        num_seeds: draws of each share; the intervals are of the first, the spread is over all.
    """
    examples = next(iter(training.values()))
    rows_of = {f"{share:g}": share_of(examples, share, task.name) for share in sorted(set(shares))}
    counts = task.counts() | {
        "num_training_images": {variant: len(rows) for variant, rows in rows_of.items()},
        "num_validation_images": max((len(v.keys) for v in validation.values()), default=0),
    }
    result = ClassificationResult(task, counts, dict(task.baseline), {}, {})
    for variant, rows in rows_of.items():
        probes = {who: fit(training[who].at(rows), validation.get(who), task.name) for who in features}
        scores = {who: fitted.scores(features[who]) for who, fitted in probes.items()}
        result.scores[variant] = scores
        result.thresholds[variant] = thresholds = _thresholds(task, probes, validation)
        result.estimates[variant] = {
            who: dataclasses.replace(
                estimate_scores(task, scores[who], bootstrap, thresholds.get(who)), strength=fitted.strength
            )
            for who, fitted in probes.items()
        }
        result.baseline.update(task.baseline_of_thresholds if thresholds else {})
        draws = [share_of(examples, float(variant), task.name, seed) for seed in range(1, num_seeds)]
        for who in features if float(variant) < 1 and draws else ():
            spread = _spread(task, features[who], training[who], validation.get(who), draws)
            first = result.estimates[variant][who]
            result.estimates[variant][who] = dataclasses.replace(
                first, seeds={m: mean_and_std([first.overall[m].value, *of]) for m, of in spread.items()}
            )
    return result


def _spread(
    task: Task, features: Floats, training: Examples, validation: Examples | None, draws: Sequence[Ints]
) -> dict[str, list[float]]:
    """Metric → its value by the probe of each draw of the training images (rows)."""
    found: dict[str, list[float]] = {}
    for rows in draws:
        fitted = fit(training.at(rows), validation, task.name)
        thresholds = None
        if validation and not task.is_single:
            thresholds = f1_thresholds(fitted.scores(validation.features), validation.labels)
        statistics = score_statistics(task, fitted.scores(features), thresholds)
        once = Bootstrap(0, 0).estimate(statistics, task.patient_ids)
        for (name, metric), estimate in once.items():
            if name is None:
                found.setdefault(metric, []).append(estimate.value)
    return found


def _thresholds(task: Task, probes: Mapping[str, "Probe"], validation: Mapping[str, Examples]) -> ByModel:
    """Thresholds of F1 by model, chosen on the validation images; {} in single_finding or without any."""
    if task.is_single:
        return {}
    return {
        who: f1_thresholds(fitted.scores(validation[who].features), validation[who].labels)
        for who, fitted in probes.items()
        if who in validation
    }


def share_of(examples: Examples, share: float, task_name: str, seed: int = 0) -> Ints:
    """Rows of a share of the examples; in single_finding, of each class.

    They are those with the smallest keys, which are hashes; another seed hashes the keys again.

    >>> labels = np.eye(2)[[0, 0, 0, 1, 1]]
    >>> examples = Examples(np.zeros((5, 3)), labels, np.array(["e", "c", "a", "b", "d"]))
    >>> share_of(examples, 0.5, "single_finding").tolist()
    [1, 2, 3]

    Returns:
        int (num_chosen,), ascending; at least one row of each class with examples.
    """
    single = task_name == "single_finding"
    group = examples.labels.argmax(axis=1) if single else np.zeros(len(examples.keys), int)
    per_group = np.ceil(share * np.bincount(group) - 1e-9).astype(int)
    keys = examples.keys
    if seed:
        keys = np.array([hashlib.sha256(f"{seed} {key}".encode()).hexdigest() for key in keys])
    return np.sort(first_of_each_class(group, keys, per_group))


def can_be_learned(labels: Floats, task_name: str) -> bool:
    """Whether labels (num_images, num_classes) have two classes; in multi_label, in any column."""
    if task_name == "single_finding":
        return int((labels == 1).any(axis=0).sum()) > 1
    return bool(((labels == 1).any(axis=0) & (labels == 0).any(axis=0)).any())


def fit(training: Examples, validation: Examples | None, task_name: str) -> Probe:
    """Fit a probe for each strength and keep the one with the smallest validation loss.

    A class without a training image (single_finding), and a finding without a positive or without a negative
    image (multi_label), has score 0 in every image. The scores of the other classes sum to 0, so such a class
    is never predicted.

    Raises:
        ValueError: features that are not finite.
    """
    require(bool(np.isfinite(training.features).all()), "features", "finite", "NaN or infinite features")
    scaler = StandardScaler().fit(training.features)
    x = scaler.transform(training.features).astype(np.float64)
    single = task_name == "single_finding"
    regress, loss = (_softmax_regressions, _softmax_loss) if single else (_sigmoid_regressions, _sigmoid_loss)
    regressions = zip(regress(x, training.labels), STRENGTHS, strict=True)
    candidates = [Probe(scaler, *regression, strength) for regression, strength in regressions]
    losses = [math.nan]
    if validation is not None:
        losses = [loss(candidate.scores(validation.features), validation.labels) for candidate in candidates]
    if math.isnan(losses[0]):
        return candidates[STRENGTHS.index(WITHOUT_VALIDATION)]
    return candidates[int(np.argmin(losses))]  # of equal losses the strongest penalty


def _softmax_regressions(x: Floats, labels: Floats) -> Iterator[Regression]:
    """Regressions for `STRENGTHS`, in their order."""
    class_index, num_classes = labels.argmax(axis=1), labels.shape[1]
    present = np.unique(class_index)
    for model in _path(x, class_index):
        coefficients, intercept = model.coef_.T, model.intercept_
        if len(present) == 2:  # scikit-learn returns the second class alone
            coefficients, intercept = coefficients * [-0.5, 0.5], intercept * np.array([-0.5, 0.5])
        weights, bias = np.zeros((x.shape[1], num_classes)), np.zeros(num_classes)
        weights[:, present], bias[present] = coefficients, intercept
        yield weights, bias


def _sigmoid_regressions(x: Floats, labels: Floats) -> Iterator[Regression]:
    """Regressions for `STRENGTHS`, in their order."""
    weights = np.zeros((len(STRENGTHS), x.shape[1], labels.shape[1]))
    bias = np.zeros((len(STRENGTHS), labels.shape[1]))
    for k in range(labels.shape[1]):
        if can_be_learned(labels[:, [k]], "multi_label"):
            known = ~np.isnan(labels[:, k])
            for n, model in enumerate(_path(x if known.all() else x[known], labels[known, k])):
                weights[n, :, k], bias[n, k] = model.coef_[0], model.intercept_[0]
    yield from zip(weights, bias, strict=True)


def _path(x: Floats, y: npt.NDArray[np.generic]) -> Iterator[LogisticRegression]:
    """Fitted regressions for `STRENGTHS`; each fit starts from the previous solution."""
    model = LogisticRegression(class_weight="balanced", max_iter=2000, tol=1e-6, warm_start=True)
    for strength in STRENGTHS:
        yield model.set_params(C=strength).fit(x, y)


def _softmax_loss(scores: Floats, labels: Floats) -> float:
    """Mean over the classes of the mean cross-entropy of their images."""
    class_index = labels.argmax(axis=1)
    log_probabilities = scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)
    each = -log_probabilities[np.arange(len(scores)), class_index]
    return float(np.mean([each[class_index == k].mean() for k in np.unique(class_index)]))


def _sigmoid_loss(scores: Floats, labels: Floats) -> float:
    """Mean over the findings of the class-balanced cross-entropy; NaN if none has both classes."""
    losses = []
    for k in range(labels.shape[1]):
        positive, negative = (scores[labels[:, k] == state, k] for state in (1, 0))
        if len(positive) and len(negative):
            losses.append(np.logaddexp(0, -positive).mean() / 2 + np.logaddexp(0, negative).mean() / 2)
    return float(np.mean(losses)) if losses else math.nan
