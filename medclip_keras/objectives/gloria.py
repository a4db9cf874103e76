"""The losses of GLoRIA: whole image with whole report, and each word with the image regions it attends to."""

from keras import ops

from medclip_keras.objectives.cross_entropy import at_least_float32, cross_entropy, image_text_logits
from medclip_keras.objectives.info_nce import own_text
from medclip_keras.objectives.loss import Loss, Tensor

REGION_TEMPERATURE, WORD_TEMPERATURE, LOGIT_SCALE = 4.0, 5.0, 10.0


def local_similarity(regions: Tensor, words: Tensor, word_mask: Tensor) -> Tensor:
    """Agreement of each caption's words with the regions that they attend to.

    With r_k the regions of image i and w_l the real words of caption j, not normalised:

        a_kl  = softmax over l of <r_k, w_l>               the words that region k is about
        b_lk  = softmax over k of 4 a_kl                   the regions that word l attends to
        c_l   = sum_k b_lk r_k                             their mean
        Z_ij  = log sum_l exp(5 cos(c_l, w_l))

    A cosine does not depend on lengths, so e_kl = exp(4 a_kl) replaces b, and c_l is never formed:

        cos(c_l, w_l) = sum_k e_kl <r_k, w_l> / sqrt( e_l^T (R R^T) e_l  |w_l|^2 )

    with the regions' Gram matrix, which costs less than c_l for fewer regions than features. Memory of the
    backward pass grows with images times captions.

    Follows: Huang et al., ICCV 2021 (GLoRIA), section 3.3, equations 4 to 7, in their released code's order
    of the two softmaxes.

    Args:
        regions: float (num_images, num_regions, D), the image encoder's feature map.
        words: float (num_captions, num_words, D), word pieces summed into words.
        word_mask: (num_captions, num_words), not 0 for the real words; at least one a caption.

    Returns:
        Z (num_images, num_captions), float32; float64 for float64 inputs.

    >>> import numpy as np
    >>> regions, words = np.ones((2, 5, 4)), np.ones((3, 6, 4))  # cosines of 1
    >>> np.round(local_similarity(regions, words, np.ones((3, 6))), 3)[0], round(np.log(6) + 5, 3)
    (array([6.792, 6.792, 6.792]), 6.792)
    """
    regions, words = at_least_float32(regions), at_least_float32(words)
    absent = -1e9 * (1 - ops.cast(ops.cast(word_mask, "bool"), words.dtype))  # (num_captions, num_words)
    words_squared = ops.sum(words * words, axis=2)  # (num_captions, num_words)

    def of_image(regions: Tensor) -> Tensor:
        gram = ops.matmul(regions, ops.transpose(regions))  # (num_regions, num_regions)
        dots = ops.einsum("kd,jld->kjl", regions, words)  # (num_regions, num_captions, num_words)
        looks = ops.exp(REGION_TEMPERATURE * ops.softmax(dots + absent, axis=2))  # e, as dots
        seen_dot_word = ops.sum(looks * dots, axis=0)  # (num_captions, num_words)
        seen_squared = ops.sum(looks * ops.einsum("km,mjl->kjl", gram, looks), axis=0)
        norms = ops.sqrt(ops.maximum(seen_squared * words_squared, 1e-16))
        return ops.logsumexp(WORD_TEMPERATURE * seen_dot_word / norms + absent, axis=1)  # (num_captions,)

    return ops.map(of_image, regions)  # image by image, for less memory


def gloria(
    image_embeddings: Tensor,
    text_embeddings: Tensor,
    regions: Tensor,
    words: Tensor,
    word_mask: Tensor,
    *,
    global_weight: float = 1.0,
    local_weight: float = 1.0,
) -> Loss:
    """Cross-entropy of own pairs by whole embeddings, and by words with regions.

    With cos_ij the cosine of image i and report j, and Z_ij the `local_similarity`:

        L_global = cross-entropy of 10 cos over texts + the same over images
        L_local  = cross-entropy of 10 Z over texts + the same over images
        L        = global_weight L_global + local_weight L_local

    Follows: Huang et al., ICCV 2021 (GLoRIA), equations 1 to 9, with the temperatures 4, 5 and 10 of their
    released code.

    Args:
        image_embeddings: float (num_pairs, D), L2-normalised.
        text_embeddings: float (num_pairs, D), L2-normalised; row i belongs to image i.
        others: as in `local_similarity`, with as many images and captions as pairs.

    Returns:
        The loss, with the logits of the whole embeddings.

    Raises:
        ValueError: another number of images than of texts.

    >>> import numpy as np
    >>> v = t = np.eye(2, 3, dtype="float32")
    >>> regions, words = np.ones((2, 5, 3), "float32"), np.ones((2, 4, 3), "float32")
    >>> out = gloria(v, t, regions, words, np.ones((2, 4)))  # all words see the same
    >>> round(float(out.loss), 4), round(2 * np.log(1 + np.exp(-10)) + 2 * np.log(2), 4)
    (1.3864, 1.3864)
    """
    logits = image_text_logits(image_embeddings, text_embeddings, LOGIT_SCALE)  # (num_pairs, num_pairs)
    own = own_text(logits)
    local_logits = LOGIT_SCALE * local_similarity(regions, words, word_mask)  # (num_pairs, num_pairs)
    # `cross_entropy` is the mean over both directions; GLoRIA adds them.
    global_loss, local_loss = (2 * cross_entropy(x, own, own) for x in (logits, local_logits))
    loss = global_weight * global_loss + local_weight * local_loss
    return Loss(loss, loss, logits, own)
