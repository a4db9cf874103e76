"""Plots of an evaluation, drawn without a display; none of them shows report text."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from sklearn.metrics import roc_curve

from medclip_keras.evaluation.arrays import Array, Floats
from medclip_keras.evaluation.classification import confusion, ranked_scores
from medclip_keras.evaluation.metrics import Estimate
from medclip_keras.evaluation.results import (
    TRAINED,
    UNTRAINED,
    ClassificationResult,
    RetrievalResult,
    TrustResult,
    ZeroShotResult,
)
from medclip_keras.evaluation.table import variant_name

_BAR_COLOURS = {UNTRAINED: "#b8c4cf", TRAINED: "#1f5c99"}
_LEGEND: dict[str, Any] = {"fontsize": 8, "frameon": False}
_LEGEND_BESIDE = _LEGEND | {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}


def _ordered(models: Iterable[str]) -> list[str]:
    """Sort the untrained model before the trained one."""
    return sorted(models, key=[UNTRAINED, TRAINED].index)


def similarity(result: ZeroShotResult) -> Figure:
    """Mean cosine between the images of each class and its prompts, before and after training."""
    classes = comparable_classes(result)
    images = [result.task.labels[:, result.task.classes.index(name)] == 1 for name in classes]
    prompts = [result.prompts.columns(name) for name in classes]
    matrices = {
        who: np.stack([embeddings[rows].mean(axis=0) for rows in images])
        @ np.stack([result.prompt_embeddings[who][rows].mean(axis=0) for rows in prompts]).T
        for who, embeddings in result.image_embeddings.items()
    }
    figure, axes = _panels(_ordered(matrices), *_matrix_size(classes))
    limits = {"vmin": np.min(list(matrices.values())), "vmax": np.max(list(matrices.values()))}
    for who, ax in zip(_ordered(matrices), axes, strict=True):
        drawn = _matrix(ax, matrices[who], classes, ".2f", **limits)
        ax.set(xlabel="prompts of", ylabel="images with" if ax is axes[0] else "")
    figure.colorbar(drawn, ax=axes, label="mean cosine", shrink=0.8)
    return figure


def comparable_classes(result: ZeroShotResult) -> list[str]:
    """Classes with both prompts and images; a data set may have images of none of them."""
    has_images = dict(zip(result.task.classes, result.task.has_images, strict=True))
    return [name for name in result.task.classes if name in result.prompts.classes and has_images[name]]


def confusion_matrices(result: ClassificationResult) -> Figure:
    """Counts of the true against the predicted finding, one panel per variant."""
    figure, axes = _panels(list(result.scores), *_matrix_size(result.task.classes))
    for variant, ax in zip(result.scores, axes, strict=True):
        counts = confusion(result.task, result.scores[variant][TRAINED])
        _matrix(ax, counts, result.task.classes, "d", cmap="Blues", vmin=0)
        accuracy = result.estimates[variant][TRAINED].overall["accuracy"].value
        title = f"{variant_name(variant)}: accuracy {accuracy:.3f}"
        ax.set(xlabel="predicted", ylabel="true", title=title)
    return figure


def roc_curves(result: ClassificationResult, variant: str, title: str) -> Figure:
    """One ROC curve per class, against the rest, with its area."""
    figure, (ax,) = _panels([title], width=6.8)
    scores = ranked_scores(result.task, result.scores[variant][TRAINED])
    for k, (name, estimates) in enumerate(result.estimates[variant][TRAINED].by_class.items()):
        area, labels = estimates["auroc"].value, result.task.labels[:, k]
        if np.isnan(area):
            continue
        known = ~np.isnan(labels)
        false_rate, true_rate, _ = roc_curve(labels[known], scores[known, k])
        ax.plot(false_rate, true_rate, label=_legend_label(f"{name} {area:.3f}"), **_line(k))
    ax.plot([0, 1], [0, 1], color="0.7", linestyle=":", label="chance 0.500")
    ax.set(xlabel="false positive rate", ylabel="true positive rate", title=title)
    ax.set_aspect("equal")
    ax.legend(**_LEGEND_BESIDE)
    return figure


def embedding(result: ZeroShotResult) -> Figure:
    """The two main directions among the images, with the prompts; each modality centred by itself."""
    figure, axes = _panels(_ordered(result.image_embeddings), width=4.4)
    classes = [name for name in result.task.classes if name in result.prompts.classes]
    labels = np.nan_to_num(result.task.labels[:, [result.task.classes.index(name) for name in classes]])
    only = np.where(labels.sum(axis=1) == 1, labels.argmax(axis=1), -1)
    for who, ax in zip(_ordered(result.image_embeddings), axes, strict=True):
        images, prompts = (
            e - e.mean(axis=0) for e in (result.image_embeddings[who], result.prompt_embeddings[who])
        )
        one_image = len(images) == 1  # it has no direction
        directions = np.linalg.svd(images, full_matrices=one_image)[2][:2].T  # (D, 2)
        dots, triangles = images @ directions, prompts @ directions
        others = "none or several" if (only < 0).any() else None
        _scatter(ax, dots[only < 0], s=6, color="0.85", label=others)
        for k, name in enumerate(classes):
            _scatter(
                ax, dots[only == k], s=9, color=_colour(k), alpha=0.6, linewidths=0, label=_legend_label(name)
            )
            at, edge = triangles[result.prompts.columns(name)], {"edgecolors": "black", "linewidths": 0.6}
            _scatter(ax, at, s=45, color=_colour(k), marker="^", zorder=2, **edge)
        ax.set(xticks=[], yticks=[], xlabel="dots: images; triangles: prompts")
    ax.legend(markerscale=2, **_LEGEND_BESIDE)
    return figure


def _scatter(ax: Axes, points: Floats, **options: Any) -> None:
    ax.scatter(points[:, 0], points[:, 1], **options)


def precision_bars(result: RetrievalResult) -> Figure:
    """Precision@K with its intervals, before and after training, and the baseline."""
    figure, (ax,) = _panels(["Precision@K, image to text"], width=5.2)
    names = [f"K = {metric.rpartition('_')[2]}" for metric in result.baseline]
    estimates = {who: list(e.overall.values()) for who, e in result.estimates[""].items()}
    _bars(ax, names, estimates, list(result.baseline.values()))
    ax.set(ylabel="precision")
    return figure


def reliability_curves(result: TrustResult) -> Figure:
    """Share of right answers against probability; the area of a dot is its share of the images."""
    figure, (ax,) = _panels(["Reliability, trained, prompt ensemble"], width=7.2)
    for (when, found), colour in zip(result.reliability.items(), ("#d1782a", "#1f5c99"), strict=False):
        label = f"{when} calibration, error {found.error:.3f}"
        ax.plot(found.confidence, found.accuracy, color=colour, linewidth=1, label=label)
        ax.scatter(found.confidence, found.accuracy, s=120 * found.counts / found.counts.sum(), color=colour)
    ax.plot([0, 1], [0, 1], color="0.7", linestyle=":", label="calibrated")
    ax.set(xlabel="probability", ylabel="share of right answers", xlim=(0, 1), ylim=(0, 1))
    ax.set_aspect("equal")
    ax.legend(**_LEGEND_BESIDE)
    return figure


def probe_bars(result: ClassificationResult) -> Figure:
    """Linear probes before and after training: by share of the labels; by class if there is one share."""
    figure, (ax,) = _panels(["Linear probe on frozen features"], width=6.4)
    metric = "balanced_accuracy" if result.task.is_single else "auroc"
    own = "accuracy" if result.task.is_single else "auroc"  # of a class
    one_share = len(result.estimates) == 1
    estimates: dict[str, list[Estimate]] = {}
    for by_model in result.estimates.values():
        for who, found in by_model.items():
            by_class = [of_class[own] for of_class in found.by_class.values()] if one_share else []
            estimates.setdefault(who, []).extend([found.overall[metric], *by_class])
    if one_share:
        names = ["macro mean", *result.task.classes]
    else:
        counts = result.counts["num_training_images"]
        names = [f"{variant_name(share)}\n{counts[share]} images" for share in result.estimates]
    _bars(ax, names, estimates, [result.baseline[metric]] * len(names))
    kind = "accuracy" if result.task.is_single else "AUROC"
    ax.set(ylabel=f"{kind} of each class" if one_share else f"mean {kind} of the classes")
    if one_share:
        ax.set_xticks(range(len(names)), names, rotation=30, ha="right", fontsize=8)
    return figure


def _bars(
    ax: Axes, names: Sequence[str], estimates: Mapping[str, Sequence[Estimate]], baseline: Sequence[float]
) -> None:
    """One group of bars per name, one bar per model, with whiskers and the baseline."""
    positions = np.arange(len(names))
    for n, who in enumerate(_ordered(estimates)):
        values, lows, highs = np.array([(e.value, e.low, e.high) for e in estimates[who]]).T
        errors = np.maximum([values - lows, highs - values], 0)
        at = positions + 0.38 * (n - (len(estimates) - 1) / 2)
        ax.bar(at, values, 0.36, label=who, color=_BAR_COLOURS[who], yerr=errors, capsize=3)
    ax.hlines(baseline, positions - 0.45, positions + 0.45, color="black", linestyle=":", label="baseline")
    ax.set_xticks(positions, names)
    ax.set(ylim=(0, 1.02))
    ax.legend(**_LEGEND_BESIDE)


def retrieval_similarity(result: RetrievalResult) -> Figure:
    """Cosines of every query image with every candidate sentence, both sorted by finding."""
    figure, axes = _panels(_ordered(result.similarities), width=4.6)
    findings = result.task.classes
    query_classes, candidate_classes = result.task.class_index, result.candidate_classes
    rows, columns = (np.argsort(c, kind="stable") for c in (query_classes, candidate_classes))
    for who, ax in zip(_ordered(result.similarities), axes, strict=True):
        matrix = result.similarities[who][np.ix_(rows, columns)]
        drawn = ax.imshow(matrix, aspect="auto", cmap="viridis", interpolation="nearest")
        for classes, set_ticks in ((query_classes, ax.set_yticks), (candidate_classes, ax.set_xticks)):
            counts = np.bincount(classes, minlength=len(findings))
            set_ticks(np.cumsum(counts) - counts / 2 - 0.5, findings, fontsize=7)
        ax.tick_params(axis="x", labelrotation=45)
        ax.set(xlabel="sentences about", ylabel="images with", title=who)
        figure.colorbar(drawn, ax=ax, label="cosine", shrink=0.8)
    return figure


def _matrix_size(classes: Sequence[str]) -> tuple[float, float]:
    """Width and height in inches at which the numbers of a matrix do not touch."""
    return 0.5 * len(classes) + 2.6, max(4.2, 0.4 * len(classes) + 2.2)


def _panels(titles: Sequence[str], width: float, height: float = 4.2) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width * len(titles), height), layout="constrained", dpi=110)
    axes = list(figure.subplots(1, len(titles), squeeze=False)[0])
    for title, ax in zip(titles, axes, strict=True):
        ax.set_title(title)
        ax.title.set_fontsize(10)
    return figure, axes


def _matrix(ax: Axes, matrix: Array, names: Sequence[str], number: str, **options: Any) -> AxesImage:
    drawn = ax.imshow(matrix, **options)
    is_low = np.asarray(drawn.norm(matrix)) < 0.5
    for (i, j), value in np.ndenumerate(matrix):
        is_dark = is_low[i, j] == (drawn.get_cmap().name == "viridis")
        text, colour = format(value, number).replace("-0.00", "0.00"), "white" if is_dark else "black"
        ax.text(j, i, text, ha="center", va="center", fontsize=7, color=colour)
    ax.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=8)
    ax.set_yticks(range(len(names)), names, fontsize=8)
    return drawn


def _legend_label(name: str) -> str:
    """The name; Matplotlib leaves a name that begins with an underscore out of a legend."""
    return f" {name}" if name.startswith("_") else name


def _line(k: int) -> dict[str, Any]:
    """Colour and dashes of the k-th class, different for forty classes."""
    return {"color": _colour(k), "linestyle": ("-", "--", "-.", ":")[k // 10 % 4]}


def _colour(k: int) -> tuple[float, ...]:
    return colormaps["tab10"](k % 10)
