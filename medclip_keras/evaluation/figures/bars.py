"""Bars with intervals, before and after training, beside the baseline."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from medclip_keras.evaluation.figures.canvas import (
    MODEL_COLOURS,
    colour,
    legend_below,
    legend_label,
    line,
    new_axes,
)
from medclip_keras.evaluation.metrics import Estimate
from medclip_keras.evaluation.results import TRAINED, UNTRAINED, ClassificationResult, RetrievalResult
from medclip_keras.evaluation.table import Row, variant_name


def precision_bars(result: RetrievalResult) -> Figure:
    """Precision@K with its intervals, before and after training, and the baseline."""
    figure, ax = new_axes()
    metrics = [metric for metric in result.baseline if metric.startswith("precision_at_")]
    names = [f"K = {metric.rpartition('_')[2]}" for metric in metrics]
    estimates = {who: [e.overall[m] for m in metrics] for who, e in result.estimates[""].items()}
    _bars(figure, ax, names, estimates, [result.baseline[m] for m in metrics])
    ax.set(ylabel="precision")
    return figure


def probe_bars(result: ClassificationResult) -> Figure:
    """Linear probes before and after training: by share of the labels; by class if there is one share."""
    figure, ax = new_axes()
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
    _bars(figure, ax, names, estimates, [result.baseline[metric]] * len(names))
    kind = "accuracy" if result.task.is_single else "AUROC"
    ax.set(ylabel=f"{kind} of each class" if one_share else f"mean {kind} of the classes")
    if one_share:
        ax.set_xticks(range(len(names)), names, rotation=30, ha="right", rotation_mode="anchor", fontsize=9)
    return figure


def _ordered(models: Iterable[str]) -> list[str]:
    """Sort the untrained model before the trained one."""
    return sorted(models, key=[UNTRAINED, TRAINED].index)


def _bars(
    figure: Figure,
    ax: Axes,
    names: Sequence[str],
    estimates: Mapping[str, Sequence[Estimate]],
    baseline: Sequence[float],
) -> None:
    """One group of bars per name, one bar per model, with whiskers and the baseline."""
    positions = np.arange(len(names))
    whiskers = {"ecolor": "#87919b", "elinewidth": 1.2, "capsize": 3}
    for n, who in enumerate(_ordered(estimates)):
        values, lows, highs = np.array([(e.value, e.low, e.high) for e in estimates[who]]).T
        errors = np.maximum([values - lows, highs - values], 0)
        at = positions + 0.38 * (n - (len(estimates) - 1) / 2)
        ax.bar(at, values, 0.36, label=who, color=MODEL_COLOURS[who], yerr=errors, error_kw=whiskers)
    ax.hlines(baseline, positions - 0.45, positions + 0.45, color="#cf4a5c", linewidth=1.6, label="baseline")
    ax.set_xticks(positions, names)
    ax.set(ylim=(0, 1.02))
    legend_below(figure, ax, columns=3)


def shares(curves: Mapping[str, Mapping[float, Sequence[float]]], metric: str) -> Figure:
    """Values of each seed by share of the data, and a line through their means, one curve a kind."""
    figure, ax = new_axes()
    for k, (kind, by_share) in enumerate(curves.items()):
        at = sorted(by_share)
        ax.plot(at, [np.mean(by_share[x]) for x in at], label=legend_label(kind), **line(k))
        x, y = np.array([(x, value) for x in at for value in by_share[x]]).T
        ax.scatter(x, y, color=colour(k), s=18, alpha=0.7)
    ticks = sorted({x for by_share in curves.values() for x in by_share})
    ax.set(xscale="log", xlabel="share of the training patients", ylabel=metric)
    ax.set_xticks(ticks, [f"{100 * x:g} %" for x in ticks])
    ax.minorticks_off()
    legend_below(figure, ax, columns=1)
    return figure


def differences(named: Sequence[tuple[str, Estimate]]) -> Figure:
    """Differences with their intervals on one axis; full dots are those whose interval is without 0."""
    figure, ax = new_axes(height=0.8 + 0.32 * len(named))
    for at, (_, found) in enumerate(reversed(named)):
        clear = found.low > 0 or found.high < 0
        shade = MODEL_COLOURS[TRAINED] if clear else MODEL_COLOURS[UNTRAINED]
        ax.plot((found.low, found.high), (at, at), color=shade, linewidth=4, alpha=0.5)
        ax.scatter([found.value], [at], color=shade, s=36, zorder=3)
    ax.axvline(0, color="#cf4a5c", linewidth=1.4)
    ax.set_yticks(range(len(named)), [legend_label(name) for name, _ in reversed(named)])
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set(ylim=(-0.6, len(named) - 0.4), xlabel="difference")
    return figure


def overview(rows: Sequence[Row]) -> Figure:
    """Main figures with their intervals on one axis, each beside its baseline and the untrained model."""
    figure, ax = new_axes(height=0.9 + 0.42 * len(rows))
    for at, row in enumerate(reversed(rows)):
        found, blue = row.trained, MODEL_COLOURS[TRAINED]
        ax.plot((row.baseline, found.value), (at, at), color="#87919b", linewidth=0.8, zorder=0)
        ax.plot(
            (found.low, found.high), (at, at), color=blue, linewidth=5, alpha=0.35, solid_capstyle="round"
        )
        ax.scatter([found.value], [at], color=blue, s=42, zorder=3, label=None if at else TRAINED)
        ax.scatter([row.baseline], [at], color="#cf4a5c", marker="|", s=150, linewidths=2,
                   label=None if at else "baseline")  # fmt: skip
        if row.untrained and not np.isnan(row.untrained.value):
            ax.scatter([row.untrained.value], [at], color=MODEL_COLOURS[UNTRAINED], s=26,
                       label=None if at else UNTRAINED)  # fmt: skip
    ax.set_yticks(range(len(rows)), [row.name for row in reversed(rows)])
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set(xlim=(-0.02, 1.02), ylim=(-0.6, len(rows) - 0.4))
    legend_below(figure, ax, columns=3)
    return figure
