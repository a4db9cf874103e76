"""TensorBoard's view of an evaluation: named runs, the report's figures, scalars and hyperparameters."""

import io
import json

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from medclip_keras.board import EVALUATION
from medclip_keras.measure import evaluate_workdir
from medclip_keras.training.projector import THUMBNAIL
from medclip_keras.training.run_json import read_run_json


def values_of(folder):
    """tag → (step, value) of the events of a folder."""
    found = {}
    for path in sorted(folder.glob("events.out.tfevents.*")):
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            event = tf.compat.v1.Event.FromString(record)
            for value in event.summary.value:
                found[value.tag] = (event.step, value)
    return found


def test_an_evaluation_has_its_scalars_figures_and_hyperparameters(fitted):
    workdir = fitted.workdir
    metrics = json.loads((workdir / "evaluation" / "metrics.json").read_text())
    found = values_of(workdir / EVALUATION)
    step, accuracy = found["phantom/zero_shot/ensemble/accuracy"]
    expected = metrics["data"]["phantom"]["zero_shot"]
    assert step == metrics["step"] == 400
    assert tf.make_ndarray(accuracy.tensor) == pytest.approx(
        expected["trained"]["ensemble"]["accuracy"]["value"]
    )
    _, untrained = found["untrained/phantom/zero_shot/ensemble/accuracy"]
    assert tf.make_ndarray(untrained.tensor) == pytest.approx(
        expected["untrained"]["ensemble"]["accuracy"]["value"]
    )
    for path in (workdir / "evaluation" / "figures" / "phantom").glob("*.png"):
        width, height, picture = tf.make_ndarray(found[f"phantom/{path.stem}"][1].tensor)
        assert (int(width), int(height)) == PIL.Image.open(path).size
        assert PIL.Image.open(io.BytesIO(picture)).size == (int(width), int(height))
    (session,) = [v for tag, (_, v) in found.items() if tag.startswith("_hparams_/session_start")]
    assert b"train.learning_rate" in session.metadata.plugin_data.content
    assert not list((workdir / "tensorboard").glob("events.out.tfevents.*"))  # else a run is called "."


def test_a_second_evaluation_takes_the_place_of_the_first(fitted):
    before = values_of(fitted.workdir / EVALUATION)
    evaluate_workdir(fitted.workdir)
    files = list((fitted.workdir / EVALUATION).glob("events.out.tfevents.*"))
    assert len(files) == 1
    assert set(values_of(fitted.workdir / EVALUATION)) == set(before)


def test_phantoms_have_thumbnails_in_the_projector_and_sentences_a_blank(fitted):
    board = fitted.workdir / "tensorboard" / "training"
    header, *labels = (board / "labels.tsv").read_text().splitlines()
    assert header.split("\t") == ["kind", "finding", "findings"]
    picture = np.asarray(PIL.Image.open(board / "thumbnails.png"))
    side = picture.shape[0] // THUMBNAIL
    assert side == int(np.ceil(np.sqrt(len(labels))))
    for k in (0, 1, len(labels) // 2, len(labels) - 1):
        row, column = divmod(k, side)
        tile = picture[row * THUMBNAIL : (row + 1) * THUMBNAIL, column * THUMBNAIL : (column + 1) * THUMBNAIL]
        assert (tile.std() > 5) == labels[k].startswith("image")
    assert 'image_path: "thumbnails.png"' in (board / "projector_config.pbtxt").read_text()
    values = {label.split("\t")[1] for label in labels}
    assert {"none", "several"} < values
    assert len(values) <= 50  # above, TensorBoard offers no colours
    assert read_run_json(fitted.workdir).data.phantom is not None
