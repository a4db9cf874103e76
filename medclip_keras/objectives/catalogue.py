"""The objectives by name, one row each; Keras is imported with the first function, for `config` reads this.

Adding an objective is a module of its name with a function of its name, and a row here. The function's
parameters are filled by name: embeddings, labels, studies, regions and words of the global batch,
`logit_scale`, `logit_bias`, `concept_kernel` and the fields of `config.ObjectiveConfig`.
"""

import functools
import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from medclip_keras.objectives.loss import Loss


@dataclass(frozen=True)
class Objective:
    """An objective's data and initial temperature, next to its function."""

    # the default of `data.pairing`; "pairs": the objective takes nothing but pairs
    pairing: Literal["independent", "own_report", "pairs"]
    fixed_logit_scale: float | None = None  # 1/tau of an objective that does not learn it
    initial_logit_scale: float | None = None  # 1/tau to learn from; None: that of `model.initial_temperature`
    initial_logit_bias: float | None = None  # start of a learned bias; None: no bias


OBJECTIVES = {
    "semantic_matching": Objective("independent"),
    "sigmoid_matching": Objective("independent", initial_logit_scale=10.0, initial_logit_bias=-10.0),
    "mixed_matching": Objective("own_report"),
    "info_nce": Objective("pairs"),
    "convirt": Objective("pairs", fixed_logit_scale=10.0),
    "gloria": Objective("pairs", fixed_logit_scale=10.0),
}


@functools.cache  # AutoGraph warns of an import inside a graph
def objective_function(name: str) -> Callable[..., Loss]:
    """Import the function of an objective."""
    function: Callable[..., Loss] = getattr(importlib.import_module(f"medclip_keras.objectives.{name}"), name)
    return function


def parameters(name: str) -> tuple[str, ...]:
    """Names of the parameters of an objective's function."""
    return tuple(inspect.signature(objective_function(name)).parameters)
