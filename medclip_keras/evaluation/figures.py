"""Figures of an evaluation, drawn without a display; none of them shows report text."""

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medclip_keras.evaluation.metrics import Estimate
from medclip_keras.evaluation.probe import ClassifierResult
from medclip_keras.evaluation.run import TRAINED, UNTRAINED, DatasetResult, RetrievalResult, ZeroShotResult
from medclip_keras.evaluation.table import share_of_labels
from medclip_keras.evaluation.zero_shot import confusion

_ORDER = (UNTRAINED, TRAINED)  # before, after
_BAR_COLOURS = {TRAINED: "#1f5c99", UNTRAINED: "#b8c4cf"}


def draw(result: DatasetResult) -> dict[str, Figure]:
    """All figures of one data set: file stem → figure."""
    figures = {}
    if result.zero_shot:
        if _comparable_classes(result.zero_shot):
            figures["similarity"] = similarity(result.zero_shot)
        if result.zero_shot.task.name == "single_finding":
            figures["confusion"] = confusion_matrices(result.zero_shot)
        figures["roc"] = roc_curves(result.zero_shot)
        figures["embedding"] = embedding(result.zero_shot)
    if result.retrieval:
        figures["retrieval"] = precision_bars(result.retrieval)
        figures["retrieval_similarity"] = retrieval_similarity(result.retrieval)
    if result.probe:
        figures["probe"] = probe_bars(result.probe)
    if result.supervised:
        (share,) = result.supervised.scores
        if result.supervised.task.name == "single_finding":
            figures["confusion"] = confusion_matrices(result.supervised)
        figures["roc"] = roc_curves(result.supervised, share, "ROC, trained on labels")
    return figures


def similarity(result: ZeroShotResult) -> Figure:
    """Mean cosine between the images of each class and its prompts, before and after training."""
    classes = _comparable_classes(result)
    prompt_rows = [result.prompts.columns(name) for name in classes]
    image_rows = [
        np.flatnonzero(result.task.labels[:, result.task.classes.index(name)] == 1) for name in classes
    ]
    matrices = {
        who: np.array(
            [
                [
                    _mean_cosine(result.image_embeddings[who][i], result.prompt_embeddings[who][j])
                    for j in prompt_rows
                ]
                for i in image_rows
            ]
        )
        for who in result.image_embeddings
    }
    figure, axes = _panels([who for who in _ORDER if who in matrices], width=0.55 * len(classes) + 2.4)
    limits = {"vmin": np.nanmin(list(matrices.values())), "vmax": np.nanmax(list(matrices.values()))}
    for who, ax in axes.items():
        drawn = _matrix(ax, matrices[who], classes, "{:.2f}", **limits)
        ax.set(xlabel="prompts of", ylabel="images with" if ax is next(iter(axes.values())) else "")
    figure.colorbar(drawn, ax=list(axes.values()), label="mean cosine", shrink=0.8)
    return figure


def _comparable_classes(result: ZeroShotResult) -> list[str]:
    """The classes that have both prompts and images; an archive may have images of none of them."""
    has_images = dict(zip(result.task.classes, (result.task.labels == 1).any(axis=0), strict=True))
    return [name for name in result.task.classes if name in result.prompts.classes and has_images[name]]


def confusion_matrices(result: ZeroShotResult | ClassifierResult) -> Figure:
    """Counts of the true against the predicted finding, for both ways of using prompts, or a classifier."""
    figure, axes = _panels(list(result.scores), width=0.55 * len(result.task.classes) + 2.4)
    for mode, ax in axes.items():
        counts = confusion(result.task, result.scores[mode][TRAINED])
        _matrix(ax, counts, result.task.classes, "{:d}", cmap="Blues", vmin=0)
        accuracy = result.metrics[TRAINED][mode]["accuracy"]["value"]
        name = mode if isinstance(result, ZeroShotResult) else share_of_labels(mode)
        ax.set(xlabel="predicted", ylabel="true", title=f"{name}: accuracy {accuracy:.3f}")
    return figure


def roc_curves(
    result: ZeroShotResult | ClassifierResult,
    mode: str = "ensemble",
    title: str = "ROC, trained, prompt ensemble",
) -> Figure:
    """A ROC curve a class, one against the rest, and its area."""
    figure, axes = _panels([mode], width=5.2)
    ax = axes[mode]
    for k, name in enumerate(result.task.classes):
        area = result.metrics[TRAINED][mode]["by_class"][name]["auroc"]["value"]
        if area is None:
            continue
        labels = result.task.labels[:, k]
        scores = result.scores[mode][TRAINED]
        if result.task.name == "single_finding":
            scores = scores - scores.mean(axis=1, keepdims=True)
        known = ~np.isnan(labels)
        order = np.argsort(-scores[known, k], kind="stable")
        truth = labels[known][order]
        true_rate, false_rate = np.cumsum(truth) / truth.sum(), np.cumsum(1 - truth) / (1 - truth).sum()
        ax.plot(np.r_[0, false_rate], np.r_[0, true_rate], color=_colour(k), label=f"{name} {area:.3f}")
    ax.plot([0, 1], [0, 1], color="0.7", linestyle=":", label="chance 0.500")
    ax.set(xlabel="false positive rate", ylabel="true positive rate", title=title)
    ax.set_aspect("equal")
    ax.legend(fontsize=8, frameon=False, loc="lower right")
    return figure


def embedding(result: ZeroShotResult) -> Figure:
    """The two main directions among the images, with the prompts; each modality centred by itself."""
    figure, axes = _panels([who for who in _ORDER if who in result.image_embeddings], width=4.4)
    classes = [name for name in result.task.classes if name in result.prompts.classes]
    labels = np.nan_to_num(result.task.labels[:, [result.task.classes.index(name) for name in classes]])
    only = np.where(labels.sum(axis=1) == 1, labels.argmax(axis=1), -1)
    for who, ax in axes.items():
        images, prompts = (
            e - e.mean(axis=0) for e in (result.image_embeddings[who], result.prompt_embeddings[who])
        )
        directions = np.linalg.svd(images, full_matrices=False)[2][:2].T  # (D, 2)
        dots, triangles = images @ directions, prompts @ directions
        ax.scatter(
            *dots[only < 0].T, s=6, color="0.85", label="none or several" if (only < 0).any() else None
        )
        for k, name in enumerate(classes):
            ax.scatter(*dots[only == k].T, s=9, color=_colour(k), alpha=0.6, linewidths=0, label=name)
        for k, name in enumerate(classes):
            at = triangles[result.prompts.columns(name)]
            ax.scatter(*at.T, s=45, color=_colour(k), marker="^", edgecolors="black", linewidths=0.6)
        ax.set(xticks=[], yticks=[], xlabel="dots: images; triangles: prompts")
    ax.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), markerscale=2)
    return figure


def precision_bars(result: RetrievalResult) -> Figure:
    """Precision@K with its intervals, before and after training, and chance."""
    figure, axes = _panels(["Precision@K, image to text"], width=5.2)
    ax = next(iter(axes.values()))
    chance = result.metrics["chance"]
    estimates = {
        who: [Estimate.from_dict(result.metrics[who][key]) for key in chance]
        for who in _ORDER
        if who in result.similarities
    }
    _bars(ax, [f"K = {key.rpartition('_')[2]}" for key in chance], estimates, list(chance.values()))
    ax.set(ylabel="precision")
    return figure


def probe_bars(result: ClassifierResult) -> Figure:
    """Linear probes before and after training: over the shares of the labels; of one share, by class."""
    figure, axes = _panels(["Linear probe on frozen features"], width=6.4)
    ax = next(iter(axes.values()))
    key, chance = next(iter(result.metrics["chance"].items()))
    numbers, shares = result.metrics["num_training_images"], list(result.scores)
    whole = "all classes" if key == "accuracy" else "macro mean"
    if len(shares) > 1:
        names = [f"{share_of_labels(share)}\n{numbers[share]} images" for share in shares]
    else:
        names = [whole, *result.task.classes]
    estimates = {}
    for who in _ORDER:
        if who in result.metrics:
            figures = [result.metrics[who][share] for share in shares]
            if len(shares) == 1:
                figures += figures[0]["by_class"].values()
            estimates[who] = [Estimate.from_dict(of_one[key]) for of_one in figures]
    _bars(ax, names, estimates, [chance] * len(names))
    ax.set(ylabel="accuracy" if key == "accuracy" else "macro AUROC" if len(shares) > 1 else "AUROC")
    if len(shares) == 1:
        ax.set_xticks(range(len(names)), names, rotation=30, ha="right", fontsize=8)
    return figure


def _bars(ax: Axes, names: list[str], estimates: dict[str, list[Estimate]], chance: list[float]) -> None:
    """A group of bars a name, one bar a model, with whiskers and chance."""
    positions = np.arange(len(names))
    for n, (who, of_who) in enumerate(estimates.items()):
        values = np.array([e.value for e in of_who])
        lows, highs = ([getattr(e, end) for e in of_who] for end in ("low", "high"))
        errors = np.maximum([values - lows, highs - values], 0)
        at = positions + 0.38 * (n - (len(estimates) - 1) / 2)
        ax.bar(at, values, 0.36, label=who, color=_BAR_COLOURS[who], yerr=errors, capsize=3)
    options = {"color": "black", "linestyle": ":", "label": "chance"}
    ax.hlines(chance, positions - 0.45, positions + 0.45, **options)
    ax.set_xticks(positions, names)
    ax.set(ylim=(0, 1.02))
    ax.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))


def retrieval_similarity(result: RetrievalResult) -> Figure:
    """Cosines of every query image with every candidate sentence, both sorted by finding."""
    figure, axes = _panels([who for who in _ORDER if who in result.similarities], width=4.6)
    rows, columns = (np.argsort(c, kind="stable") for c in (result.query_classes, result.candidate_classes))
    for who, ax in axes.items():
        matrix = result.similarities[who][np.ix_(rows, columns)]
        drawn = ax.imshow(matrix, aspect="auto", cmap="viridis", interpolation="nearest")
        for classes, ticks in (
            (result.query_classes, ax.set_yticks),
            (result.candidate_classes, ax.set_xticks),
        ):
            counts = np.bincount(classes, minlength=len(result.findings))
            ticks(np.cumsum(counts) - counts / 2 - 0.5, result.findings, fontsize=7)
        ax.tick_params(axis="x", labelrotation=45)
        ax.set(xlabel="sentences about", ylabel="images with", title=who)
        figure.colorbar(drawn, ax=ax, label="cosine", shrink=0.8)
    return figure


def _mean_cosine(image_embeddings: np.ndarray, prompt_embeddings: np.ndarray) -> float:
    if not len(image_embeddings):
        return np.nan
    return float(image_embeddings.mean(axis=0) @ prompt_embeddings.mean(axis=0))


def _panels(titles: list[str], width: float, height: float = 4.2) -> tuple[Figure, dict[str, Axes]]:
    figure = Figure(figsize=(width * len(titles), height), layout="constrained", dpi=110)
    axes = figure.subplots(1, len(titles), squeeze=False)[0]
    for ax, title in zip(axes, titles, strict=True):
        ax.set_title(title)
        ax.title.set_fontsize(10)
    return figure, dict(zip(titles, axes, strict=True))


def _matrix(ax: Axes, matrix: np.ndarray, names: tuple[str, ...], text: str, **options):
    drawn = ax.imshow(matrix, **({"cmap": "viridis"} | options))
    middle = np.nanmean([options.get("vmin", 0), options.get("vmax", np.nanmax(matrix))])
    for (i, j), value in np.ndenumerate(matrix):
        dark = (value < middle) == (drawn.get_cmap().name == "viridis")
        ax.text(
            j,
            i,
            text.format(value).replace("-0.00", "0.00"),
            ha="center",
            va="center",
            fontsize=7,
            color="white" if dark else "black",
        )
    ax.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=8)
    ax.set_yticks(range(len(names)), names, fontsize=8)
    return drawn


def _colour(k: int) -> tuple[float, ...]:
    return colormaps["tab10"](k % 10)
