"""Named metrics of an evaluation, and their differences between two models on the same images.

A metric's name is DATA_SET.TASK.VARIANT.METRIC, as phantom.zero_shot.ensemble.accuracy, or
DATA_SET.TASK.VARIANT.by_class.CLASS.METRIC; retrieval has no variant.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from medclip_keras.config import EvaluationConfig, RunConfig
from medclip_keras.errors import near_names, require
from medclip_keras.evaluation.arrays import Floats
from medclip_keras.evaluation.class_scores import MODES
from medclip_keras.evaluation.classification import score_statistics
from medclip_keras.evaluation.metrics import Bootstrap, Estimate, Statistic
from medclip_keras.evaluation.results import (
    TRAINED,
    ClassificationResult,
    DatasetResult,
    Json,
    RetrievalResult,
    TaskResult,
)
from medclip_keras.evaluation.retrieval import TOP, precision_statistics


def named_estimates(metrics: Json, who: str = TRAINED) -> dict[str, Estimate]:
    """Name → estimate of a model in the content of metrics.json; null is NaN."""
    return {
        f"{data_set}.{task}.{name}": estimate
        for data_set, tasks in metrics["data"].items()
        for task, found in tasks.items()
        for name, estimate in _leaves(found.get(who, {}), "")
    }


def _leaves(node: Json, prefix: str) -> Iterator[tuple[str, Estimate]]:
    for name, child in node.items():
        if isinstance(child, Mapping) and "value" in child:
            limits = (child.get(key) for key in ("value", "low", "high"))
            yield prefix + name, Estimate(*(np.nan if v is None else float(v) for v in limits))
        elif isinstance(child, Mapping):
            yield from _leaves(dict(child), f"{prefix}{name}.")


def check_thresholds(config: RunConfig) -> None:
    """Refuse a threshold on a metric that no data set of the run's evaluation will have.

    Raises:
        ValueError: the message names near metrics.
    """
    known = _future_names(config.evaluation)
    for threshold in config.export.thresholds:
        found = any(f".{threshold.metric}".endswith(f".{name}") for name in known)
        advice = near_names(threshold.metric, known)
        if not advice.startswith("Near"):
            advice = near_names(threshold.metric, [name for name in known if ".by_class." not in name])
        form = "metrics that the run's evaluation gives"
        require(found, "export.thresholds", form, threshold.metric, advice)


def _future_names(config: EvaluationConfig) -> list[str]:
    """Names, without a data set, of the metrics that an evaluation gives if the records suffice."""
    single = config.task == "single_finding"
    of_class = (*(("accuracy",) if single else ()), "f1", "auroc", "auprc")
    overall = (*(("accuracy", "balanced_accuracy") if single else ()), "macro_f1", "auroc", "auprc")
    groups = ["", *(f"by_class.{finding}." for finding in config.findings)]
    variants = {"zero_shot": MODES, "probe": [f"{share:g}" for share in config.probe_fractions]}
    found = [
        f"{task}.{variant}.{group}{metric}"
        for task in config.tasks
        for variant in variants.get(task, ())
        for group in groups
        for metric in (of_class if group else overall)
    ]
    return found + [f"retrieval.precision_at_{k}" for k in TOP if "retrieval" in config.tasks]


def paired_differences(
    results: Mapping[str, DatasetResult], first: str, second: str, bootstrap: Bootstrap
) -> dict[str, Estimate]:
    """Name → estimate of the metric of model `first` less that of model `second`.

    In each resample both models are measured on the same patients, so that what is hard for both cancels.

    Follows: Efron and Tibshirani (1993), the bootstrap of paired differences.
    """
    found: dict[str, Estimate] = {}
    for data_set, result in results.items():
        for task, of_task in result.tasks.items():
            ours, theirs = (_statistics(of_task, who) for who in (first, second))
            differences = {name: difference(ours[name], theirs[name]) for name in ours}
            estimates = bootstrap.estimate(differences, of_task.task.patient_ids)
            found |= {f"{data_set}.{task}.{name}": estimate for name, estimate in estimates.items()}
    return found


def difference(first: Statistic, second: Statistic) -> Statistic:
    """The statistic of the first less the second, on the same resample."""

    def subtract(weights: Floats) -> Floats:
        return first(weights) - second(weights)

    return subtract


def _statistics(result: TaskResult, who: str) -> dict[str, Statistic]:
    """Name within the task → statistic of a model."""
    if isinstance(result, RetrievalResult):
        return precision_statistics(result.task, result.candidate_classes, result.similarities[who])
    if not isinstance(result, ClassificationResult):
        return {}
    found: dict[str, Statistic] = {}
    for variant, by_model in result.scores.items():
        thresholds = result.thresholds_of(variant, who)
        for (name, metric), statistic in score_statistics(result.task, by_model[who], thresholds).items():
            of_class = f"by_class.{name}." if name else ""
            found[f"{variant}.{of_class}{metric}"] = statistic
    return found
