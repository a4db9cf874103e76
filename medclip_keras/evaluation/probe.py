"""Linear probe: what a frozen image encoder knows of the findings, as logistic regression reads it off.

With x_i the features of training image i before the projection, each standardised over the training images,
y_i its class, and c_y such that all classes weigh the same,

    W, b  minimise  |W|^2 / 2 + C sum_i c_(y_i) loss(y_i, W x_i + b)

the loss being the cross-entropy of the softmax where every image has exactly one of the findings, and else,
for each finding by itself, that of the sigmoid over the images in which it is known. C is the one of
`STRENGTHS` with the smallest class-balanced cross-entropy on the validation images, one for all findings;
the test images are looked at once, with it. A share of the labels is that share of the training images, those
with the smallest record keys, so smaller shares are parts of larger ones; features need no labels, but only
labelled images are used. The validation images are all used, whatever the share.

Follows: Radford et al., ICML 2021 (CLIP), section 3.2, for the logistic regression and the features; Zhang et
    al., MLHC 2022 (ConVIRT), section 5, for the shares; Wang et al., EMNLP 2022, Table 2, which calls it
    fine-tuning.
Departs: MedCLIP's released code trains the same weights with Adam (20 epochs of augmented images, rate 5e-4)
    and stops where the test images are classified best.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from medclip_keras.errors import require
from medclip_keras.evaluation.zero_shot import Task, chance, figures

STRENGTHS = (
    1e-5,
    1e-4,
    1e-3,
    1e-2,
    1e-1,
    1.0,
    10.0,
)  # C, ascending: from the strongest penalty to the weakest
WITHOUT_VALIDATION = 1e-2  # C where no validation image tells


@dataclass(frozen=True)
class Examples:
    """Labelled images as a frozen encoder sees them.

    Attributes:
        features: float (num_images, F).
        labels: float (num_images, num_classes) of 0, 1 and NaN where the truth is not known.
        keys: (num_images,), distinct.
    """

    features: np.ndarray
    labels: np.ndarray
    keys: np.ndarray

    def __len__(self) -> int:
        return len(self.keys)

    def at(self, rows: np.ndarray) -> "Examples":
        """Some of them."""
        return Examples(self.features[rows], self.labels[rows], self.keys[rows])


@dataclass(frozen=True)
class Probe:
    """A fitted probe.

    Attributes:
        scaler: standardises features.
        weights: float (F, num_classes).
        bias: float (num_classes,).
        strength: C.
        num_images: that it was fitted on.
    """

    scaler: StandardScaler
    weights: np.ndarray
    bias: np.ndarray
    strength: float
    num_images: int

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Features (num_images, F) to scores (num_images, num_classes)."""
        return self.scaler.transform(features) @ self.weights + self.bias


@dataclass(frozen=True)
class ClassifierResult:
    """Classification of one data set's test images by classifiers that were trained on labels.

    Attributes:
        task: the test images.
        scores: share of the training labels, as "1" or "0.1" → model → (num_images, num_classes).
        metrics: in JSON types.
    """

    task: Task
    scores: dict[str, dict[str, np.ndarray]]
    metrics: dict


def probe(
    task: Task,
    features: Mapping[str, np.ndarray],
    training: Mapping[str, Examples],
    validation: Mapping[str, Examples],
    fractions: tuple[float, ...],
    *,
    bootstrap: int,
    seed: int,
) -> ClassifierResult:
    """Linear probes of each model for each share of the labels, measured on the test images.

    Args:
        task: the test images; its name decides between softmax and sigmoids.
        features: model → float (num_images, F) of the test images.
        training: model → images to fit on; the same images for every model.
        validation: model → images to choose the strength on; empty where there are none.
        fractions: shares of the training images, in (0, 1]; measured in ascending order.
        bootstrap: number of resamples.
        seed: of the resamples.
    """
    some, fractions = next(iter(training.values())), sorted(set(fractions))
    scores = {f"{share:g}": {} for share in fractions}
    metrics = {**task.description(), "num_training_images": {}, "chance": chance(task)}
    metrics["num_validation_images"] = len(next(iter(validation.values()), ()))
    metrics |= {who: {} for who in features}
    for share, by_model in zip(fractions, scores.values(), strict=True):
        rows, name = share_of(some, share, task.name), f"{share:g}"
        metrics["num_training_images"][name] = len(rows)
        for who in features:
            fitted = fit(training[who].at(rows), validation.get(who), task.name)
            by_model[who] = fitted.scores(features[who])
            metrics[who][name] = figures(task, by_model[who], bootstrap, seed)
            metrics[who][name]["strength"] = fitted.strength
    return ClassifierResult(task, scores, metrics)


def share_of(examples: Examples, share: float, task_name: str) -> np.ndarray:
    """Rows of a share of the examples, those with the smallest keys; in single_finding, of each class.

    >>> labels = np.eye(2)[[0, 0, 0, 1, 1]]
    >>> examples = Examples(np.zeros((5, 3)), labels, np.array(["e", "c", "a", "b", "d"]))
    >>> share_of(examples, 0.5, "single_finding").tolist()
    [1, 2, 3]

    Returns:
        int (num_chosen,), ascending; at least one row a class that occurs.
    """
    single = task_name == "single_finding"
    group = examples.labels.argmax(axis=1) if single else np.zeros(len(examples), int)
    rows = np.lexsort((examples.keys, group))
    starts = np.searchsorted(group[rows], group[rows])
    wanted = np.ceil(share * np.bincount(group)[group[rows]] - 1e-9)
    return np.sort(rows[np.arange(len(rows)) - starts < wanted])


def can_be_learned(labels: np.ndarray, task_name: str) -> bool:
    """Whether labels (num_images, num_classes) tell two classes apart; in multi_label, in any column."""
    if task_name == "single_finding":
        return int((labels == 1).any(axis=0).sum()) > 1
    return bool(((labels == 1).any(axis=0) & (labels == 0).any(axis=0)).any())


def fit(training: Examples, validation: Examples | None, task_name: str) -> Probe:
    """Fits a probe for each strength and keeps the one that the validation images choose.

    A class without a training image (single_finding), and a finding without a positive or without a negative
    one (multi_label), is scored 0 in every image. The scores of the other classes sum to 0, so such a class
    is never predicted.

    Raises:
        ValueError: features that are not finite.
    """
    require(bool(np.isfinite(training.features).all()), "features", "finite", "NaN or infinite features")
    scaler = StandardScaler().fit(training.features)
    x = scaler.transform(training.features).astype(np.float64)
    single = task_name == "single_finding"
    regress, loss = (_softmax_regressions, _softmax_loss) if single else (_sigmoid_regressions, _sigmoid_loss)
    candidates = [Probe(scaler, *found, len(training)) for found in regress(x, training.labels)]
    losses = [math.nan]
    if validation is not None:
        losses = [loss(candidate.scores(validation.features), validation.labels) for candidate in candidates]
    if math.isnan(losses[0]):
        return candidates[STRENGTHS.index(WITHOUT_VALIDATION)]
    return candidates[int(np.argmin(losses))]  # of equal ones the strongest penalty


def _softmax_regressions(x: np.ndarray, labels: np.ndarray):
    """Weights, bias and strength for each of `STRENGTHS`."""
    class_index, num_classes = labels.argmax(axis=1), labels.shape[1]
    present = np.unique(class_index)
    for strength, model in _path(x, class_index):
        coefficients, intercept = model.coef_.T, model.intercept_
        if len(present) == 2:  # scikit-learn gives the second class alone
            coefficients, intercept = coefficients * [-0.5, 0.5], intercept * np.array([-0.5, 0.5])
        weights, bias = np.zeros((x.shape[1], num_classes)), np.zeros(num_classes)
        weights[:, present], bias[present] = coefficients, intercept
        yield weights, bias, strength


def _sigmoid_regressions(x: np.ndarray, labels: np.ndarray):
    """Weights, bias and strength for each of `STRENGTHS`."""
    weights = np.zeros((len(STRENGTHS), x.shape[1], labels.shape[1]))
    bias = np.zeros((len(STRENGTHS), labels.shape[1]))
    for k in range(labels.shape[1]):
        if not can_be_learned(labels[:, [k]], "multi_label"):
            continue
        known = ~np.isnan(labels[:, k])
        for n, (_, model) in enumerate(_path(x if known.all() else x[known], labels[known, k])):
            weights[n, :, k], bias[n, k] = model.coef_[0], model.intercept_[0]
    yield from zip(weights, bias, STRENGTHS, strict=True)


def _path(x: np.ndarray, y: np.ndarray):
    """Strength and fitted regression, each starting from the one before."""
    model = LogisticRegression(class_weight="balanced", max_iter=2000, tol=1e-6, warm_start=True)
    for strength in STRENGTHS:
        yield strength, model.set_params(C=strength).fit(x, y)


def _softmax_loss(scores: np.ndarray, labels: np.ndarray) -> float:
    """Mean over the classes of the mean cross-entropy of their images."""
    class_index = labels.argmax(axis=1)
    log_probabilities = scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)
    each = -log_probabilities[np.arange(len(scores)), class_index]
    return float(np.mean([each[class_index == k].mean() for k in np.unique(class_index)]))


def _sigmoid_loss(scores: np.ndarray, labels: np.ndarray) -> float:
    """Mean over the findings of the class-balanced cross-entropy; NaN where none has both classes."""
    losses = []
    for k in range(labels.shape[1]):
        positive, negative = (scores[labels[:, k] == state, k] for state in (1, 0))
        if len(positive) and len(negative):
            losses.append(np.logaddexp(0, -positive).mean() / 2 + np.logaddexp(0, negative).mean() / 2)
    return float(np.mean(losses)) if losses else math.nan
