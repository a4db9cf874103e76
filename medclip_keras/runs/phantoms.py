"""Runs on synthetic radiographs and reports, which the pipeline draws."""

from medclip_keras.config import (
    AugmentConfig,
    DataConfig,
    EvaluationConfig,
    ImageEncoderConfig,
    ModelConfig,
    ObjectiveConfig,
    PhantomConfig,
    RunConfig,
    TrainConfig,
)
from medclip_keras.runs.small import SMALL_MODEL, SMALL_TEXT


def phantom_tiny() -> RunConfig:
    """The default: synthetic radiographs and reports, from nothing to a served model in minutes.

    Command: `python -m medclip_keras.fit`. It needs no data and no GPU.
    Hardware: two CPU cores, 1.3 GiB. Time: 4 min 40 s.
    Expected, over seeds and machines (`tests/benchmarks/phantom.py`): zero-shot accuracy of the prompt
    ensemble .93 to .98 (chance .20); image to text P@10 .95 to .98.
    """
    return RunConfig(
        name="phantom_tiny",
        data=DataConfig(
            phantom=PhantomConfig(num_paired=1000, num_image_only=1500, num_text_only=800),
            uncertain="ignored",
            stored_image_size=72,
            shuffle_buffer=1024,
            max_tokens=32,
        ),
        # The side of a finding says nothing here: the phantom's heart is mirrored too.
        augment=AugmentConfig(rotation_degrees=5.0, scale=(0.9, 1.1)),
        model=SMALL_MODEL,
        objective=ObjectiveConfig(target_temperature=0.2),
        train=TrainConfig(
            batch_size=48,
            steps=2800,
            learning_rate=1e-3,
            weight_decay=1e-3,
            validate_every=400,
            checkpoint_every=400,
        ),
        evaluation=EvaluationConfig(per_class=50),
    )


def phantom_small() -> RunConfig:
    """More phantoms at twice the side with a ResNet-18, for a first try of a GPU.

    Command: `python -m medclip_keras.fit --run phantom_small`. Time and metric: not measured.
    """
    return RunConfig(
        name="phantom_small",
        data=DataConfig(
            phantom=PhantomConfig(num_paired=4000, num_image_only=2000, num_text_only=2000, image_size=160),
            stored_image_size=144,
            max_tokens=48,
        ),
        augment=AugmentConfig(rotation_degrees=5.0, scale=(0.9, 1.1)),
        model=ModelConfig(image=ImageEncoderConfig(backbone="resnet18", image_size=128), text=SMALL_TEXT),
        objective=ObjectiveConfig(target_temperature=0.2),
        train=TrainConfig(batch_size=64, steps=3000, learning_rate=5e-4, weight_decay=1e-3),
    )
