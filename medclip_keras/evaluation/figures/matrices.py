"""Matrices of similarity and confusion, with similar classes beside each other."""

import numpy as np
from matplotlib.figure import Figure

from medclip_keras.evaluation.arrays import Floats
from medclip_keras.evaluation.classification import confusion
from medclip_keras.evaluation.figures.canvas import draw_matrix, matrix_axes, new_axes, similar_together
from medclip_keras.evaluation.results import TRAINED, ClassificationResult, RetrievalResult, ZeroShotResult


def class_similarity(result: ZeroShotResult, who: str = TRAINED) -> Figure:
    """Mean cosine between the images of each class and each class's prompts."""
    classes = comparable_classes(result)
    by_model = {name: _mean_cosines(result, classes, name) for name in result.image_embeddings}
    order = similar_together(by_model[TRAINED])
    figure, ax = matrix_axes(len(classes))
    limits = {"vmin": np.min(list(by_model.values())), "vmax": np.max(list(by_model.values()))}
    names = [classes[k] for k in order]
    drawn = draw_matrix(ax, by_model[who][np.ix_(order, order)], names, ".2f", **limits)
    ax.set(xlabel="prompts of", ylabel="images with")
    figure.colorbar(drawn, ax=ax, label="mean cosine", shrink=0.8).outline.set_visible(False)
    return figure


def _mean_cosines(result: ZeroShotResult, classes: list[str], who: str) -> Floats:
    images, prompts = result.image_embeddings[who], result.prompt_embeddings[who]
    with_class = [result.task.labels[:, result.task.classes.index(name)] == 1 for name in classes]
    of_class = [result.prompts.columns(name) for name in classes]
    cosines: Floats = (
        np.stack([images[rows].mean(axis=0) for rows in with_class])
        @ np.stack([prompts[rows].mean(axis=0) for rows in of_class]).T
    )
    return cosines


def comparable_classes(result: ZeroShotResult) -> list[str]:
    """Classes with both prompts and images; a data set may have images of none of them."""
    has_images = dict(zip(result.task.classes, result.task.has_images, strict=True))
    return [name for name in result.task.classes if name in result.prompts.classes and has_images[name]]


def confusion_matrix(result: ClassificationResult, variant: str) -> Figure:
    """Counts of the true against the predicted finding."""
    counts = confusion(result.task, result.scores[variant][TRAINED])
    order = similar_together((counts + counts.T).astype(np.float64))
    figure, ax = matrix_axes(len(counts))
    names = [result.task.classes[k] for k in order]
    draw_matrix(ax, counts[np.ix_(order, order)], names, "d", cmap="Blues", vmin=0)
    ax.set(xlabel="predicted", ylabel="true")
    return figure


def pair_similarity(result: RetrievalResult) -> Figure:
    """Cosines of every query image with every candidate sentence, both sorted by finding."""
    figure, ax = new_axes()
    findings, matrix = result.task.classes, result.similarities[TRAINED]
    query_classes, candidate_classes = result.task.class_index, result.candidate_classes
    rows, columns = (np.argsort(c, kind="stable") for c in (query_classes, candidate_classes))
    drawn = ax.imshow(matrix[np.ix_(rows, columns)], aspect="auto", interpolation="nearest")
    for classes, set_ticks in ((query_classes, ax.set_yticks), (candidate_classes, ax.set_xticks)):
        counts = np.bincount(classes, minlength=len(findings))
        at = np.cumsum(counts) - counts / 2 - 0.5
        set_ticks(at[counts > 0], [n for n, c in zip(findings, counts, strict=True) if c], fontsize=9)
    for label in ax.get_xticklabels():
        label.set(rotation=30, ha="right", rotation_mode="anchor")
    ax.set(xlabel="sentences about", ylabel="images with")
    ax.tick_params(length=0)
    figure.colorbar(drawn, ax=ax, label="cosine", shrink=0.8).outline.set_visible(False)
    return figure
