"""Figures of classifiers that were fine-tuned from several starts on shares of the labels."""

from collections.abc import Mapping
from dataclasses import dataclass

from medclip_keras.evaluation.results import Json
from medclip_keras.evaluation.sections import Section, Table
from medclip_keras.evaluation.table import Cells, estimate_of, variant_name, with_interval

_METRICS = ("accuracy", "auroc")


@dataclass(frozen=True)
class FineTuned:
    """Figures by start, share of the labels and seed."""

    # "num_images", "baseline", "starts": start → share → {"num_training_images", "first_seed": {metric:
    # estimate}, "seeds": {metric: number, mean and standard deviation}}
    metrics: Mapping[str, Json]


def fine_tune_section(result: FineTuned) -> Section:
    """A table of starts and shares."""
    starts = result.metrics["starts"]
    rows = tuple(
        (
            f"{start}, {variant_name(share)}",
            metric,
            with_interval(estimate_of(estimate)),
            _spread(row, metric),
        )
        for start, by_share in starts.items()
        for share, row in by_share.items()
        for metric, estimate in row["first_seed"].items()
        if metric in _METRICS
    )
    header: Cells = ("start", "metric", "first seed [95 % CI]", "mean ± std over seeds")
    caption = "The number of steps is chosen on validation images; test images are classified once."
    return Section(
        "fine-tuning",
        "Fine-tuning",
        "The image tower trained on shares of the labels, from this run's weights and from others.",
        (Table(caption, header, rows),),
    )


def _spread(row: Json, metric: str) -> str:
    found = row["seeds"][metric]
    if found["std"] is None:
        return "–"
    return f"{found['mean']:.3f} ± {found['std']:.3f} ({found['number']} seeds)"
