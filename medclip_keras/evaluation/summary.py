"""The summary on top of the page: counts, the main metric, and warnings."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from medclip_keras.evaluation.metrics import Estimate
from medclip_keras.evaluation.results import (
    TRAINED,
    UNTRAINED,
    DatasetResult,
    Json,
    LocalizationResult,
    TaskResult,
)
from medclip_keras.evaluation.table import TITLES, Row, metric_name
from medclip_keras.evaluation.where.pointing import ALL

FEWEST_POSITIVE = 10  # images of a class, under which the summary warns
WIDE = 0.15  # width of an interval, over which it warns
CALIBRATED = 0.05  # expected calibration error up to which scores pass for probabilities
READS_NO = 0.7  # AUROC of negation, under which the model does not read "no"
PROMPT_SPREAD = 0.1  # AUROC between the worst and the best prompt, over which the wording decides
PHANTOM = "phantom"  # the source of drawn images
# The variant and the metrics of each task that stand in the summary; "" is the last variant.
_MAIN = {
    "zero_shot": ("ensemble", ("accuracy", "balanced_accuracy", "auroc")),
    "probe": ("", ("balanced_accuracy", "auroc")),
    "retrieval": ("", ("precision_at_1", "precision_at_10")),
    "supervised": ("", ("accuracy", "balanced_accuracy", "auroc")),
}


@dataclass(frozen=True)
class Summary:
    """Summary of one data set."""

    measured: str  # what, on how many images of how many patients
    main: Row | None  # the main figure, its baseline and the untrained model; None without any
    meaning: str  # the main figure in a sentence; "" without any
    rows: tuple[Row, ...]  # the main figures of all tasks
    cautions: tuple[str, ...]  # what must not be trusted


def summarize(result: DatasetResult, made_from: Json) -> Summary:
    """Summarize one data set; `made_from` is its entry in metrics.json."""
    rows = tuple(row for task, found in result.tasks.items() for row in _main_rows(task, found))
    main = next((row for row in rows if not math.isnan(row.trained.value)), None)
    meaning, cautions = _meaning(main) if main else "", tuple(_cautions(result, made_from, main))
    return Summary(_measured(result, made_from), main, meaning, rows, cautions)


def _main_rows(task: str, result: TaskResult) -> Iterator[Row]:
    wanted, metrics = _MAIN.get(task, ("", ()))
    variant = wanted if wanted in result.estimates else list(result.estimates)[-1]
    by_model = result.estimates[variant]
    for metric in metrics:
        if metric in by_model[TRAINED].overall and metric in result.baseline:
            untrained = by_model[UNTRAINED].overall[metric] if UNTRAINED in by_model else None
            name = f"{metric_name(metric)}, {TITLES[task]}"
            yield Row(name, by_model[TRAINED].overall[metric], untrained, result.baseline[metric])


def _measured(result: DatasetResult, made_from: Json) -> str:
    counts: Json = {}
    for found in result.tasks.values():
        counts = found.counts | counts
    if result.localization:
        boxed = result.localization.metrics
        patients = f"{boxed['num_images']:,} images of {boxed['num_patients']:,} patients"
        return f"Measured on {boxed['num_boxes']:,} boxes that radiologists drew on {patients}."
    parts = [TITLES[task] for task in result.tasks] + (["trust"] if result.trust else [])
    of = []
    if "num_images" in counts:
        of.append(f"{counts['num_images']:,} images of {counts['num_patients']:,} patients")
    if "num_queries" in counts:
        of.append(f"{sum(counts['num_candidates'].values()):,} sentences")
    split = made_from.get("split", "")
    held_out = f", split {split}," if split else ""
    return f"Measured on {' and '.join(of) or 'nothing'}{held_out} by {', '.join(parts) or 'no task'}."


def _meaning(row: Row) -> str:
    """The main figure in words, out of a hundred."""
    value, base = (f"{100 * x:.0f}" for x in (row.trained.value, row.baseline))
    if row.name.startswith("AUROC"):
        return (
            f"Of two images, one with a finding and one without, the model ranks the one with it higher in"
            f" {value} of 100 pairs; guessing ranks {base} right."
        )
    if row.name.startswith("precision"):
        return f"Of 100 sentences ranked first, {value} are right; in a random order {base} are."
    return f"The model names the right finding in {value} of 100 images; a constant answer in {base}."


def _cautions(result: DatasetResult, made_from: Json, main: Row | None) -> Iterator[str]:
    if str(made_from.get("source", "")) == PHANTOM:
        yield "The images are drawn, not of patients: the figures show that the tool works, nothing else."
    if main:
        yield from _cautions_of_main(main)
    yield from _cautions_of_counts(result)
    if result.localization:
        yield from _cautions_of_maps(result.localization)
    if result.trust:
        yield from _cautions_of_trust(result.trust.metrics)
    elif result.zero_shot:
        yield "Calibration, negation and the wording of prompts were not measured: the task trust does."


def _cautions_of_main(row: Row) -> Iterator[str]:
    found = row.trained
    if math.isnan(found.low):
        yield "The main figure has no interval: there are too few patients for one."
    elif found.high < row.baseline:
        yield f"The main figure's interval, {_interval(found)}, is below its baseline: worse than chance."
    elif found.low <= row.baseline:
        yield f"The main figure's interval, {_interval(found)}, holds its baseline: it shows no skill."
    elif found.high - found.low > WIDE:
        yield f"The main figure's interval, {_interval(found)}, is wide: there are few patients."


def _cautions_of_counts(result: DatasetResult) -> Iterator[str]:
    counts = next((found.counts for found in result.tasks.values() if "num_positive" in found.counts), {})
    few = [name for name, n in counts.get("num_positive", {}).items() if 0 < n < FEWEST_POSITIVE]
    without = [*counts.get("undefined", ()), *counts.get("too_few", ())]
    if few:
        yield f"Under {FEWEST_POSITIVE} positive images: {', '.join(few)}. Their figures are anecdotes."
    if without:
        yield f"No figure, for want of images with and without it: {', '.join(without)}."


def _cautions_of_trust(metrics: Json) -> Iterator[str]:
    overall: Json = next(iter(metrics["calibration"].values()), {})
    before, after = overall.get("error_before"), overall.get("error_after")
    if before is not None and before > CALIBRATED:
        mended = f"; after calibration {after:.2f}" if after is not None else ""
        yield f"The scores are not probabilities: they are off by {before:.2f} in the mean{mended}."
    of_negation = {name: row["auroc"]["value"] for name, row in metrics["negation"].items()}
    deaf = [name for name, value in of_negation.items() if value is not None and value < READS_NO]
    if deaf:
        yield f"“No” is not understood for {', '.join(deaf)}: do not ask with sentences that deny a finding."
    spread = {n: (r["worst"], r["best"]) for n, r in metrics["prompts"].items() if r["worst"] is not None}
    wide = {n: ends for n, ends in spread.items() if ends[1] - ends[0] > PROMPT_SPREAD}
    if wide:
        name = max(wide, key=lambda n: wide[n][1] - wide[n][0])
        low, high = wide[name]
        others = f" (and {len(wide) - 1} more)" if len(wide) > 1 else ""
        yield f"The wording decides: by prompt, {name}{others} has an AUROC from {low:.2f} to {high:.2f}."


def _cautions_of_maps(result: LocalizationResult) -> Iterator[str]:
    base = result.metrics["baseline"][ALL]
    blind = max(base["pointing"], base["pointing_at_centre"])
    for method, by_finding in result.estimates.items():
        found = by_finding[ALL]["pointing"]
        if not found.low > blind:
            named = f"The maps of {method.replace('_', ' ')} point into the box in"
            yield f"{named} {_percent(found)} of images; chance, or the middle, does in {100 * blind:.0f} %."


def _percent(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.0f} % ({100 * estimate.low:.0f} to {100 * estimate.high:.0f})"


def _interval(estimate: Estimate) -> str:
    return f"{estimate.low:.2f} to {estimate.high:.2f}"
