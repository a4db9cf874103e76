"""TensorBoard's embedding projector: held-out images and sentences with their findings."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from etils import epath
from tensorboard.plugins import projector

from medclip_keras.training.model import MedCLIP


def write_projector(
    model: MedCLIP, batches: Sequence[dict], names: Sequence[str], directory: epath.PathLike
) -> None:
    """Write held-out embeddings and their findings for `tensorboard --logdir`; no text, no identifier.

    Batches are those of `records.batches.training_batches`, `names` the findings in the order of the label
    vectors.
    """
    directory = epath.Path(directory)
    embed = tf.function(lambda batch: model(batch, training=False))
    embeddings, labels = [], ["kind\tfindings"]
    for batch in batches:
        embedded = embed(batch)
        for kind in ("image", "text"):
            embeddings.append(embedded[f"{kind}_embeddings"].numpy())
            for row in np.asarray(batch[f"{kind}_labels"]):
                found = [name for name, value in zip(names, row, strict=True) if value > 0]
                labels.append(f"{kind}\t{', '.join(found) or 'none'}")
    rows = ("\t".join(f"{x:.5f}" for x in row) for row in np.concatenate(embeddings))
    (directory / "embeddings.tsv").write_text("\n".join(rows) + "\n")
    (directory / "labels.tsv").write_text("\n".join(labels) + "\n")
    config = projector.ProjectorConfig()
    config.embeddings.add(
        tensor_name="held-out images and sentences", tensor_path="embeddings.tsv", metadata_path="labels.tsv"
    )
    projector.visualize_embeddings(str(directory), config)
