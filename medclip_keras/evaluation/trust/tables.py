"""The section of trust: tables, each with a sentence that says how to read it."""

from collections.abc import Callable

from medclip_keras.evaluation.figures.curves import reliability_curves
from medclip_keras.evaluation.figures.embeddings import pair_distributions
from medclip_keras.evaluation.results import Json, TrustResult
from medclip_keras.evaluation.sections import Picture, Section, Table
from medclip_keras.evaluation.table import Cells, estimate_of, with_interval


def trust_section(result: TrustResult) -> Section:
    """Tables of the questions that were measured, and the pictures of calibration and negation."""
    missing, tables = missing_validation(result), _TABLES.items()
    figures = [Picture("reliability", _RELIABILITY, reliability_curves(result))]
    if result.pairs:
        figures.append(Picture("pairs", _PAIRS, pair_distributions(result.pairs)))
    return Section(
        "trust",
        "May one trust it?",
        "Whether the scores are probabilities, whether the model reads “no”, how much the wording decides; of"
        " the trained model, zero-shot with the ensemble of the prompts.",
        tuple(_table(*asked, found) for name, asked in tables if (found := result.metrics.get(name))),
        tuple(figures),
        (missing,) if missing else (),
    )


def _table(
    title: str, sentence: str, header: Cells, cells: Callable[[str, Json], list[Cells]], found: Json
) -> Table:
    rows = tuple(row for item in found.items() for row in cells(*item))
    return Table(sentence, header, rows, title)


def missing_validation(result: TrustResult) -> str:
    """Says why thresholds, sets and calibration are missing; "" if they are not."""
    if result.metrics["num_validation_images"]:
        return ""
    return (
        "Without labelled validation images of the same source no temperature, threshold, set or prompt is"
        " chosen: records with a validation split, evaluated with --split test, have these tables."
    )


def _calibration(name: str, row: Json) -> list[Cells]:
    fitted = [f"temperature {row['temperature']:.3g}"] if "temperature" in row else []
    fitted += [f"slope {row['slope']:.3g}, offset {row['offset']:.3g}"] if "slope" in row else []
    return [(name, _value(row.get("error_before")), _value(row.get("error_after")), *(fitted or ["–"]))]


def _operating_points(name: str, row: Json) -> list[Cells]:
    cells = []
    for point, found in row.items():
        kind, percent = point.split("_")
        figures = (with_interval(estimate_of(found[metric])) for metric in ("sensitivity", "specificity"))
        cells.append((f"{name}, {percent} % {kind}", _value(found["threshold"]), *figures))
    return cells


def _conformal(name: str, row: Json) -> list[Cells]:
    figures = (_value(row[key]) for key in ("coverage", "set_size", "decided"))
    return [(name, *figures, str(row["num_patients"]))]


def _negation(name: str, row: Json) -> list[Cells]:
    return [(name, *(with_interval(estimate_of(estimate)) for estimate in row.values()))]


def _prompts(name: str, row: Json) -> list[Cells]:
    chosen = _value(row["chosen"])
    if row["chosen_number"]:
        chosen += f" (no. {row['chosen_number']})"
    figures = (_value(row[key]) for key in ("worst", "mean", "std", "best"))
    return [(name, str(row["num_prompts"]), *figures, chosen)]


def _value(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


_RELIABILITY = (
    "Calibration: the share of right answers by probability. On the diagonal an answer of 80 % is right in"
    " 80 % of the images."
)
_PAIRS = (
    "Similarity of pairs, after MedCLIP's figure 5: images with a finding and “There is X” (matched), images"
    " without it (unmatched), and images with it beside “There is no X” (contradicting). Apart is good."
)
_TABLES: dict[str, tuple[str, str, Cells, Callable[[str, Json], list[Cells]]]] = {
    "calibration": (
        "Calibration",
        "Expected calibration error: mean distance of a probability from the share of images in which it is"
        " right, before and after a fit on validation images. 0 is best.",
        ("calibration", "error before", "error after", "fitted"),
        _calibration,
    ),
    "operating_points": (
        "Operating points",
        "Thresholds that reach 90 % on validation images, and what they reach on the test images.",
        ("threshold for", "threshold", "sensitivity [95 % CI]", "specificity [95 % CI]"),
        _operating_points,
    ),
    "conformal": (
        "Conformal sets",
        "The answers that cannot be excluded, such that the truth is among them in 90 % of patients. A set of"
        " one answer is a decision; otherwise the model abstains.",
        ("conformal sets", "coverage", "mean size", "decided", "patients"),
        _conformal,
    ),
    "negation": (
        "Negation",
        "Whether “There is X” fits an image with X better than “There is no X”, and an image without X worse."
        " A model that ignores “no” has .5 in the mean of the two, and an AUROC of .5.",
        ("negation", "“X” above “no X”, X present", "“no X” above “X”, X absent", "AUROC of the difference"),
        _negation,
    ),
    "prompts": (
        "Choice of the prompt",
        "AUROC by each prompt alone: a large spread means that the wording decides. Chosen: the prompt that"
        " is best on validation images, on the test images.",
        ("prompts", "number", "worst", "mean", "std", "best", "chosen"),
        _prompts,
    ),
}
