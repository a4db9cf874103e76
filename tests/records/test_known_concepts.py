"""Known concepts of a batch from archives that label different ones."""

import numpy as np
import pytest

from medclip_keras.config import (
    AugmentConfig,
    DataConfig,
    ImageEncoderConfig,
    ModelConfig,
    RunConfig,
    TrainConfig,
)
from medclip_keras.preprocess.images import MEAN, STANDARD_DEVIATION
from medclip_keras.preprocess.text import Tokenizer
from medclip_keras.records.batches import training_batches


@pytest.mark.parametrize(
    ("options", "known"),
    [
        ({}, {0: [1, 0, 1], 1: [0, 1, 0], 2: [1, 1, 1]}),
        ({"known_concepts": "all"}, {0: [1, 1, 1], 1: [1, 1, 1], 2: [1, 1, 1]}),
        # A present pneumonia is a present opacity, and an absent opacity an absent pneumonia.
        ({"closure": True}, {0: [1, 1, 1], 1: [0, 1, 1], 2: [1, 1, 1]}),
    ],
)
def test_a_batch_knows_the_concepts_that_each_archive_labels(
    tmp_path, write_dataset, image_row, report_row, options, known
):
    # No Finding, Lung Opacity, Pneumonia: archive 0 does not label the second, archive 1 only that; a record
    # of an earlier version (2) has no such state.
    states = {0: [2, 4, 1], 1: [4, 2, 4], 2: [0, 0, 1]}
    for number, of_archive in states.items():
        write_dataset(tmp_path / str(number), "images", {"train": [image_row(number, of_archive)] * 4})
    config = RunConfig(
        "test",
        data=DataConfig(
            images=tuple(str(tmp_path / str(number)) for number in states),
            texts=(str(tmp_path / "reports"),),
            stored_image_size=16,
            balance=False,
            **options,
        ),
        augment=AugmentConfig(
            flip=0, brightness=0, contrast=0, rotation_degrees=0, translation=0, scale=(1, 1)
        ),
        model=ModelConfig(image=ImageEncoderConfig(image_size=16)),
        train=TrainConfig(batch_size=12),
    )
    write_dataset(
        tmp_path / "reports",
        "reports",
        {"train": [report_row("r", [0, 0, 1], [("one two three", [0, 0, 1])])]},
    )
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "one", "two", "three"]
    tokenizer = Tokenizer(pieces, lower_case=True, max_tokens=6)
    (batch,) = training_batches(config, tokenizer, steps_per_epoch=1).take(1).as_numpy_iterator()
    pixels = 255 * (batch["images"][:, 0, 0, 0] * STANDARD_DEVIATION + MEAN)
    rows = zip(np.round(pixels).astype(int).tolist(), batch["image_known"].tolist(), strict=True)
    assert dict(rows) == known
    assert (batch["text_known"] == 1).all()
