"""A tiny run on phantom records, for the tests of training."""

import dataclasses

import pytest

from beam_jobs import decode_images, label_reports
from medclip_keras.config import RunConfig, override
from medclip_keras.runs import phantom_tiny
from medclip_keras.sources.phantom import write_phantom


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory) -> RunConfig:
    """The default run with a small model, on 60 phantoms of 32 px; dropout is on."""
    raw, records = tmp_path_factory.mktemp("raw") / "phantom", tmp_path_factory.mktemp("records")
    write_phantom(raw, seed=1, num_paired=60, num_image_only=0, num_text_only=0, image_size=36)
    options = {"source": "phantom", "input": str(raw)}
    label_reports.run(**options, output=str(records / "reports"))
    reports = str(records / "reports")
    decode_images.run(**options, output=str(records / "images"), image_size=36, reports=reports)
    config = override(
        phantom_tiny(),
        [
            "data.stored_image_size=36", "model.image.image_size=32", "model.image.width=8",
            "model.text.hidden_dim=16", "model.text.intermediate_dim=16", "model.text.num_heads=2",
            "model.text.vocabulary_size=300", "train.batch_size=6", "train.steps=7",
            "train.checkpoint_every=3", "train.validate_every=4", "train.log_every=2", "data.phantom=null",
        ],
    )  # fmt: skip
    data = dataclasses.replace(
        config.data, images=(str(records / "images"),), texts=(str(records / "reports"),)
    )
    return dataclasses.replace(config, data=data)
