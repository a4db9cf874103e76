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


def local_similarity(regions, words, word_mask, *, captions_at_once=4):
    """How well the regions that each word of a caption attends to agree with the word.

    With r_k the regions of image i and w_l the real words of caption j, not normalised:

        a_kl  = softmax over l of <r_k, w_l>               which word a region is about
        b_lk  = softmax over k of 4 a_kl                   where a word looks
        c_l   = sum_k b_lk r_k                             what it sees there
        Z_ij  = log sum_l exp(5 cos(c_l, w_l))

    c_l is never formed: <c_l, w_l> = sum_k b_lk <r_k, w_l>, and |c_l|^2 = b_l^T (R R^T) b_l with the regions'
    Gram matrix, so no array of words, regions and features at once is needed. Some captions are compared with
    all images at a time, and computed once more in the backward pass: memory grows with `captions_at_once`.

    Follows: Huang et al., ICCV 2021 (GLoRIA), section 3.3, equations 4 to 7, as their released code orders
    the two softmaxes.

    Args:
        regions: float (num_images, num_regions, D), the image encoder's feature map.
        words: float (num_captions, num_words, D), word pieces summed into words.
        word_mask: (num_captions, num_words), not 0 for the real words; at least one a caption.
        captions_at_once: how many captions meet all images in one step.

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
    gram = ops.einsum("ird,isd->irs", regions, regions)  # (num_images, num_regions, num_regions)
    num_captions = ops.shape(words)[0]  # not static where words were gathered from replicas
    chunk = captions_at_once
    end = -(-num_captions // chunk) * chunk
    words = ops.pad(words, ((0, chunk - 1), (0, 0), (0, 0)))[:end]
    mask = ops.pad(mask, ((0, chunk - 1), (0, 0)), constant_values=1)[:end]
    words = ops.reshape(words, (-1, chunk, *ops.shape(words)[1:]))
    mask = ops.reshape(mask, (-1, chunk, ops.shape(mask)[1]))

    compare = keras.remat(_compare)
    similarities = ops.map(lambda some: compare(regions, gram, *some), (words, mask))
    similarities = ops.transpose(similarities, (1, 0, 2))  # (num_images, num_chunks, chunk)
    similarities = ops.reshape(similarities, (ops.shape(regions)[0], -1))
    return similarities[:, :num_captions]


def _compare(regions, gram, words, mask):
    """`local_similarity` of all images and some captions."""
    absent = ops.cast(-1e9, words.dtype) * (1 - mask)[None, :, None, :]
    dots = ops.einsum("ird,jwd->ijrw", regions, words)  # (num_images, captions, num_regions, num_words)
    about = ops.softmax(dots + absent, axis=3)
    looks = ops.softmax(REGION_TEMPERATURE * about, axis=2)
    seen_dot_word = ops.sum(looks * dots, axis=2)  # (num_images, captions, num_words)
    seen_squared = ops.sum(looks * ops.einsum("irs,ijsw->ijrw", gram, looks), axis=2)
    words_squared = ops.sum(words * words, axis=2)[None]
    norms = ops.sqrt(ops.maximum(seen_squared * words_squared, 1e-16))
    scores = WORD_TEMPERATURE * seen_dot_word / norms + absent[:, :, 0, :]
    return ops.logsumexp(scores, axis=2)  # (num_images, captions)


def gloria(
    image_embeddings,
    text_embeddings,
    regions,
    words,
    word_mask,
    *,
    global_weight=1.0,
    local_weight=1.0,
    captions_at_once=4,
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
        captions_at_once: bounds the memory of `local_similarity`.

    Returns:
        A `GLoRIA` in float32 (float64 where the inputs are).
    """
    logits = image_text_logits(image_embeddings, text_embeddings, LOGIT_SCALE)  # (num_pairs, num_pairs)
    own = own_text(logits)
    local = local_similarity(regions, words, word_mask, captions_at_once=captions_at_once)
    local_logits = LOGIT_SCALE * local  # (num_pairs, num_pairs)
    # The weight of 1/2 is that of a mean; here both directions are added.
    global_loss, local_loss = (2 * cross_entropy(x, own, own) for x in (logits, local_logits))
    loss = global_weight * global_loss + local_weight * local_loss
    return GLoRIA(loss, global_loss, local_loss, logits, local_logits)
