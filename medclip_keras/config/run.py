"""A run's configuration as a whole: validated when built, changed by `--set`, replayed from `run.json`."""

import dataclasses
import json
from dataclasses import field
from typing import Annotated, Any

import pydantic
from pydantic import Field

from medclip_keras.config.sections import (
    AugmentConfig,
    DataConfig,
    EvaluationConfig,
    ExportConfig,
    ModelConfig,
    ObjectiveConfig,
    TrainConfig,
)
from medclip_keras.config.validation import field_paths, section, sentence, unknown_field
from medclip_keras.errors import require
from medclip_keras.objectives.catalogue import OBJECTIVES


@section()
class RunConfig:
    """All settings of a run: with the input files they determine its results."""

    name: str
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    export: ExportConfig = field(default_factory=ExportConfig)

    def __post_init__(self) -> None:
        self._require_sizes()
        self._require_objective()

    def _require_sizes(self) -> None:
        require(
            self.model.image.image_size <= self.data.stored_image_size,
            "model.image.image_size",
            f"at most data.stored_image_size ({self.data.stored_image_size})",
            self.model.image.image_size,
        )
        text = self.model.text
        require(
            text.hidden_dim % text.num_heads == 0,
            "model.text.num_heads",
            f"a divisor of model.text.hidden_dim ({text.hidden_dim})",
            text.num_heads,
        )
        require(
            text.max_positions == 0 or text.max_positions >= self.data.max_tokens,
            "model.text.max_positions",
            f"0, or at least data.max_tokens ({self.data.max_tokens})",
            text.max_positions,
        )

    def _require_objective(self) -> None:
        require(
            not self.objective.tile_size or self.objective.name != "gloria",
            "objective.tile_size",
            "0 for the objective gloria, which has no tiled form",
            self.objective.tile_size,
        )
        require(
            self.train.frozen == "none" or (self.train.lock == "none" and self.objective.name != "gloria"),
            "train.frozen",
            "none with train.lock, which computes features at each step, and for gloria, which needs regions",
            self.train.frozen,
        )
        only_pairs = OBJECTIVES[self.objective.name].pairing == "pairs"
        require(
            not only_pairs or self.pairing == "pairs",
            "data.pairing",
            f"auto or pairs for the objective {self.objective.name}, which learns from pairs alone",
            self.data.pairing,
        )
        require(
            self.data.text_unit == "sentence" or self.pairing == "pairs",
            "data.text_unit",
            "sentence unless data.pairing is pairs: reports are not drawn independently of images",
            self.data.text_unit,
        )

    @property
    def pairing(self) -> str:
        """`data.pairing`; "auto" resolves to the objective's default."""
        auto = self.data.pairing == "auto"
        return OBJECTIVES[self.objective.name].pairing if auto else self.data.pairing


_ADAPTER = pydantic.TypeAdapter(RunConfig)


def to_dict(config: RunConfig) -> dict[str, Any]:
    """Convert a configuration to JSON types."""
    values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return values


def from_dict(values: dict[str, Any]) -> RunConfig:
    """Builds a run from JSON types; the inverse of `to_dict`.

    Raises:
        ValueError: an unknown field (with the near names), a wrong type or a value out of range.
    """
    try:
        return _ADAPTER.validate_python(values)
    except pydantic.ValidationError as error:
        raise ValueError(sentence(error, field_paths(RunConfig))) from None


def override(config: RunConfig, assignments: list[str]) -> RunConfig:
    """Applies `--set a.b=c` assignments; parse values as JSON, else keep them as strings.

    >>> override(RunConfig("mine"), ["train.steps=10"]).train.steps
    10

    Raises:
        ValueError: an assignment without "=", an unknown field (with the near names), a bad value.
    """
    values = to_dict(config)
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        require(bool(equals), "--set", "of the form a.b=c", assignment)
        *parents, leaf = path.split(".")
        node = values
        for name in (*parents, leaf):
            if not isinstance(node, dict) or name not in node:
                raise ValueError(unknown_field(path, field_paths(RunConfig)))
            node, parent = node[name], node
        try:
            parent[leaf] = json.loads(text)
        except json.JSONDecodeError:
            parent[leaf] = text
    return from_dict(values)


def field_values(config: RunConfig) -> dict[str, Any]:
    """Map each field's path to its value, as JSON types.

    >>> field_values(RunConfig("mine"))["train.batch_size"]
    100
    """
    return _flat(to_dict(config))


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
