"""The MedCLIP model and its optimizer; `train_step` computes the loss on the global batch of all devices."""

import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from medclip_keras.config import RunConfig, frozen_towers
from medclip_keras.models.dual_encoder import DualEncoder
from medclip_keras.objectives.catalogue import OBJECTIVES, objective_function, parameters
from medclip_keras.objectives.loss import Loss, Tensor
from medclip_keras.training.accumulation import AccumulatedStep, in_chunks
from medclip_keras.training.batch_normalization import prepare_batch_normalization, require_compilable
from medclip_keras.training.layer_rates import AdamWByLayer, layer_rates
from medclip_keras.training.replicas import (
    gather,
    has_several_workers,
    num_replicas,
    step_of_workers,
    sum_over_replicas,
)


class GlobalStep:
    """Mixin that trains a Keras model on the global batch of one or more devices.

    Every replica gathers the global batch and computes the same loss. The gradient of (loss / num_replicas),
    summed over replicas, equals that of one device: the backward pass of `gather` sums over replicas already.

    The model has an `encode(batch, training)` that returns arrays by name, an item of the batch a row, a
    `loss_of(batch, outputs)` that returns their `Loss`, a `logit_scale()` and the `run`. With
    `run.train.chunk_size` the batch is encoded in chunks (`accumulation`).
    """

    run: RunConfig
    optimizer: keras.optimizers.Optimizer
    train_function: Callable[..., dict] | None
    trainable_variables: list[keras.Variable]
    __call__: Callable[..., Any]
    encode: Callable[..., dict[str, Tensor]]
    loss_of: Callable[[dict, dict], Loss]
    logit_scale: Callable[[], Tensor]
    distribute_strategy: tf.distribute.Strategy

    def objective(self, batch: dict, training: bool) -> Loss:
        """Compute the loss on the global batch from this replica's share."""
        encode = functools.partial(self.encode, training=training)
        return self.loss_of(batch, encode(batch) if training else in_chunks(encode, batch, self.chunk_size))

    def global_gradients(self, batch: dict) -> tuple[Loss, list[tf.Tensor]]:
        """Return the loss and the gradients of the global batch, equal on every replica.

        Scales the loss so that float16 gradients do not underflow, then unscales the gradients.
        """
        scale = loss_scale(self.optimizer)
        with tf.GradientTape() as tape:
            outcome = self.objective(batch, training=True)
            share = outcome.loss * scale / num_replicas()
        gradients = tape.gradient(
            share, self.trainable_variables, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        return outcome, [sum_over_replicas(g) / scale for g in gradients]

    def forward(self, inputs: Any, training: bool) -> Any:
        """Call the model on its inputs; in training by XLA with `train.jit_compile`."""
        compiled = training and self.run.train.jit_compile
        return self._compiled(inputs) if compiled else self(inputs, training=training)

    @functools.cached_property
    def _compiled(self) -> Callable[[Any], Any]:
        """The model in training, compiled without the loss: XLA takes no communication between replicas."""
        return tf.function(lambda inputs: self(inputs, training=True), jit_compile=True, autograph=False)

    @property
    def chunk_size(self) -> int:
        """Items that a device encodes at a time; 0: all."""
        return self.run.train.chunk_size

    def _maybe_symbolic_build(self, iterator=None, data_batch=None) -> None:
        """Build nothing: every weight is there. Keras would average a batch over the replicas."""

    def make_train_function(self, force: bool = False) -> None:
        """Make the train function: that of chunks, that of several workers, or Keras's."""
        if not self.chunk_size and not has_several_workers(self.distribute_strategy):
            keras.Model.make_train_function(self, force)
        elif self.train_function is None or force:
            strategy = self.distribute_strategy
            chunked = AccumulatedStep(self, self.chunk_size) if self.chunk_size else None
            self.train_function = chunked or step_of_workers(self.train_step, strategy)

    def train_step(self, batch: dict) -> dict:
        """Apply the gradients of the global batch, clipped by their global norm."""
        outcome, gradients = self.global_gradients(batch)
        return self.apply_global(outcome.loss, outcome.kl, gradients)

    def apply_global(self, loss: tf.Tensor, kl: tf.Tensor, gradients: list[tf.Tensor]) -> dict:
        """Clip gradients that are equal on every replica, apply them, and return the step's logs."""
        gradients, norm = tf.clip_by_global_norm(gradients, self.run.train.clip_norm)
        # The optimizer sums over replicas again and divides by the scale. With loss scaling it skips a step
        # whose gradients are not finite.
        factor = loss_scale(self.optimizer) / num_replicas()
        self.optimizer.apply([g * factor for g in gradients], self.trainable_variables)
        return {
            "loss": loss,
            "kl": kl,
            "temperature": 1.0 / self.logit_scale(),
            "gradient_norm": norm,
        }

    def test_step(self, batch: dict) -> dict:
        """Compute loss and KL of one batch, without dropout."""
        outcome = self.objective(batch, training=False)
        return {"loss": outcome.loss, "kl": outcome.kl}


def loss_scale(optimizer: keras.optimizers.Optimizer) -> tf.Tensor:
    """Return the factor of the loss, float32: a power of two adapted by Keras under mixed_float16, else 1."""
    return tf.convert_to_tensor(optimizer.scale_loss(tf.ones(())))


class MedCLIP(GlobalStep, DualEncoder):
    """Dual encoder that trains with its run's objective; semantic matching by default.

    Args:
        config: the run.
        vocabulary_size: number of word pieces.
        concept_kernel: float (num_findings, num_findings) by which the objective compares labels; None: the
            identity. Only training uses it; checkpoints do not hold it.
    """

    def __init__(
        self,
        config: RunConfig,
        vocabulary_size: int,
        concept_kernel: np.ndarray | None = None,
        **kwargs,
    ):
        row = OBJECTIVES[config.objective.name]
        super().__init__(
            config.model,
            vocabulary_size,
            config.data.max_tokens,
            local_features="regions" in parameters(config.objective.name),
            initial_logit_scale=row.fixed_logit_scale or row.initial_logit_scale,
            learn_logit_scale=row.fixed_logit_scale is None,
            **kwargs,
        )
        prepare_batch_normalization(self)
        self._keep_locked(config.train.lock)
        for tower in frozen_towers(config.train):
            self._keep_locked(f"{tower}_backbone")
        require_compilable(self, config.train.jit_compile)
        self.run, self.concept_kernel = config, concept_kernel
        self.logit_bias = None
        if row.initial_logit_bias is not None:
            initial = keras.initializers.Constant(row.initial_logit_bias)
            self.logit_bias = self.add_weight(
                name="logit_bias", shape=(), initializer=initial, dtype="float32", autocast=False
            )

    def _keep_locked(self, name: str) -> None:
        """Freeze a tower or its backbone, and keep it in inference mode.

        Follows: Zhai et al., CVPR 2022 (LiT). Departs: with "…_backbone" the projections still learn.
        """
        if name != "none":
            tower, _, backbone = name.partition("_")
            encoder = self.image_encoder if tower == "image" else self.text_encoder
            (encoder.backbone if backbone else encoder).trainable = False

    def encode(self, batch: dict, training: bool) -> dict[str, Tensor]:
        """Embed a batch, as `DualEncoder.call`; in training by XLA with `train.jit_compile`."""
        names = ("images", "image_features", "token_ids", "padding_mask", "word_ids", "text_features")
        return self.forward({name: batch[name] for name in names if name in batch}, training)

    def loss_of(self, batch: dict, outputs: dict) -> Loss:
        """Compute the objective on the global batch from this replica's share.

        Args:
            batch: as `records.batches.training_batches` makes them: "images" (B, S, S, 1), "token_ids",
                "padding_mask" (B, T), or features of frozen backbones in their place, "image_labels",
                "image_known", "text_labels", "text_known" (B, num_findings), and the objective's further
                parameters, such as "image_study" (B,).
            outputs: of `encode`.
        """
        name = self.run.objective.name
        held = {**batch, **outputs}
        settings = {
            **vars(self.run.objective),
            "logit_scale": self.logit_scale(),
            "logit_bias": self.logit_bias,
            "concept_kernel": self.concept_kernel,
        }
        gathered = {k: gather(held[k]) for k in parameters(name) if k in held}
        chosen = {k: settings[k] for k in parameters(name) if k in settings}
        return objective_function(name)(**_without_padding(gathered), **chosen)


def _without_padding(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Cut "words" and "word_mask", if present, to the longest text of the batch."""
    if "words" not in batch:
        return batch
    longest = tf.cast(tf.reduce_max(tf.reduce_sum(batch["word_mask"], axis=1)), tf.int32)
    return batch | {name: batch[name][:, :longest] for name in ("words", "word_mask")}


def build_optimizer(
    config: RunConfig, total_steps: int, model: keras.Model | None = None
) -> keras.optimizers.Optimizer:
    """AdamW with linear warm-up, then a cosine to zero; no decay on biases, norms and the logit scale.

    Follows: the recipe of MedCLIP's released code. With `train.schedule` "plateau" the rate is constant until
    `callbacks.Validation` halves it, as in ConVIRT (Zhang et al., MLHC 2022, appendix A). With
    `train.layer_decay` under 1 the backbones of `model` learn at rates of their own (`layer_rates`).
    """
    rates = layer_rates(model, config.train.layer_decay) if model else {}
    if config.train.schedule == "plateau":
        return _adamw(config, config.train.learning_rate, rates)
    warmup_steps = round(config.train.warmup_fraction * total_steps)
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup_steps else config.train.learning_rate,
        decay_steps=max(total_steps - warmup_steps, 1),
        warmup_target=config.train.learning_rate if warmup_steps else None,
        warmup_steps=warmup_steps,
    )
    return _adamw(config, schedule, rates)


def _adamw(config: RunConfig, learning_rate, rates: dict[int, float]) -> keras.optimizers.Optimizer:
    decay, ema = config.train.weight_decay, config.train.ema
    average = {"use_ema": True, "ema_momentum": ema} if ema else {}
    optimizer = AdamWByLayer(rates, learning_rate, weight_decay=decay, **average)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta", "log_logit_scale"])
    return optimizer
