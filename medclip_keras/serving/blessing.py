"""Blessing: whether a model keeps the thresholds of its run, decided before anything is written.

A bound holds if the worse end of the metric's 95 % interval keeps it; an interval that spans the bound, a
metric that is undefined and one without an interval do not. `decide_by: "value"` looks at the value alone. A
`max_drop` bounds the paired difference from the version that is served.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from etils import epath

from medclip_keras.config import Threshold
from medclip_keras.errors import near_names, require
from medclip_keras.evaluation.metrics import Estimate

_ROUNDING = 1e-9

Differences = Callable[[], Mapping[str, Estimate]]


@dataclass(frozen=True)
class Verdict:
    """Whether a metric keeps a bound."""

    metric: str
    bound: str
    estimate: Estimate  # of the metric, or of its difference from the served version
    is_kept: bool
    reason: str  # of a bound that is not kept

    def __str__(self) -> str:
        kept = "kept" if self.is_kept else f"not kept: {self.reason}"
        return f"{self.metric} is {_text(self.estimate)}, must be {self.bound}: {kept}"


@dataclass(frozen=True)
class Blessing:
    """Verdicts on a model's thresholds, and the undecidable ones."""

    verdicts: tuple[Verdict, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def broken(self) -> list[Verdict]:
        """Verdicts on the bounds that are not kept."""
        return [verdict for verdict in self.verdicts if not verdict.is_kept]

    @property
    def status(self) -> str:
        """One line for people; "not blessed by thresholds" if no bound was decided."""
        if self.broken:
            return "refused by thresholds"
        if self.verdicts:
            return f"blessed: {len(self.verdicts)} of {len(self.verdicts)} bounds are kept"
        return "not blessed by thresholds: " + (" ".join(self.notes) or "the run has none")

    def to_dict(self) -> dict[str, Any]:
        """JSON types."""
        verdicts = [
            {"metric": v.metric, "bound": v.bound, "estimate": v.estimate.to_dict(), "kept": v.is_kept}
            for v in self.verdicts
        ]
        return {"status": self.status, "verdicts": verdicts, "notes": list(self.notes)}


def find_metrics(metric: str, estimates: Mapping[str, Estimate], data_sets: Sequence[str]) -> list[str]:
    """Full names of a threshold's metric: that of one data set, or those of all.

    Raises:
        ValueError: no data set has it; the message names near ones.
    """
    found = [name for name in estimates if name in (metric, *(f"{own}.{metric}" for own in data_sets))]
    short = {
        name.removeprefix(f"{own}."): None
        for name in estimates
        for own in data_sets
        if name.startswith(f"{own}.")
    }
    advice = near_names(metric, [*short, *estimates])
    if not advice.startswith("Near"):
        advice = near_names(metric, [name for name in short if ".by_class." not in name])
    form = "metrics of the workdir's evaluation/metrics.json"
    require(bool(found), "export.thresholds", form, metric, advice)
    return found


def bless(
    thresholds: Sequence[Threshold],
    estimates: Mapping[str, Estimate],
    data_sets: Sequence[str],
    served: epath.Path | None,
    differences: Differences,
) -> Blessing:
    """Decide every bound of every threshold.

    Args:
        thresholds: of the run.
        estimates: name → estimate of the model; see `evaluation.comparison`.
        data_sets: the first parts of these names.
        served: the version to compare with, or None.
        differences: measures name → estimate of the model less that version; called once, if needed.

    Raises:
        ValueError: a metric that does not exist, or of data that cannot be measured again.
    """
    named = [(t, name) for t in thresholds for name in find_metrics(t.metric, estimates, data_sets)]
    verdicts = [
        _judge(name, f"at least {t.at_least:g}", estimates[name], t.at_least, t.decide_by)
        for t, name in named
        if t.at_least is not None
    ]
    compared = [(t, name) for t, name in named if t.max_drop is not None]
    if not compared:
        return Blessing(tuple(verdicts))
    if served is None:
        return Blessing(tuple(verdicts), ("no version is served yet, so no drop was measured.",))
    measured = differences()
    for t, name in compared:
        advice = "Only metrics of records can be compared: use at_least."
        form = "metrics that can be measured again"
        require(name in measured, "export.thresholds with max_drop", form, name, advice)
        bound = f"at most {t.max_drop:g} below version {served.name}"
        verdicts.append(
            _judge(f"{name} (difference)", bound, measured[name], -(t.max_drop or 0), t.decide_by)
        )
    return Blessing(tuple(verdicts))


def _judge(metric: str, bound: str, estimate: Estimate, least: float, decide_by: str) -> Verdict:
    decisive = estimate.low if decide_by == "interval" else estimate.value
    is_kept = not math.isnan(estimate.value) and decisive >= least - _ROUNDING  # False for NaN
    reason = "the value is below the bound"
    if math.isnan(estimate.value):
        reason = "it is undefined"
    elif estimate.value >= least - _ROUNDING:
        reason = "the 95 % interval spans the bound; more held-out patients decide it"
        if math.isnan(estimate.low):
            reason = "it has no interval"
    return Verdict(metric, bound, estimate, is_kept, "" if is_kept else reason)


def _text(estimate: Estimate) -> str:
    """Four digits, so that a value just below its bound looks so."""
    interval = "" if math.isnan(estimate.low) else f" [{estimate.low:.4f}, {estimate.high:.4f}]"
    return f"{estimate.value:.4f}{interval}"
