"""Calibration of the endpoint zero_shot: the parameters that `evaluate` fitted on validation images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from medclip_keras.config import EvaluationConfig
from medclip_keras.evaluation.prompts import finding_prompts, prompts_made_from
from medclip_keras.evaluation.trust.measure import ALL_CLASSES


@dataclass(frozen=True)
class Calibration:
    """Probabilities from ensemble scores: a softmax with one temperature, or Platt's sigmoid a class.

    Follows: `evaluation.trust.calibration`.
    """

    data_set: str  # whose validation images it was fitted on
    exclusive: bool  # whether an image has exactly one of the classes
    slopes: tuple[float, ...]  # a class; 1 / temperature if exclusive
    offsets: tuple[float, ...]  # a class

    def __call__(self, scores: tf.Tensor) -> tf.Tensor:
        """Scores (B, C) to probabilities (B, C)."""
        slopes, offsets = (np.array(values, np.float32) for values in (self.slopes, self.offsets))
        logits = slopes * scores + offsets
        return tf.nn.softmax(logits) if self.exclusive else tf.sigmoid(logits)


def find_calibration(metrics: Mapping[str, Any], evaluation: EvaluationConfig) -> Calibration | None:
    """The calibration in metrics.json of the run's classes and prompts; None without exactly one.

    Args:
        metrics: content of metrics.json, of the weights to export.
        evaluation: of the run, whose prompts the endpoint embeds. One that was fitted for other classes,
            prompts or another task is left out, as are several data sets that each have their own.
    """
    evaluated, wanted = metrics.get("evaluation", {}), (evaluation.task, list(evaluation.findings))
    prompts = prompts_made_from(evaluation.prompts, finding_prompts(evaluation))["prompts_sha256"]
    if (evaluated.get("task"), evaluated.get("findings")) != wanted:
        return None
    found = []
    for name, data_set in metrics.get("data_sets", {}).items():
        table = metrics["data"][name].get("trust", {}).get("calibration", {})
        if data_set.get("prompts_sha256") == prompts:
            found.append(_of_table(name, table, evaluation.findings, evaluation.task == "single_finding"))
    fitted = [calibration for calibration in found if calibration]
    return fitted[0] if len(fitted) == 1 else None


def _of_table(
    data_set: str, table: Mapping[str, Any], classes: Sequence[str], exclusive: bool
) -> Calibration | None:
    """The calibration of a data set's table; None if a class has no fit."""
    if exclusive:
        temperature = table.get(ALL_CLASSES, {}).get("temperature")
        slopes = (1 / temperature,) * len(classes) if temperature else ()
        return Calibration(data_set, True, slopes, (0.0,) * len(classes)) if slopes else None
    rows = [table.get(name, {}) for name in classes]
    if not all("slope" in row for row in rows):
        return None
    slopes, offsets = (tuple(row[key] for row in rows) for key in ("slope", "offset"))
    return Calibration(data_set, False, slopes, offsets)
