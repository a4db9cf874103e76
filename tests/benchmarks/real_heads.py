"""Two linear heads on frozen features, trained by the product's objective on the product's labels."""

import dataclasses

import keras
import numpy as np
import tensorflow as tf

from medclip_keras.config import DataConfig
from medclip_keras.knowledge.states import LabelState
from medclip_keras.objectives.semantic_matching import semantic_matching
from medclip_keras.records.balance import repeat_factors
from medclip_keras.records.batches import label_vectors

DIMENSION, BATCH, RATE = 128, 128, 1e-3


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How the heads learn."""

    temperature: float  # of the targets
    steps: int
    decay: float  # of the weights, as AdamW's
    dropout: float  # of the image features
    seed: int


@dataclasses.dataclass(frozen=True)
class Side:
    """Features of images or sentences, and their label states."""

    features: np.ndarray  # (N, width) float32
    states: np.ndarray  # (N, num_findings) int8

    def standardised(self, like: "Side") -> "Side":
        """Features of mean 0 and deviation 1 in `like`."""
        mean, deviation = like.features.mean(axis=0), like.features.std(axis=0) + 1e-6
        return dataclasses.replace(self, features=((self.features - mean) / deviation).astype(np.float32))


def draw_probabilities(states: np.ndarray, balance: bool) -> np.ndarray:
    """Probability of drawing each row, as `records.balance` repeats it."""
    if not balance:
        return np.full(len(states), 1 / len(states))
    positive = states == LabelState.POSITIVE
    none = ~positive.any(axis=1)
    factors = repeat_factors(positive.sum(axis=0), none.sum(), len(states))
    classes = np.concatenate([positive, none[:, None]], axis=1)
    repeats = np.where(classes, factors, 0.0).max(axis=1)
    return repeats / repeats.sum()


class Heads(keras.Model):
    """Bias-free projections of images and texts, L2-normalised, and the logit scale."""

    def __init__(self):
        super().__init__()
        self.image_head = keras.layers.Dense(DIMENSION, use_bias=False, name="image")
        self.text_head = keras.layers.Dense(DIMENSION, use_bias=False, name="text")
        self.log_scale = self.add_weight(name="log_logit_scale", shape=(), initializer="zeros")
        self.log_scale.assign(np.log(1 / 0.07))

    def embed_images(self, features) -> tf.Tensor:
        """Unit vectors (B, DIMENSION)."""
        return tf.math.l2_normalize(self.image_head(features), axis=1)

    def embed_texts(self, features) -> tf.Tensor:
        """Unit vectors (B, DIMENSION)."""
        return tf.math.l2_normalize(self.text_head(features), axis=1)

    def scale(self) -> tf.Tensor:
        """The logit scale, at most 100."""
        return tf.minimum(tf.exp(self.log_scale.value), 100.0)


def train_heads(images: Side, sentences: Side, data: DataConfig, table, recipe: Recipe) -> Heads:
    """Train on batches of independent draws of images and sentences."""
    keras.utils.set_random_seed(recipe.seed)
    steps = recipe.steps
    heads = Heads()
    heads.image_head.build((None, images.features.shape[1]))
    heads.text_head.build((None, sentences.features.shape[1]))
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, steps - steps // 10, warmup_target=RATE, warmup_steps=steps // 10
    )
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=recipe.decay)
    optimizer.exclude_from_weight_decay(var_names=["log_logit_scale"])
    optimizer.build(heads.trainable_variables)
    sides = []
    for side in (images, sentences):
        labels, known = label_vectors(tf.constant(side.states), data, table)
        sides.append((tf.constant(side.features), labels, known))
    (v, a, known_a), (t, b, known_b) = sides

    @tf.function
    def step(rows, columns):
        with tf.GradientTape() as tape:
            loss = semantic_matching(
                heads.embed_images(tf.nn.dropout(tf.gather(v, rows), recipe.dropout)),
                heads.embed_texts(tf.gather(t, columns)),
                heads.scale(),
                tf.gather(a, rows),
                tf.gather(b, columns),
                image_known=tf.gather(known_a, rows),
                text_known=tf.gather(known_b, columns),
                target_temperature=recipe.temperature,
            ).loss
        gradients = tape.gradient(loss, heads.trainable_variables)
        gradients, _ = tf.clip_by_global_norm(gradients, 1.0)
        optimizer.apply(gradients, heads.trainable_variables)

    rng = np.random.default_rng(recipe.seed)
    shares = [draw_probabilities(side.states, data.balance) for side in (images, sentences)]
    drawn = [rng.choice(len(p), (steps, BATCH), p=p).astype(np.int32) for p in shares]
    for rows, columns in zip(*drawn, strict=True):
        step(tf.constant(rows), tf.constant(columns))
    return heads
