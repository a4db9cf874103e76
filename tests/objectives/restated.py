"""The objectives once more, in NumPy and plain loops, from the papers and the authors' released code.

Nothing here shares code with the package. Every function is analytic in embeddings, regions, words, scale and
bias, and takes complex ones, so that `gradient` is exact: f(x + ih) = f(x) + ih f'(x) + O(h^2), and no
difference of nearby values is taken.
"""

import numpy as np


def gradient(function, x, step=1e-30):
    """The slope of a real function at x, an element at a time, to machine precision."""
    x = np.asarray(x, "complex128")
    out = np.zeros(x.shape)
    for k in np.ndindex(x.shape):
        moved = x.copy()
        moved[k] += 1j * step
        out[k] = function(moved).imag / step
    return out


def softmax(x):
    """Of one row; complex allowed."""
    e = np.exp(x - np.max(np.real(x)))
    return e / e.sum()


def label_similarity(a, b, known_a, known_b, dot=False, kernel=None):
    """s_ij over the concepts known on both sides; <x, y> is sum_kl x_k K_kl y_l."""
    kernel = np.eye(a.shape[1]) if kernel is None else kernel
    s = np.zeros((len(a), len(b)))
    for i in range(len(a)):
        for j in range(len(b)):
            both = [c for c in range(a.shape[1]) if known_a[i, c] and known_b[j, c]]
            ab, aa, bb = (
                sum(x[k] * kernel[k, c] * y[c] for k in both for c in both)
                for x, y in ((a[i], b[j]), (a[i], a[i]), (b[j], b[j]))
            )
            s[i, j] = ab if dot else (ab / np.sqrt(aa * bb) if aa * bb > 0 else 0.0)
    return s


def soft_targets(s, temperature=1.0):
    """y with rows, z with columns that sum to 1."""
    y, z = np.zeros(s.shape), np.zeros(s.shape)
    for i, j in np.ndindex(s.shape):
        y[i, j] = np.exp(s[i, j] / temperature) / sum(
            np.exp(s[i, n] / temperature) for n in range(s.shape[1])
        )
        z[i, j] = np.exp(s[i, j] / temperature) / sum(
            np.exp(s[n, j] / temperature) for n in range(s.shape[0])
        )
    return y, z


def both_directions(logits, y, z):
    """L_it and L_ti against targets y and z."""
    image_to_text = text_to_image = 0.0
    for i, row in enumerate(logits):
        image_to_text -= sum(y[i, j] * np.log(p) for j, p in enumerate(softmax(row)))
    for j, column in enumerate(logits.T):
        text_to_image -= sum(z[i, j] * np.log(q) for i, q in enumerate(softmax(column)))
    return image_to_text / logits.shape[0], text_to_image / logits.shape[1]


def semantic_matching(v, t, scale, a, b, known_a, known_b, temperature=1.0, kernel=None):
    """MedCLIP's equations 4 to 7: s, y, z, the loss, and the loss less the targets' entropy."""
    s = label_similarity(a, b, known_a, known_b, kernel=kernel)
    y, z = soft_targets(s, temperature)
    loss = sum(both_directions(scale * v @ t.T, y, z)) / 2
    entropy = -((y * np.log(y)).sum(1).mean() + (z * np.log(z)).sum(0).mean()) / 2
    return s, y, z, loss, loss - entropy


def released_medclip(v, t, scale, img_labels, text_labels):
    """`_soft_clip_loss` of RyanWangZf/MedCLIP, medclip/losses.py, line by line.

    Its docstring speaks of a clamp to [-1, 1]; the code has none.
    """

    def softmax_1(x):
        return np.exp(x) / np.exp(x).sum(1, keepdims=True)

    def soft_xent_loss(input_, target):
        logprobs = np.log(softmax_1(input_))
        return -(target * logprobs).sum() / input_.shape[0]

    logits_per_img = (t @ v.T * scale).T
    label_sim = img_labels @ text_labels.T
    image_loss = soft_xent_loss(logits_per_img, softmax_1(label_sim))
    caption_loss = soft_xent_loss(logits_per_img.T, softmax_1(label_sim.T))
    return (image_loss + caption_loss) / 2


def mixed_matching(v, t, scale, a, b, known_a, known_b, image_study, text_study, weight):
    """A share of every target goes to the partners of the same study, equally, where there are any."""
    y, z = soft_targets(label_similarity(a, b, known_a, known_b))
    for i, study in enumerate(image_study):
        partners = [j for j, other in enumerate(text_study) if other == study]
        if partners:
            y[i] *= 1 - weight
            for j in partners:
                y[i, j] += weight / len(partners)
    for j, study in enumerate(text_study):
        partners = [i for i, other in enumerate(image_study) if other == study]
        if partners:
            z[:, j] *= 1 - weight
            for i in partners:
                z[i, j] += weight / len(partners)
    return sum(both_directions(scale * v @ t.T, y, z)) / 2


def sigmoid_matching(v, t, scale, bias, a, b, known_a, known_b):
    """SigLIP's loss: -log sigmoid(x) for what matches, -log sigmoid(-x) for what does not."""
    s = label_similarity(a, b, known_a, known_b)
    for_images, for_texts = np.zeros(len(v), complex), np.zeros(len(t), complex)
    for i, j in np.ndindex(s.shape):
        match = min(max(s[i, j], 0.0), 1.0)
        x = scale * (v[i] @ t[j]) + bias
        error = match * np.log(1 + np.exp(-x)) + (1 - match) * np.log(1 + np.exp(x))
        for_images[i] += error
        for_texts[j] += error
    return (for_images.mean() + for_texts.mean()) / 2


def info_nce(v, t, scale, weight=0.5):
    """CLIP's figure 3; ConVIRT's equations 2 to 4 with another weight. The own text against all."""
    total = 0.0
    for i in range(len(v)):
        texts = [np.exp(scale * (v[i] @ other)) for other in t]
        images = [np.exp(scale * (other @ t[i])) for other in v]
        total -= weight * np.log(texts[i] / sum(texts)) + (1 - weight) * np.log(images[i] / sum(images))
    return total / len(v)


def local_similarity(regions, words, mask):
    """GLoRIA's Z_ij, the context of every word formed; only the real words of a caption are looked at."""
    out = np.zeros((len(regions), len(words)), complex)
    for i, r in enumerate(regions):
        for j, caption in enumerate(words):
            w = caption[mask[j] > 0]
            about = np.array([softmax(row) for row in r @ w.T])  # (regions, words): over the words
            total = 0.0
            for word, column in zip(w, about.T, strict=True):
                seen = softmax(4 * column) @ r  # over the regions
                total += np.exp(5 * (seen @ word) / np.sqrt((seen @ seen) * (word @ word)))
            out[i, j] = np.log(total)
    return out


def gloria(v, t, regions, words, mask, global_weight=1.0, local_weight=1.0):
    """Cross-entropy of the own pair both ways, added, of whole embeddings and of words with regions."""
    own = np.eye(len(v))
    global_loss = sum(both_directions(10 * v @ t.T, own, own))
    local_loss = sum(both_directions(10 * local_similarity(regions, words, mask), own, own))
    return global_weight * global_loss + local_weight * local_loss
