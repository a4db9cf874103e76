"""Rows of estimates, the same for the terminal table and the HTML report."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from rich import box
from rich.table import Table
from rich.text import Text

from medclip_keras.evaluation.metrics import Estimate
from medclip_keras.evaluation.results import TRAINED, UNTRAINED, DatasetResult, Json, TaskResult

Cells = tuple[str, ...]

COLUMNS: Cells = ("", "trained [95 % CI]", "untrained", "baseline")
TITLES = {
    "zero_shot": "zero-shot",
    "retrieval": "image → text",
    "probe": "linear probe",
    "supervised": "supervised",
}


@dataclass(frozen=True)
class Row:
    """A metric of the trained model, of the untrained model and its baseline."""

    name: str
    trained: Estimate
    untrained: Estimate | None
    baseline: float

    def cells(self) -> Cells:
        """The row as text, for `COLUMNS`; the untrained model's value has no interval."""
        return self.name, with_interval(self.trained), value_text(self.untrained), f"{self.baseline:.3f}"


def rows(result: DatasetResult) -> list[Row]:
    """All rows of one data set."""
    return [row for task, found in result.tasks.items() for row in task_rows(task, found)]


def task_rows(task: str, result: TaskResult) -> Iterator[Row]:
    """The rows of one task, a key of `TITLES`."""
    title = TITLES[task]
    for variant, by_model in result.estimates.items():
        suffix = f", {variant_name(variant)}" if variant not in ("", "1") else ""
        trained, untrained = by_model[TRAINED], by_model.get(UNTRAINED)
        for metric, baseline in result.baseline.items():
            name = _metric_name(metric, result)
            of_untrained = untrained.overall[metric] if untrained else None
            yield Row(f"{title} {name}{suffix}", trained.overall[metric], of_untrained, baseline)
        by_class = trained.by_class if not result.task.is_single else {}
        for name, found in by_class.items():
            if math.isnan(found["auroc"].value):
                continue  # `sizes` names such classes
            of_untrained = untrained.by_class[name]["auroc"] if untrained else None
            yield Row(
                f"  AUROC {name}, {title}{suffix}", found["auroc"], of_untrained, result.baseline["auroc"]
            )


def metric_name(metric: str) -> str:
    """A metric as tables and figures print it.

    >>> [metric_name(name) for name in ("auroc", "macro_f1", "precision_at_5", "balanced_accuracy")]
    ['AUROC', 'macro F1', 'precision@5', 'balanced accuracy']
    """
    named = {"auroc": "AUROC", "auprc": "AUPRC", "f1": "F1", "macro_f1": "macro F1"}
    return named.get(metric, metric.replace("_at_", "@").replace("_", " "))


def _metric_name(metric: str, result: TaskResult) -> str:
    """As in the table; a macro mean over some of the classes says over how many."""
    if metric not in ("auroc", "auprc"):
        return metric_name(metric)
    averaged, wanted = len(result.task.averaged_classes), len(result.task.macro_classes)
    some = "" if averaged == wanted else f" of {averaged} of {wanted} classes"
    return f"macro {metric_name(metric)}{some}"


def class_table(task: str, result: TaskResult) -> list[tuple[Cells, tuple[Cells, ...]]]:
    """Header and rows of the trained model's metrics by class, of the last variant; [] without classes."""
    variant, by_model = list(result.estimates.items())[-1]
    metrics = ["accuracy", "auroc"] if result.task.is_single else ["auroc"]
    header: Cells = (
        f"by class, {TITLES[task]}, {variant_name(variant)}",
        "positive",
        *map(metric_name, metrics),
    )
    body = tuple(
        (
            name,
            str(result.counts["num_positive"][name]),
            *(value_text(of_class[metric]) for metric in metrics),
        )
        for name, of_class in by_model[TRAINED].by_class.items()
    )
    return [(header, body)] if body else []


def terminal_table(name: str, result: DatasetResult) -> Table:
    """The rows of one data set for the terminal."""
    title = Text(f"{name}: {sizes(result)}")  # names are no markup
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in COLUMNS:
        # Only names may wrap: figures that do not fit would be cut.
        table.add_column(column, justify="right" if column else "left", no_wrap=bool(column), overflow="fold")
    for row in rows(result):
        table.add_row(*map(Text, row.cells()))
    return table


def sizes(result: DatasetResult) -> str:
    """Numbers of images, patients, queries, sentences and training images, as text."""
    counts: Json = {}
    for found in result.tasks.values():  # all classifications have the same images
        counts |= found.counts
    parts = []
    if "num_images" in counts:
        parts.append(f"{counts['num_images']} images of {counts['num_patients']} patients")
    if "num_queries" in counts:
        num_sentences = sum(counts["num_candidates"].values())
        parts.append(f"{counts['num_queries']} queries among {num_sentences} sentences")
    if "num_training_images" in counts:
        parts.append(f"{max(counts['num_training_images'].values())} training images")
    positive = counts.get("num_positive", {})
    if positive:
        parts.append("positive: " + ", ".join(f"{name} {number}" for name, number in positive.items()))
    if counts.get("majority_class"):
        parts.append(f"baseline of accuracy: always {counts['majority_class']}")
    if counts.get("too_few"):
        too_few = ", ".join(counts["too_few"])
        parts.append(f"no figure, for it would rest on one patient with or without the finding: {too_few}")
    if counts.get("undefined"):
        undefined = ", ".join(counts["undefined"])
        parts.append(f"not in the macro AUROC, for no image has them or every image has: {undefined}")
    absent = [name for name, number in positive.items() if not number]
    if absent and counts["task"] == "single_finding":
        parts.append(f"no choice in accuracy and its baseline, for no image has them: {', '.join(absent)}")
    if counts.get("not_retrieved"):
        not_retrieved = ", ".join(counts["not_retrieved"])
        parts.append(f"not retrieved, for no image or no sentence has this finding alone: {not_retrieved}")
    return ", ".join(parts) or "nothing to evaluate"


def variant_name(variant: str) -> str:
    """Name of a variant: "single", "ensemble", or a share of the labelled images.

    >>> variant_name("single"), variant_name("0.01"), variant_name("1")
    ('single', '1 % of labels', 'all labels')
    """
    if not variant[:1].isdigit():
        return variant
    return "all labels" if variant == "1" else f"{100 * float(variant):g} % of labels"


def value_text(estimate: Estimate | None) -> str:
    """The value with three digits."""
    return "–" if estimate is None or math.isnan(estimate.value) else f"{estimate.value:.3f}"


def with_interval(estimate: Estimate) -> str:
    """The value with its interval, if any."""
    interval = "" if math.isnan(estimate.low) else f" [{estimate.low:.3f}, {estimate.high:.3f}]"
    return value_text(estimate) + interval


def estimate_of(values: Mapping[str, float | None]) -> Estimate:
    """The estimate of its JSON form."""
    value, low, high = (math.nan if (v := values[key]) is None else v for key in ("value", "low", "high"))
    return Estimate(value, low, high)
