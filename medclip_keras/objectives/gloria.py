"""The losses of GLoRIA: whole image with whole report, and each word with the image regions it attends to."""

from typing import NamedTuple

import keras
from keras import ops

from medclip_keras.objectives.cross_entropy import cross_entropy, image_text_logits
from medclip_keras.objectives.info_nce import own_text
from medclip_keras.objectives.precision import at_least_float32

REGION_TEMPERATURE, WORD_TEMPERATURE, LOGIT_SCALE = 4.0, 5.0, 10.0


class GLoRIA(NamedTuple):
    """Losses and logits, float32.

    Attributes:
        loss: scalar, the weighted sum of the next two.
        global_loss: scalar.
        local_loss: scalar.
        logits: (num_pairs, num_pairs) of the whole embeddings, rows are images.
        local_logits: (num_pairs, num_pairs) of words and regions, rows are images.
    """

    loss: object
    global_loss: object
    local_loss: object
    logits: object
    local_logits: object


def local_similarity(regions, words, word_mask, *, captions_at_once=8, recompute=False):
    """How well the regions that each word of a caption attends to agree with the word.

    With r_k the regions of image i and w_l the real words of caption j, not normalised:

        a_kl  = softmax over l of <r_k, w_l>               which word a region is about
        b_lk  = softmax over k of 4 a_kl                   where a word looks
        c_l   = sum_k b_lk r_k                             what it sees there
        Z_ij  = log sum_l exp(5 cos(c_l, w_l))

    A cosine does not see lengths, so e_kl = exp(4 a_kl) serves for b, and c_l is never formed:

        cos(c_l, w_l) = sum_k e_kl <r_k, w_l> / sqrt( e_l^T (R R^T) e_l  |w_l|^2 )

    with the regions' Gram matrix, which costs less than c_l where there are fewer regions than features. What
    is kept for the backward pass grows with images times captions; with `recompute` nothing of it is kept,
    some captions are compared with all images at a time, and compared once more in the backward pass.

    Follows: Huang et al., ICCV 2021 (GLoRIA), section 3.3, equations 4 to 7, as their released code orders
    the two softmaxes.

    Args:
        regions: float (num_images, num_regions, D), the image encoder's feature map.
        words: float (num_captions, num_words, D), word pieces summed into words.
        word_mask: (num_captions, num_words), not 0 for the real words; at least one a caption.
        captions_at_once: how many captions meet all images in one step.
        recompute: whether to save memory at the cost of time, for large batches.

    Returns:
        float32 (num_images, num_captions), float64 where the inputs are.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> regions, words = rng.normal(size=(2, 5, 4)), rng.normal(size=(3, 6, 4))
    >>> local_similarity(regions, words, np.ones((3, 6))).shape
    TensorShape([2, 3])
    """
    regions, words = at_least_float32(regions), at_least_float32(words)
    mask = ops.cast(ops.cast(word_mask, "bool"), words.dtype)
    gram = ops.matmul(regions, ops.transpose(regions, (0, 2, 1)))  # (num_images, num_regions, num_regions)
    num_captions = ops.shape(words)[0]  # not static where words were gathered from replicas
    num_chunks = -(-num_captions // captions_at_once)
    words = ops.concatenate([words, mask[:, :, None]], axis=2)  # `ops.scan` walks over one array
    words = ops.pad(words, ((0, captions_at_once - 1), (0, 0), (0, 0)))[: num_chunks * captions_at_once]
    chunks = ops.reshape(words, (num_chunks, captions_at_once, *ops.shape(words)[1:]))

    compare = keras.remat(_compare) if recompute else _compare

    def step(_, some):
        similarities = compare(regions, gram, some[:, :, :-1], some[:, :, -1])
        return similarities, similarities

    start = ops.zeros((ops.shape(regions)[0], captions_at_once), regions.dtype)
    _, similarities = ops.scan(step, start, chunks)  # (num_chunks, num_images, captions_at_once)
    similarities = ops.reshape(ops.transpose(similarities, (1, 0, 2)), (ops.shape(regions)[0], -1))
    return similarities[:, :num_captions]


def _compare(regions, gram, words, mask):
    """`local_similarity` of all images and some captions."""
    num_images, num_regions, dim = ops.shape(regions)
    num_captions, num_words, _ = ops.shape(words)
    absent = ops.cast(-1e9, words.dtype) * (1 - mask)  # (captions, num_words)
    # One large product: its result needs no transposing, only other names for its axes.
    dots = ops.matmul(ops.reshape(regions, (-1, dim)), ops.transpose(ops.reshape(words, (-1, dim))))
    dots = ops.reshape(dots, (num_images, num_regions, num_captions, num_words))
    looks = ops.exp(REGION_TEMPERATURE * ops.softmax(dots + absent, axis=3))
    seen_dot_word = ops.sum(looks * dots, axis=1)  # (num_images, captions, num_words)
    looks = ops.reshape(looks, (num_images, num_regions, num_captions * num_words))
    seen_squared = ops.reshape(_squared_lengths(gram, looks), ops.shape(seen_dot_word))
    words_squared = ops.sum(words * words, axis=2)  # (captions, num_words)
    norms = ops.sqrt(ops.maximum(seen_squared * words_squared, 1e-16))
    return ops.logsumexp(WORD_TEMPERATURE * seen_dot_word / norms + absent, axis=2)  # (num_images, captions)


def _squared_lengths(gram, looks):
    """e^T G e of every column e of `looks`; (num_images, columns).

    G is symmetric, so the slope by e is 2 G e, which the value has computed already: the second sum is zero
    and has that slope. Differentiating e^T G e as it stands would multiply by G once more.
    """
    fixed = ops.stop_gradient(looks)
    product = ops.matmul(gram, fixed)  # (num_images, num_regions, columns)
    slope = ops.stop_gradient(2 * product)
    return ops.sum(fixed * product, axis=1) + ops.sum((looks - fixed) * slope, axis=1)


def gloria(
    image_embeddings,
    text_embeddings,
    regions,
    words,
    word_mask,
    *,
    global_weight=1.0,
    local_weight=1.0,
    captions_at_once=8,
    recompute=False,
):
    """Both losses of GLoRIA over a batch of pairs.

    With cos_ij the cosine of image i and report j, and Z_ij the `local_similarity`:

        L_global = cross-entropy of 10 cos over texts + the same over images
        L_local  = cross-entropy of 10 Z over texts + the same over images
        L        = global_weight L_global + local_weight L_local

    Follows: Huang et al., ICCV 2021 (GLoRIA), equations 1 to 9, with the temperatures 4, 5 and 10 of their
    released code.

    Args:
        image_embeddings: float (num_pairs, D), L2-normalised.
        text_embeddings: float (num_pairs, D), L2-normalised; row i belongs to image i.
        regions: float (num_pairs, num_regions, D).
        words: float (num_pairs, num_words, D).
        word_mask: (num_pairs, num_words), not 0 for the real words.
        global_weight: of L_global.
        local_weight: of L_local.
        captions_at_once: how many captions `local_similarity` compares in one step.
        recompute: whether `local_similarity` saves memory at the cost of time.

    Returns:
        A `GLoRIA` in float32 (float64 where the inputs are).

    Raises:
        ValueError: another number of images than of texts.

    >>> import numpy as np
    >>> v = t = np.eye(2, 3, dtype="float32")
    >>> regions, words = np.ones((2, 5, 3), "float32"), np.ones((2, 4, 3), "float32")
    >>> out = gloria(v, t, regions, words, np.ones((2, 4)))  # what words see is the same everywhere
    >>> round(float(out.global_loss), 4), round(2 * np.log(1 + np.exp(-10)), 4)
    (0.0001, 0.0001)
    >>> round(float(out.local_loss), 4), round(2 * np.log(2), 4)
    (1.3863, 1.3863)
    """
    logits = image_text_logits(image_embeddings, text_embeddings, LOGIT_SCALE)  # (num_pairs, num_pairs)
    own = own_text(logits)
    local_logits = LOGIT_SCALE * local_similarity(
        regions, words, word_mask, captions_at_once=captions_at_once, recompute=recompute
    )  # (num_pairs, num_pairs)
    # The weight of 1/2 is that of a mean; here both directions are added.
    global_loss, local_loss = (2 * cross_entropy(x, own, own) for x in (logits, local_logits))
    loss = global_weight * global_loss + local_weight * local_loss
    return GLoRIA(loss, global_loss, local_loss, logits, local_logits)
