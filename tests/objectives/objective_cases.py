"""Every objective beside its restatement, on batches that are not square, padded, and repeat patients."""

import dataclasses
from collections.abc import Callable

import numpy as np
import restated

from medclip_keras.objectives.convirt import convirt
from medclip_keras.objectives.gloria import gloria
from medclip_keras.objectives.info_nce import info_nce
from medclip_keras.objectives.mixed_matching import mixed_matching
from medclip_keras.objectives.semantic_matching import semantic_matching
from medclip_keras.objectives.sigmoid_matching import sigmoid_matching

# Six findings: weighted, the first four related, positive definite; half of the pairs (k, l) are 0.
RELATED = np.array([
    [1.0, 0.6, 0.3, 0.0, 0, 0],
    [0.6, 4.0, 0.5, 1.2, 0, 0],
    [0.3, 0.5, 2.0, 0.0, 0, 0],
    [0.0, 1.2, 0.0, 3.0, 0, 0],
    [0.0, 0.0, 0.0, 0.0, 9, 0],
    [0.0, 0.0, 0.0, 0.0, 0, 1],
])  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Case:
    """An objective of the package and its restatement; both take `batch` and give the loss.

    `learned` names what the loss is differentiated by.
    """

    batch: dict[str, np.ndarray]
    learned: tuple[str, ...]
    ours: Callable
    restatement: Callable


def unit_rows(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def labelled_batch(signed: bool) -> dict[str, np.ndarray]:
    """5 images, 4 texts, 6 findings, 3 features; two images of one patient, one report twice."""
    rng = np.random.default_rng(7)
    labels = [rng.integers(-1 if signed else 0, 2, (n, 6)).astype("float64") for n in (5, 4)]
    known = [(rng.integers(0, 4, (n, 6)) > 0).astype("float64") for n in (5, 4)]
    v, t = unit_rows(rng.normal(size=(5, 3))), unit_rows(rng.normal(size=(4, 3)))
    labels[0][1] = labels[1][1] = 0  # nothing found
    for repeated in (v, labels[0], known[0]):
        repeated[4] = repeated[3]
    for repeated in (t, labels[1], known[1]):
        repeated[3] = repeated[2]
    # Study 8 has two images and its report twice, study 5 one of each; the others have no partner.
    studies = {"image_study": np.array([5, 6, 7, 8, 8]), "text_study": np.array([5, 9, 8, 8])}
    scalars = {"scale": np.float64(3.0), "bias": np.float64(-2.0)}
    marks = {"a": labels[0], "b": labels[1], "known_a": known[0], "known_b": known[1]}
    return {"v": v, "t": t, **scalars, **marks, **studies}


def paired_batch() -> dict[str, np.ndarray]:
    """5 pairs, 7 regions, 6 words of which 2 to 6 are real, 3 features; an image twice, a report twice."""
    rng = np.random.default_rng(11)
    v, t = unit_rows(rng.normal(size=(5, 3))), unit_rows(rng.normal(size=(5, 3)))
    regions, words = rng.normal(size=(5, 7, 3)), rng.normal(size=(5, 6, 3))
    mask = (np.arange(6) < np.array([6, 2, 3, 5, 4])[:, None]).astype("float64")
    words += 3 * (1 - mask)[:, :, None]  # what stands in the padding would be heard
    for repeated in (v, regions):
        repeated[4] = repeated[3]
    for repeated in (t, words, mask):
        repeated[2] = repeated[0]
    return {"v": v, "t": t, "scale": np.float64(3.0), "regions": regions, "words": words, "mask": mask}


def _semantic(**options):
    def ours(v, t, scale, a, b, known_a, known_b, **_):
        return semantic_matching(v, t, scale, a, b, image_known=known_a, text_known=known_b, **options).loss

    return ours


def _semantic_restated(temperature=1.0, kernel=None):
    def restatement(v, t, scale, a, b, known_a, known_b, **_):
        return restated.semantic_matching(v, t, scale, a, b, known_a, known_b, temperature, kernel)[3]

    return restatement


def _mixed(weight):
    def ours(v, t, scale, a, b, known_a, known_b, image_study, text_study, **_):
        options = {"image_study": image_study, "text_study": text_study, "instance_weight": weight}
        return mixed_matching(v, t, scale, a, b, image_known=known_a, text_known=known_b, **options).loss

    def restatement(bias, **batch):
        return restated.mixed_matching(**batch, weight=weight)

    return ours, restatement


def _sigmoid(v, t, scale, bias, a, b, known_a, known_b, **_):
    return sigmoid_matching(v, t, scale, a, b, logit_bias=bias, image_known=known_a, text_known=known_b).loss


def _sigmoid_restated(image_study, text_study, **batch):
    return restated.sigmoid_matching(**batch)


def _gloria(**weights):
    def ours(v, t, regions, words, mask, **_):
        return gloria(v, t, regions, words, mask, **weights).loss

    return ours, lambda scale, **batch: restated.gloria(**batch, **weights)


def make_cases() -> dict[str, Case]:
    hot, signed, pairs = labelled_batch(signed=False), labelled_batch(signed=True), paired_batch()
    ends, scaled = ("v", "t"), ("v", "t", "scale")
    local = (*ends, "regions", "words")
    return {
        "semantic_matching": Case(hot, scaled, _semantic(), _semantic_restated()),
        "semantic_matching, signed and sharp": Case(
            signed, scaled, _semantic(target_temperature=0.3), _semantic_restated(0.3)
        ),
        "semantic_matching, related concepts": Case(
            hot, scaled, _semantic(concept_kernel=RELATED), _semantic_restated(kernel=RELATED)
        ),
        "semantic_matching, as released": Case(
            signed,
            scaled,
            lambda v, t, scale, a, b, **_: semantic_matching(v, t, scale, a, b, similarity="dot").loss,
            lambda v, t, scale, a, b, **_: restated.released_medclip(v, t, scale, a, b),
        ),
        "mixed_matching": Case(hot, scaled, *_mixed(0.3)),
        "mixed_matching, instances only": Case(hot, scaled, *_mixed(1.0)),
        "sigmoid_matching": Case(signed, (*scaled, "bias"), _sigmoid, _sigmoid_restated),
        "info_nce": Case(
            pairs,
            scaled,
            lambda v, t, scale, **_: info_nce(v, t, scale).loss,
            lambda v, t, scale, **_: restated.info_nce(v, t, scale),
        ),
        "convirt": Case(
            pairs,
            ends,
            lambda v, t, **_: convirt(v, t).loss,
            lambda v, t, **_: restated.info_nce(v, t, 10.0, 0.75),
        ),
        "gloria": Case(pairs, local, *_gloria()),
        "gloria, weighted": Case(pairs, local, *_gloria(global_weight=0.5, local_weight=2.0)),
    }
