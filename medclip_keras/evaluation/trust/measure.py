"""All questions of trust for one zero-shot classification, each a table in JSON types.

What is fitted or chosen (temperature, thresholds, limits, prompts) is so on validation images of other
patients; what needs none (negation, the spread of the prompts, calibration as it is) is measured without.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from medclip_keras.evaluation.arrays import Floats
from medclip_keras.evaluation.classification import ranked_scores
from medclip_keras.evaluation.metrics import Bootstrap, Statistic, weighted_mean
from medclip_keras.evaluation.prompts import ABNORMAL, ClassPrompts
from medclip_keras.evaluation.results import Json, TrustResult
from medclip_keras.evaluation.tasks import Task
from medclip_keras.evaluation.trust import calibration, conformal, operating
from medclip_keras.evaluation.trust.calibration import Platt, reliability
from medclip_keras.evaluation.trust.negation import negation
from medclip_keras.evaluation.trust.prompt_spread import prompt_areas, spread
from medclip_keras.knowledge.concepts import NO_FINDING

COVERAGE = 0.9  # of conformal sets
LEAST = 0.9  # specificity, and sensitivity, of the operating points
ALL_CLASSES = "all classes"

Pictures = dict[str, calibration.Reliability]  # "before", "after" → of all classes together


@dataclass(frozen=True)
class Scored:
    """Images of one split with the trained model's logits and ensemble scores."""

    task: Task
    logits: Floats  # (num_images, num_prompts)
    scores: Floats  # (num_images, num_classes)


def measure_trust(
    test: Scored,
    valid: Scored | None,
    prompts: ClassPrompts,
    margins: Mapping[str, Floats],
    bootstrap: Bootstrap,
) -> TrustResult:
    """Calibration, operating points, conformal sets, negation and the spread of the prompts.

    Args:
        test: the images to report on.
        valid: images of other patients, or None without any.
        prompts: of the logits' columns.
        margins: as in `negation.negation`.
        bootstrap: of the intervals.
    """
    calibrated, pictures = _calibration(test, valid)
    metrics: Json = {
        "num_validation_images": len(valid.task.rows) if valid else 0,
        "calibration": calibrated,
        "operating_points": _operating_points(test, valid, bootstrap) if valid else {},
        "conformal": _conformal(test, valid) if valid else {},
        "negation": {
            name: {key: estimate.to_dict() for key, estimate in row.items()}
            for name, row in negation(test.task, margins, bootstrap).items()
        },
        "prompts": _prompt_spread(test, valid, prompts),
    }
    return TrustResult(metrics, pictures)


def negatable(classes: tuple[str, ...]) -> list[str]:
    """The classes that a sentence can deny: findings, not normality."""
    return [name for name in classes if name not in (ABNORMAL, NO_FINDING)]


def _calibration(test: Scored, valid: Scored | None) -> tuple[Json, Pictures]:
    """Rows of the table, and the reliability before and after of all classes together."""
    if test.task.is_single:
        return _softmax_calibration(test, valid)
    table: Json = {}
    before, after, outcomes = [], [], []
    for k, name in enumerate(test.task.classes):
        scores, labels = test.scores[:, k], test.task.labels[:, k]
        platt = calibration.fit_platt(valid.scores[:, k], valid.task.labels[:, k]) if valid else None
        row: Json = {"error_before": _number(reliability(Platt()(scores), labels).error)}
        if platt:
            row |= {"error_after": _number(reliability(platt(scores), labels).error)}
            row |= {"slope": platt.slope, "offset": platt.offset}
        table[name] = row
        before.append(Platt()(scores))
        after.append(platt(scores) if platt else np.full(len(scores), np.nan))
        outcomes.append(labels)
    pictures = {"before": reliability(np.concatenate(before), np.concatenate(outcomes))}
    fitted = ~np.isnan(np.concatenate(after))
    if fitted.any():
        pictures["after"] = reliability(np.concatenate(after)[fitted], np.concatenate(outcomes)[fitted])
    return {ALL_CLASSES: _errors(pictures)} | table, pictures


def _softmax_calibration(test: Scored, valid: Scored | None) -> tuple[Json, Pictures]:
    temperatures = {"before": 1.0}
    if valid:
        temperatures["after"] = calibration.fit_temperature(valid.scores, valid.task.class_index)
    pictures = {}
    for when, temperature in temperatures.items():
        probabilities = calibration.apply_temperature(test.scores, temperature)
        correct = probabilities.argmax(axis=1) == test.task.class_index
        pictures[when] = reliability(probabilities.max(axis=1), correct.astype(np.float64))
    row = _errors(pictures)
    return {ALL_CLASSES: row | ({"temperature": temperatures["after"]} if valid else {})}, pictures


def _errors(pictures: Pictures) -> Json:
    return {f"error_{when}": _number(picture.error) for when, picture in pictures.items()}


def _operating_points(test: Scored, valid: Scored, bootstrap: Bootstrap) -> Json:
    """class → {"specificity_90", "sensitivity_90": {"threshold", "sensitivity", "specificity"}}."""
    choose = {
        f"specificity_{100 * LEAST:.0f}": operating.threshold_at_specificity,
        f"sensitivity_{100 * LEAST:.0f}": operating.threshold_at_sensitivity,
    }
    scores, valid_scores = (ranked_scores(split.task, split.scores) for split in (test, valid))
    thresholds, statistics = {}, dict[tuple[str, str, str], Statistic]()
    for k, name in enumerate(test.task.classes):
        for point, threshold_of in choose.items():
            threshold = threshold_of(valid_scores[:, k], valid.task.labels[:, k], LEAST)
            thresholds[name, point] = threshold
            called = scores[:, k] >= threshold
            for metric, label, right in (("sensitivity", 1, called), ("specificity", 0, ~called)):
                known = test.task.is_known_of_patients(label)[k] and not np.isnan(threshold)
                values = np.where((test.task.labels[:, k] == label) & known, right.astype(np.float64), np.nan)
                statistics[name, point, metric] = functools.partial(weighted_mean, values)
    estimates = bootstrap.estimate(statistics, test.task.patient_ids)
    table: Json = {name: {} for name in test.task.classes}
    for (name, point), threshold in thresholds.items():
        table[name][point] = {"threshold": _number(threshold)} | {
            metric: estimates[name, point, metric].to_dict() for metric in ("sensitivity", "specificity")
        }
    return table


def _conformal(test: Scored, valid: Scored) -> Json:
    """Rows of "coverage", "set_size" and "decided" (share of sets of one class), means over patients.

    In multi_label a finding's set holds "present", "absent" or both. Probabilities are those before the
    calibration, which was fitted on the same validation images.
    """
    if test.task.is_single:
        probabilities = [calibration.apply_temperature(split.scores) for split in (test, valid)]
        truths = [np.eye(len(split.task.classes))[split.task.class_index] for split in (test, valid)]
        return {ALL_CLASSES: _set_row(test, valid, probabilities, truths)}
    table: Json = {}
    for k, name in enumerate(test.task.classes):
        present = [split.task.labels[:, k] for split in (test, valid)]
        truths = [np.stack([1 - labels, labels], axis=1) for labels in present]
        scores = [split.scores[:, k] for split in (test, valid)]
        probabilities = [np.stack([expit(-s), expit(s)], axis=1) for s in scores]
        table[name] = _set_row(test, valid, probabilities, truths)
    return table


def _set_row(test: Scored, valid: Scored, probabilities: list[Floats], truths: list[Floats]) -> Json:
    """A row of `_conformal` from probabilities and one-hot truths (NaN: unknown) of test and validation."""
    known, valid_known = (~np.isnan(truth).any(axis=1) for truth in truths)
    nonconformity = 1 - (probabilities[1] * truths[1])[valid_known].sum(axis=1)
    limit = conformal.conformal_limit(nonconformity, valid.task.patient_ids[valid_known], COVERAGE)
    sets = conformal.conformal_sets(probabilities[0][known], limit)
    patients = test.task.patient_ids[known]
    sizes = sets.sum(axis=1)
    values = {
        "coverage": (sets & (truths[0][known] == 1)).any(axis=1),
        "set_size": sizes,
        "decided": sizes == 1,
    }
    row = {key: _number(conformal.patient_mean(v.astype(float), patients)) for key, v in values.items()}
    return row | {"wanted": COVERAGE, "num_patients": len(np.unique(patients))}


def _prompt_spread(test: Scored, valid: Scored | None, prompts: ClassPrompts) -> Json:
    table: Json = {}
    for name in test.task.classes:
        if name in prompts.classes:
            areas, *chosen = (
                prompt_areas(split.task, split.logits, split.scores, prompts, name)
                for split in (test, valid)
                if split
            )
            table[name] = spread(areas, *chosen)
    return table


def _number(value: float) -> float | None:
    """JSON types: None for NaN and infinity."""
    return float(value) if np.isfinite(value) else None
