"""The section of the pointing game."""

from collections.abc import Iterator, Mapping

import numpy as np

from medclip_keras.evaluation.arrays import Floats
from medclip_keras.evaluation.metrics import Bootstrap
from medclip_keras.evaluation.results import TRAINED, Json, LocalizationResult
from medclip_keras.evaluation.sections import Section, Table
from medclip_keras.evaluation.table import Cells, estimate_of, with_interval
from medclip_keras.evaluation.where.pointing import ALL, Boxed, baseline, estimate
from medclip_keras.evaluation.where.sides import LEFT, RIGHT, side_counts, sides

METHODS = {
    "regions": "regions: similarity of each place of the image with the prompts",
    "grad_cam": "Grad-CAM: weights of the feature map by the gradient of the similarity",
    "occlusion": "occlusion: loss of the similarity when a window is hidden",
}


def localize(
    boxed: Boxed, heat: Mapping[str, list[Floats]], bootstrap: Bootstrap, margins: Floats | None = None
) -> LocalizationResult:
    """Pointing game and overlap of the trained model's maps; `heat` is by method, a key of `METHODS`.

    With `margins`, as in `sides.sides`, whether the model tells the side of a finding.
    """
    estimates = {method: estimate(boxed, maps, bootstrap) for method, maps in heat.items()}
    names, numbers = np.unique(boxed.findings, return_counts=True)
    metrics: Json = {
        "num_images": len(boxed.boxes),
        "num_boxes": sum(map(len, boxed.boxes)),
        "num_patients": len(np.unique(boxed.patient_ids)),
        "num_boxed": dict(zip(names.tolist(), numbers.tolist(), strict=True)),
        "baseline": baseline(boxed),
        TRAINED: {},
    }
    for method, by_finding in estimates.items():
        written = {
            name: {metric: value.to_dict() for metric, value in found.items()}
            for name, found in by_finding.items()
        }
        metrics[TRAINED][method] = written.pop(ALL) | {"by_class": written}
    if margins is not None:
        counts = side_counts(boxed)
        metrics["sides"] = {
            name: counts[name] | {metric: value.to_dict() for metric, value in row.items()}
            for name, row in sides(boxed, margins, bootstrap).items()
        }
    return LocalizationResult(metrics, estimates)


def localization_section(result: LocalizationResult) -> Section:
    """A table a method, and the table of sides."""
    return Section(
        "where",
        "Where it looked",
        "Whether the heat map of a finding's prompts is highest inside the box that a radiologist drew"
        " (pointing), and how much map and box overlap (IoU).",
        tuple(_table(method, result) for method in result.estimates) + _sides_table(result.metrics),
        notes=("A map shows where the answer depends on the pixels; it proves no more than that.",),
    )


def pointing_lines(result: LocalizationResult) -> Iterator[str]:
    """The figures of all findings, a line a method, for the terminal."""
    base = result.metrics["baseline"][ALL]
    for method, by_finding in result.estimates.items():
        found = by_finding[ALL]
        at_random = f"at random {base['pointing']:.3f}, at the centre {base['pointing_at_centre']:.3f}"
        figures = (
            f"pointing {with_interval(found['pointing'])} ({at_random}), IoU {with_interval(found['iou'])}"
        )
        yield f"{result.metrics['num_images']} images, {method.replace('_', ' ')}: {figures}"


def _table(method: str, result: LocalizationResult) -> Table:
    base, counts = result.metrics["baseline"], result.metrics["num_boxed"]
    rows = tuple(
        (
            name,
            str(counts.get(name, result.metrics["num_images"])),
            with_interval(found["pointing"]),
            f"{base[name]['pointing']:.3f}",
            f"{base[name]['pointing_at_centre']:.3f}",
            with_interval(found["iou"]),
            f"{base[name]['iou']:.3f}",
        )
        for name, found in result.estimates[method].items()
    )
    header = (
        "",
        "images",
        "pointing [95 % CI]",
        "at random",
        "at the centre",
        "IoU [95 % CI]",
        "whole image",
    )
    return Table("", header, rows, METHODS[method])


def _sides_table(metrics: Json) -> tuple[Table, ...]:
    rows = tuple(
        (
            name,
            str(row[LEFT]),
            str(row[RIGHT]),
            *(with_interval(estimate_of(row[metric])) for metric in ("own_side", "auroc")),
        )
        for name, row in metrics.get("sides", {}).items()
    )
    header: Cells = ("", "on the left", "on the right", "own side fits better [95 % CI]", "AUROC [95 % CI]")
    caption = (
        "Whether “X on the left” fits an image better than “X on the right” if all boxes are on the patient's"
        " left, and the reverse. Training with horizontal flips cannot teach it: .5 is chance."
    )
    return (Table(caption, header, rows, "Does it tell left from right?"),) if rows else ()
