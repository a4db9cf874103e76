"""The supervised classifier: an image encoder with a linear head, trained on the labels of images."""

import functools
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf
from etils import epath
from rich.console import Console

from medclip_keras.config import RunConfig
from medclip_keras.models.image_encoder import ImageEncoder
from medclip_keras.models.stages import freeze_by_depth
from medclip_keras.objectives.classification import sigmoid_cross_entropy, softmax_cross_entropy
from medclip_keras.objectives.loss import Loss
from medclip_keras.preprocess.images import for_evaluation
from medclip_keras.records.labelled_images import Classes, count_labelled, labelled_images
from medclip_keras.training.batch_normalization import prepare_batch_normalization, require_compilable
from medclip_keras.training.model import GlobalStep
from medclip_keras.training.replicas import gather, make_strategy
from medclip_keras.training.train import Outcome, num_images, prepare, steps_per_epoch, validation_batches
from medclip_keras.training.validation import HeldOut


class Classifier(GlobalStep, keras.Model):
    """Logits of classes from the spatial mean of an image encoder's backbone.

    The encoder's projections are not used and not trained; `freeze` trains the head alone (a linear probe by
    gradient descent).
    """

    def __init__(self, encoder: ImageEncoder, classes: Classes, config: RunConfig, freeze: bool = False):
        super().__init__()
        self.encoder, self.classes, self.run, self.freeze = encoder, classes, config, freeze
        prepare_batch_normalization(self)
        self.head = keras.layers.Dense(len(classes.names), dtype="float32", name="head")

    def create_weights(self) -> "Classifier":
        """Create every weight, and freeze those that are not trained; `model.image.frozen_stages` too."""
        encoder, size = self.encoder, self.encoder.image_size
        self(np.zeros((1, size, size, 1), np.float32))
        for layer in encoder.layers:
            layer.trainable = layer is encoder.backbone and not self.freeze
        freeze_by_depth(encoder.backbone, encoder.depths, self.run.model.image.frozen_stages)
        require_compilable(self, self.run.train.jit_compile)
        return self

    def call(self, images, training=False):
        """Classify images float (B, S, S, 1), normalised: logits float32 (B, num_classes)."""
        tower = self.encoder(images, training=training and not self.freeze)
        return self.head(tower.pooled)

    def encode(self, batch: dict, training: bool) -> dict:
        """Classify a batch of `labelled_images`; in training by XLA with `train.jit_compile`."""
        return {"logits": self.forward(batch["images"], training)}

    def loss_of(self, batch: dict, outputs: dict) -> Loss:
        """Cross-entropy of a global batch: softmax for exclusive classes, else sigmoid."""
        logits, labels = gather(outputs["logits"]), gather(batch["labels"])
        if self.classes.one_each:
            loss = softmax_cross_entropy(logits, labels)
        else:
            loss = sigmoid_cross_entropy(logits, labels, gather(batch["known"]))
        return Loss(loss, loss, logits, labels)

    def logit_scale(self):
        """Return 1: a classifier has no temperature to log."""
        return 1.0

    def score_fn(self) -> Callable[[np.ndarray], np.ndarray]:
        """Return the function of stored images uint8 (B, S, S, 1) to logits float32 (B, num_classes)."""
        side = self.run.data.stored_image_size

        @tf.function(input_signature=[tf.TensorSpec((None, side, side, 1), tf.uint8)])
        def score(images):
            return self(for_evaluation(images, self.encoder.image_size))

        return lambda images: score(tf.constant(images)).numpy()


def train_classifier(
    make_encoder: Callable[[], ImageEncoder],
    classes: Classes,
    config: RunConfig,
    workdir: epath.PathLike,
    *,
    freeze: bool = False,
    console: Console | None = None,
) -> tuple[Classifier, Outcome]:
    """Train a classifier in `workdir`, or resume it, for the run's number of steps.

    The workdir receives checkpoints/ and tensorboard/; `make_encoder` builds the image tower with its initial
    weights.

    Returns:
        The classifier, with the weights of the smallest validation loss, or the last weights without
        validation images or where the best are damaged; and the outcome of training.

    Raises:
        ValueError: records that do not fit the configuration, or nothing to learn.
        FloatingPointError: the loss is no longer finite; the last good checkpoint is kept.
    """
    console, workdir = console or Console(), epath.Path(workdir)
    keras.utils.set_random_seed(config.seed)
    keras.mixed_precision.set_global_policy(config.train.precision)

    def make() -> Classifier:
        return Classifier(make_encoder(), classes, config, freeze).create_weights()

    trainer = prepare(make, config, make_strategy(config.train), workdir, console)
    draw = functools.partial(labelled_images, classes=classes)
    num_held_out = num_images(config, "valid") and count_labelled(config, classes, "valid")
    held_out = HeldOut(validation_batches(config, draw, num_held_out))
    outcome = trainer.outcome(held_out)
    if outcome is None:
        batches = draw(config, steps_per_epoch=steps_per_epoch(config), start_step=trainer.start_step)
        outcome = trainer.fit(batches, held_out)
    if outcome.finished:
        trainer.checkpoints.restore_weights("best" if trainer.checkpoints.has_best() else "last")
    return trainer.model, outcome
