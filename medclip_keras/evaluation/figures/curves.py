"""Curves over thresholds: ROC, precision and recall, calibration."""

from collections.abc import Iterator

import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_curve

from medclip_keras.evaluation.arrays import Floats
from medclip_keras.evaluation.classification import ranked_scores
from medclip_keras.evaluation.figures.canvas import (
    MODEL_COLOURS,
    WARM,
    guide,
    legend_below,
    legend_label,
    line,
    new_axes,
)
from medclip_keras.evaluation.results import TRAINED, ClassificationResult, TrustResult


def roc_curves(result: ClassificationResult, variant: str) -> Figure:
    """One ROC curve per class, against the rest, with its area."""
    figure, ax = new_axes()
    for k, name, labels, scores in _known(result, variant):
        area = result.estimates[variant][TRAINED].by_class[name]["auroc"].value
        false_rate, true_rate, _ = roc_curve(labels, scores)
        ax.plot(false_rate, true_rate, label=legend_label(f"{name} {area:.3f}"), **line(k))
    guide(ax, (0, 1), (0, 1), "chance 0.500")
    ax.set(xlabel="false positive rate", ylabel="true positive rate", aspect="equal")
    legend_below(figure, ax, title="area under the curve")
    return figure


def precision_recall_curves(result: ClassificationResult, variant: str) -> Figure:
    """One curve per class, against the rest, with its average precision; chance is the class's share."""
    figure, ax = new_axes()
    shares = []
    for k, name, labels, scores in _known(result, variant):
        precision, recall, _ = precision_recall_curve(labels, scores)
        area, share = average_precision_score(labels, scores), labels.mean()
        shares.append(share)
        text = f"{name} {area:.3f} ({share:.2f})"
        ax.step(recall, precision, where="post", label=legend_label(text), **line(k))
    if shares:
        guide(ax, (0, 1), (np.mean(shares),) * 2, "mean share of the classes")
    ax.set(xlabel="recall", ylabel="precision", ylim=(0, 1.02), aspect="equal")
    legend_below(figure, ax, title="average precision (share of the class)")
    return figure


def _known(result: ClassificationResult, variant: str) -> Iterator[tuple[int, str, Floats, Floats]]:
    """Position, name, known labels and their scores of each class with an AUROC."""
    scores = ranked_scores(result.task, result.scores[variant][TRAINED])
    for k, (name, estimates) in enumerate(result.estimates[variant][TRAINED].by_class.items()):
        labels = result.task.labels[:, k]
        known = ~np.isnan(labels)
        if not np.isnan(estimates["auroc"].value):
            yield k, name, labels[known], scores[known, k]


def reliability_curves(result: TrustResult) -> Figure:
    """Share of right answers against probability; the area of a dot is its share of the images."""
    figure, ax = new_axes()
    colours = (WARM, *MODEL_COLOURS.values())
    for (when, found), shade in zip(result.reliability.items(), (colours[0], colours[-1]), strict=False):
        label = f"{when} calibration, error {found.error:.3f}"
        ax.plot(found.confidence, found.accuracy, color=shade, linewidth=1, alpha=0.6, label=label)
        ax.scatter(found.confidence, found.accuracy, s=150 * found.counts / found.counts.sum(), color=shade)
    guide(ax, (0, 1), (0, 1), "calibrated")
    ax.set(xlabel="probability", ylabel="share of right answers", xlim=(0, 1), ylim=(0, 1), aspect="equal")
    legend_below(figure, ax, columns=1)
    return figure
