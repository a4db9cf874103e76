"""The configuration of a run: frozen dataclasses, validated when built, replayed from `run.json`."""

from medclip_keras.config.run import RunConfig, field_values, from_dict, override, to_dict
from medclip_keras.config.sections import (
    IMAGE_STATISTICS,
    AugmentConfig,
    DataConfig,
    EvaluationConfig,
    ExportConfig,
    ImageEncoderConfig,
    ModelConfig,
    ObjectiveConfig,
    PhantomConfig,
    RawInput,
    TextEncoderConfig,
    Threshold,
    TrainConfig,
    frozen_towers,
)

__all__ = [
    "IMAGE_STATISTICS",
    "AugmentConfig",
    "DataConfig",
    "EvaluationConfig",
    "ExportConfig",
    "ImageEncoderConfig",
    "ModelConfig",
    "ObjectiveConfig",
    "PhantomConfig",
    "RawInput",
    "RunConfig",
    "TextEncoderConfig",
    "Threshold",
    "TrainConfig",
    "field_values",
    "from_dict",
    "frozen_towers",
    "override",
    "to_dict",
]
