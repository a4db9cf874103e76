"""The embedding projector: what is encoded, and in which portions."""

from types import SimpleNamespace

import numpy as np
import tensorflow as tf

from medclip_keras.training.projector import write_projector


def test_the_projector_encodes_no_more_items_at_a_time_than_training(tmp_path):
    portions = []

    def encode(batch, training):
        assert not training
        portions.append(batch["images"].shape[0])
        rows = tf.reduce_mean(batch["images"], axis=(1, 2))
        return {"image_embeddings": rows, "text_embeddings": -rows}

    images = np.arange(5 * 8, dtype=np.float32).reshape(5, 2, 4, 1)
    labels = np.eye(5, 2, dtype=np.float32)
    batch = {"images": tf.constant(images), "image_labels": labels, "text_labels": labels}
    for chunk_size in (0, 2):
        portions.clear()
        write_projector(SimpleNamespace(encode=encode, chunk_size=chunk_size), [batch], ["a", "b"], tmp_path)
        assert max(portions) == (chunk_size or 5)
        rows = images.mean(axis=(1, 2))
        np.testing.assert_allclose(np.loadtxt(tmp_path / "embeddings.tsv"), np.ravel([rows, -rows]))
    assert (tmp_path / "labels.tsv").read_text().splitlines()[1:4] == [
        "image\ta\ta",
        "image\tb\tb",
        "image\tnone\tnone",
    ]
