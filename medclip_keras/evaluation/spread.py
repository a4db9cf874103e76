"""Tables of how far figures depend on a draw: of the prompts, and of the images with labels."""

from collections.abc import Mapping

from medclip_keras.evaluation.results import (
    TRAINED,
    UNTRAINED,
    ClassificationResult,
    Json,
    ZeroShotResult,
)
from medclip_keras.evaluation.sections import Table
from medclip_keras.evaluation.table import variant_name

_MODELS = (TRAINED, UNTRAINED)


def notes_of(result: ZeroShotResult) -> tuple[str, ...]:
    """The classes that training had no label of, if any."""
    unseen = ", ".join(result.unseen)
    return (f"Unseen in training, in images and sentences: {unseen}.",) if unseen else ()


def draws_tables(result: ZeroShotResult) -> tuple[Table, ...]:
    """Mean and standard deviation over random draws of the prompts, if there were any."""
    rows = tuple(
        (f"{mode} {metric}".replace("_", " "), *(_spread(by_model.get(who, {}), metric) for who in _MODELS))
        for mode, by_model in result.draws.items()
        for metric in by_model[TRAINED]
    )
    caption = "Mean ± standard deviation over random draws of each class's prompts: what the wording decides."
    return (Table(caption, ("", *_MODELS), rows, "Draws of the prompts"),) if rows else ()


def seeds_tables(result: ClassificationResult) -> tuple[Table, ...]:
    """Mean and standard deviation over draws of the labelled images, of the shares that have several."""
    rows = tuple(
        (
            f"{metric}, {variant_name(variant)}".replace("_", " "),
            *(_spread(by_model[who].seeds if who in by_model else {}, metric) for who in _MODELS),
        )
        for variant, by_model in result.estimates.items()
        for metric in by_model[TRAINED].seeds
    )
    caption = "Mean ± standard deviation over draws of the images whose labels are used."
    return (Table(caption, ("", *_MODELS), rows, "Draws of the labels"),) if rows else ()


def _spread(found: Mapping[str, Json], metric: str) -> str:
    of = found.get(metric, {"mean": None, "std": None})
    return "–" if of["std"] is None else f"{of['mean']:.3f} ± {of['std']:.3f}"
