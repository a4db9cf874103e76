"""The Keras model whose `train_step` computes the loss on the global batch, on one device or on many."""

import keras
import numpy as np
import tensorflow as tf

from medclip_keras.config import RunConfig
from medclip_keras.models.dual_encoder import DualEncoder
from medclip_keras.objectives.semantic_matching import SemanticMatching, semantic_matching
from medclip_keras.training.replicas import gather, num_replicas, sum_over_replicas


class MedCLIP(DualEncoder):
    """A dual encoder that trains with the semantic matching loss.

    Every replica embeds its share of the batch, gathers the embeddings and labels of all, and computes the
    very same loss on the global batch. The gradient of (loss / num_replicas), summed over replicas, is then
    the gradient that one device would have: gathering's backward pass sums over the replicas already.

    Args:
        config: the run.
        vocabulary_size: number of word pieces.
        concept_kernel: float (num_findings, num_findings) by which the objective compares labels; None: the
            identity. It is no weight, and a model that is not trained further does without.
    """

    def __init__(
        self,
        config: RunConfig,
        vocabulary_size: int,
        concept_kernel: np.ndarray | None = None,
        **kwargs,
    ):
        super().__init__(config.model, vocabulary_size, config.data.max_tokens, **kwargs)
        self.run = config
        self.concept_kernel = concept_kernel

    def objective(self, batch: dict, training: bool) -> SemanticMatching:
        """The loss on the global batch, from this replica's share of it.

        Args:
            batch: "images" (B, S, S, 1), "image_labels", "image_known" (B, num_findings), "token_ids",
                "padding_mask" (B, T), "text_labels", "text_known" (B, num_findings).
            training: whether the encoders are in training mode.
        """
        embeddings = self(batch, training=training)
        return semantic_matching(
            gather(embeddings["image_embeddings"]),
            gather(embeddings["text_embeddings"]),
            self.logit_scale(),
            gather(batch["image_labels"]),
            gather(batch["text_labels"]),
            image_known=gather(batch["image_known"]),
            text_known=gather(batch["text_known"]),
            similarity=self.run.objective.similarity,
            target_temperature=self.run.objective.target_temperature,
            concept_kernel=self.concept_kernel,
        )

    def global_gradients(self, batch: dict):
        """Outcome of the objective, and the gradients of the global batch, equal on every replica."""
        with tf.GradientTape() as tape:
            outcome = self.objective(batch, training=True)
            share = outcome.loss / num_replicas()
        gradients = tape.gradient(share, self.trainable_variables)
        return outcome, [sum_over_replicas(g) for g in gradients]

    def train_step(self, batch: dict) -> dict:
        """One step: the loss and its gradient on the global batch, clipped by their global norm, applied."""
        outcome, gradients = self.global_gradients(batch)
        gradients, norm = tf.clip_by_global_norm(gradients, self.run.train.clip_norm)
        # The optimizer sums over replicas once more.
        self.optimizer.apply([g / num_replicas() for g in gradients], self.trainable_variables)
        return {
            "loss": outcome.loss,
            "kl": outcome.kl,
            "temperature": 1.0 / self.logit_scale(),
            "gradient_norm": norm,
        }

    def test_step(self, batch: dict) -> dict:
        """Loss and KL to the target of one batch, dropout off."""
        outcome = self.objective(batch, training=False)
        return {"loss": outcome.loss, "kl": outcome.kl}


def build_optimizer(config: RunConfig, total_steps: int) -> keras.optimizers.Optimizer:
    """AdamW with linear warm-up, then a cosine to zero; no decay on biases, norms and the logit scale.

    Follows: the recipe of MedCLIP's released code.

    Args:
        config: the run.
        total_steps: the length of training.
    """
    warmup_steps = round(config.train.warmup_fraction * total_steps)
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup_steps else config.train.learning_rate,
        decay_steps=max(total_steps - warmup_steps, 1),
        warmup_target=config.train.learning_rate if warmup_steps else None,
        warmup_steps=warmup_steps,
    )
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=config.train.weight_decay)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta", "log_logit_scale"])
    return optimizer
