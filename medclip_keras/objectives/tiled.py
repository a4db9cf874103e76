"""Losses in tiles: equal to the plain losses, without a matrix of all images and all texts.

A tile is `tile_size` images and all texts. Each is computed twice and forgotten: first for the sums over
images that every text needs, then for the loss and its gradient. The gradient of a cross-entropy by its
logits is

    dL/dx_ij = w/num_images (p_ij - y_ij) + (1 - w)/num_texts (q_ij - z_ij)

so nothing of a tile is kept for the backward pass. Memory is some ten matrices (tile_size, num_texts) and
three times the embeddings.

Follows: Cheng et al., CVPR 2025 (Inf-CL), which walks tiles with running sums of exponentials; Zhai et al.,
ICCV 2023 (SigLIP), section 3.3, whose loss is a sum over chunks. Departs: soft targets come from tiles of the
labels.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from keras import ops

from medclip_keras.objectives.cross_entropy import at_least_float32, minus_log
from medclip_keras.objectives.loss import Loss, Tensor

Rows = Callable[[Tensor], Tensor]  # picks a tile's images from an array with a row an image
OfTile = Callable[[Rows], Tensor]  # a tile's images → (tile_size, num_texts)
Sums = list[Tensor]


class Targets(NamedTuple):
    """Targets of a softmax cross-entropy, tile by tile: of `similarity`, of `own` pairs, or mixed.

    An item with a partner keeps the share `own_weight` of its target for its partners, as in
    `mixed_matching`.
    """

    similarity: OfTile | None = None  # s
    temperature: float = 1.0  # T of the soft targets
    own: OfTile | None = None  # d, 1 for a pair that belongs together, else 0
    own_weight: float = 1.0


class Tile(NamedTuple):
    """The images of one tile."""

    index: Tensor  # int (tile_size,), of the images
    counts: Tensor  # bool (tile_size, 1); the last tile repeats images of the one before

    def rows(self, array: Tensor) -> Tensor:
        """Pick the tile's images from an array with a row an image."""
        return ops.take(array, self.index, axis=0)


class Embeddings(NamedTuple):
    """Inputs of a loss that receive gradients, at least float32."""

    v: Tensor  # (num_images, D)
    t: Tensor  # (num_texts, D)
    scale: Tensor  # scalar, 1/tau
    bias: Tensor  # scalar

    def logits(self, tile: Tile) -> Tensor:
        """<v_i, t_j> / tau + b of a tile."""
        return self.scale * ops.matmul(tile.rows(self.v), ops.transpose(self.t)) + self.bias


def tiled_cross_entropy(
    image_embeddings: Tensor,
    text_embeddings: Tensor,
    logit_scale: Tensor,
    targets: Targets,
    tile_size: int,
    *,
    image_weight: float = 0.5,
) -> Loss:
    """`cross_entropy` of `image_text_logits` against `targets`, with its excess over the targets' entropy.

    Args:
        image_embeddings: v, float (num_images, D), L2-normalised.
        text_embeddings: t, float (num_texts, D), L2-normalised.
        logit_scale: float scalar, 1/tau.
        targets: the targets, by tile.
        tile_size: images a tile.
        image_weight: w in [0, 1], the share of the direction image to text.

    Returns:
        The loss; its logits and similarity are those of the first tile.
    """
    learned = _embeddings(image_embeddings, text_embeddings, logit_scale)
    held = Embeddings(*(ops.stop_gradient(x) for x in learned))
    num_images, num_texts = (ops.cast(ops.shape(x)[0], held.v.dtype) for x in (held.v, held.t))

    def matrices(tile: Tile) -> Sums:
        """Logits x, scaled similarity s / T and own pairs d."""
        x = held.logits(tile)
        s = x * 0 if targets.similarity is None else targets.similarity(tile.rows) / targets.temperature
        return [x, s, x * 0 if targets.own is None else targets.own(tile.rows)]

    def add_to_texts(tile: Tile, sums: Sums) -> Sums:
        x, s, d = matrices(tile)
        logs = [ops.logsumexp(ops.where(tile.counts, a, -1e30), axis=0) for a in (x, s)]
        logs = [ops.logaddexp(a, b) for a, b in zip(sums[:2], logs, strict=True)]
        return [*logs, sums[2] + ops.sum(ops.where(tile.counts, d, 0), axis=0)]

    nothing = held.t[:, 0] * 0
    of_texts = _walk(held.v, tile_size, add_to_texts, [nothing - 1e30, nothing - 1e30, nothing])

    def loss_of(tile: Tile) -> tuple[Tensor, Tensor, Tensor]:
        """A tile's share of the loss and of the targets' entropy, and the gradient by its logits."""
        x, s, d = matrices(tile)
        of_images = [*(ops.logsumexp(a, axis=1)[:, None] for a in (x, s)), ops.sum(d, axis=1)[:, None]]
        loss = entropy = gradient = 0.0
        sides = (of_images, image_weight / num_images), (of_texts, (1 - image_weight) / num_texts)
        for (log_sum_x, log_sum_s, num_partners), weight in sides:
            share = targets.own_weight * ops.cast(num_partners > 0, x.dtype)
            y = (1 - share) * ops.exp(s - log_sum_s) + share * d / ops.maximum(num_partners, 1)
            weights = weight * ops.cast(tile.counts, x.dtype)
            loss -= ops.sum(weights * y * (x - log_sum_x))
            entropy += ops.sum(weights * minus_log(y))
            gradient += weights * (ops.exp(x - log_sum_x) - y)
        return loss, entropy, gradient

    loss, entropy = _differentiable(loss_of, learned, held, tile_size)
    tile = _tile(held.v, tile_size, 0)
    shown = targets.similarity or targets.own
    return Loss(loss, loss - entropy, held.logits(tile), shown(tile.rows) if shown else None)


def tiled_binary_cross_entropy(
    image_embeddings: Tensor,
    text_embeddings: Tensor,
    logit_scale: Tensor,
    logit_bias: Tensor,
    similarity: OfTile,
    tile_size: int,
) -> Loss:
    """The loss of `sigmoid_matching` against targets of a `similarity`, as `tiled_cross_entropy`."""
    learned = _embeddings(image_embeddings, text_embeddings, logit_scale, logit_bias)
    held = Embeddings(*(ops.stop_gradient(x) for x in learned))
    weight = sum(0.5 / ops.cast(ops.shape(x)[0], held.v.dtype) for x in (held.v, held.t))

    def loss_of(tile: Tile) -> tuple[Tensor, Tensor, Tensor]:
        x, g = held.logits(tile), ops.clip(similarity(tile.rows), 0, 1)
        weights = weight * ops.cast(tile.counts, x.dtype)
        loss = ops.sum(weights * (g * ops.softplus(-x) + (1 - g) * ops.softplus(x)))
        entropy = ops.sum(weights * (minus_log(g) + minus_log(1 - g)))
        return loss, entropy, weights * (ops.sigmoid(x) - g)

    loss, entropy = _differentiable(loss_of, learned, held, tile_size)
    tile = _tile(held.v, tile_size, 0)
    return Loss(loss, loss - entropy, held.logits(tile), similarity(tile.rows))


def _embeddings(v: Tensor, t: Tensor, scale: Tensor, bias: Tensor = 0.0) -> Embeddings:
    v, t = at_least_float32(v), at_least_float32(t)
    return Embeddings(v, t, ops.cast(scale, v.dtype), ops.cast(bias, v.dtype))


def _differentiable(
    loss_of: Callable[[Tile], tuple[Tensor, Tensor, Tensor]],
    learned: Embeddings,
    held: Embeddings,
    tile_size: int,
) -> tuple[Tensor, Tensor]:
    """Sum loss and entropy over tiles; give the loss the gradients that its tiles have, by `learned`."""

    def add_tile(tile: Tile, sums: Sums) -> Sums:
        loss, entropy, by_logits = loss_of(tile)
        by_v = held.scale * ops.matmul(by_logits, held.t)  # (tile_size, D); 0 for images that do not count
        by_t = held.scale * ops.matmul(ops.transpose(by_logits), tile.rows(held.v))  # (num_texts, D)
        by_scale = ops.sum(by_v * tile.rows(held.v)) / held.scale
        by_all_v = ops.scatter_update(sums[2], tile.index[:, None], by_v, reduction="add")
        by_scalars = [sums[4] + by_scale, sums[5] + ops.sum(by_logits)]
        return [sums[0] + loss, sums[1] + entropy, by_all_v, sums[3] + by_t, *by_scalars]

    zero = held.scale * 0
    sums = _walk(held.v, tile_size, add_tile, [zero, zero, held.v * 0, held.t * 0, zero, zero])
    loss, entropy, *gradients = sums
    for x, fixed, gradient in zip(learned, held, gradients, strict=True):
        loss += ops.sum(gradient * (x - fixed))  # 0, with that gradient
    return loss, entropy


def _walk(v: Tensor, tile_size: int, add: Callable[[Tile, Sums], Sums], sums: Sums) -> Sums:
    """Add every tile to `sums`, one after the other."""

    def step(number: Tensor, *sums: Tensor) -> tuple[Tensor, ...]:
        sums = tuple(add(_tile(v, tile_size, number), list(sums)))
        # The next number waits for these sums: TensorFlow computes no two tiles at a time, in twice the
        # memory.
        waits = ops.cast(ops.min(sums[0]) < -math.inf, "int32")  # 0
        return number + 1 + waits, *sums

    num_tiles = (ops.shape(v)[0] + tile_size - 1) // tile_size
    start = ops.convert_to_tensor(0, "int32")
    return list(ops.while_loop(lambda number, *_: number < num_tiles, step, (start, *sums))[1:])


def _tile(v: Tensor, tile_size: int, number: Tensor) -> Tile:
    """The images of a tile; the last of several is as large as the others."""
    num_images = ops.shape(v)[0]
    known = isinstance(num_images, int)
    size = min(tile_size, num_images) if known else ops.minimum(tile_size, num_images)
    index = ops.minimum(number * tile_size, num_images - size) + ops.arange(size, dtype="int32")
    return Tile(index, (index >= number * tile_size)[:, None])
