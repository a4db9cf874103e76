"""Heat maps of a model in this process: which places of an image carry its similarity with a text.

With regions (`local_features`, as GLoRIA trains them), r_p the region at place p and t the text's embedding,

    heat(p) = <r_p, t> / (|r_p| |t|)

Without, Grad-CAM: A_pc is channel c of a feature map at place p, v the image's embedding, P the number of
places, a_c = 1/P sum_p d<v, t> / dA_pc,

    heat(p) = max(0, sum_c a_c A_pc)

The feature map is the deepest with at least `FEWEST_CELLS` places a side, else the finest of the pyramid.

Follows: Huang et al., ICCV 2021, section 3.2; Selvaraju et al., ICCV 2017, equations 1 and 2, with a cosine
    in place of a class's score.
"""

import math
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from medclip_keras.evaluation.arrays import Array, Floats
from medclip_keras.models.image_encoder import ImageEncoder
from medclip_keras.preprocess.images import for_evaluation
from medclip_keras.training.model import MedCLIP

FEWEST_CELLS = 7
IMAGES_AT_ONCE = 32


def method_of(model: MedCLIP) -> str:
    """ "regions" or "grad_cam"."""
    return "regions" if model.local_features else "grad_cam"


def heat_maps(model: MedCLIP, images: Array, text_embeddings: Floats) -> Floats:
    """A map for each image and its text.

    Args:
        model: with weights.
        images: stored images uint8 (B, S, S, 1).
        text_embeddings: float32 (B, D), of unit length.

    Returns:
        float32 (B, h, w), from the top.
    """
    compute = _of_regions(model) if model.local_features else _grad_cam(model.image_encoder)
    size, maps = model.run.model.image.image_size, []
    for start in range(0, len(images), IMAGES_AT_ONCE):
        rows = slice(start, start + IMAGES_AT_ONCE)
        maps.append(compute(for_evaluation(images[rows], size), tf.constant(text_embeddings[rows])).numpy())
    return np.concatenate(maps)


def _of_regions(model: MedCLIP) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    def compute(images: tf.Tensor, texts: tf.Tensor) -> tf.Tensor:
        regions = tf.cast(model.image_encoder(images).regions, tf.float32)  # (B, P, D)
        return _square(tf.einsum("bpd,bd->bp", tf.math.l2_normalize(regions, -1), texts))

    return compute


def _grad_cam(encoder: ImageEncoder) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    backbone = encoder.backbone
    tower = keras.Model(backbone.inputs, [_map_of(backbone), backbone.outputs[0]])

    def compute(images: tf.Tensor, texts: tf.Tensor) -> tf.Tensor:
        inputs = encoder.prepare(images)
        with tf.GradientTape() as tape:
            features, last = tower(inputs, training=False)
            embeddings = tf.cast(encoder.embed_map(last)[0], tf.float32)
            cosine = tf.reduce_sum(tf.math.l2_normalize(embeddings, -1) * texts)
        weights = tape.gradient(cosine, features)
        places = tuple(range(1, len(features.shape) - 1))
        weights = tf.reduce_mean(weights, places, keepdims=True)
        heat = tf.nn.relu(tf.reduce_sum(weights * features, -1))
        return _square(tf.cast(heat, tf.float32))

    return compute


def _map_of(backbone: keras.Model) -> keras.KerasTensor:
    """The feature map that Grad-CAM weighs."""
    last = backbone.outputs[0]
    pyramid = [x for x in getattr(backbone, "pyramid_outputs", {}).values() if len(x.shape) == 4]
    fine = sorted(
        (x for x in [*pyramid, last] if len(x.shape) == 4 and x.shape[1] >= FEWEST_CELLS),
        key=lambda x: x.shape[1],
    )
    if len(last.shape) == 3 or (last.shape[1] >= FEWEST_CELLS):
        return last
    return fine[0] if fine else max([*pyramid, last], key=lambda x: x.shape[1])


def _square(heat: tf.Tensor) -> tf.Tensor:
    """(B, P) as (B, h, w); maps (B, h, w) as they are."""
    if len(heat.shape) == 3:
        return heat
    side = math.isqrt(heat.shape[1])
    return tf.reshape(heat, (-1, side, heat.shape[1] // side))
