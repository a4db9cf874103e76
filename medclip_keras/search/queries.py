"""Queries of pictures and words, and their arithmetic on the unit sphere.

With unit vectors v of images, t of texts and u of texts to avoid, each of them averaged, and weights b and c,

    q = (v + b t - c u) / |v + b t - c u|

A row x of the index scores <q, x>. Its rank is that of <v, x> + b <t, x> - c <u, x>, a weighted sum of
cosines: composing adds nothing else, and dividing by the length changes no rank.

Weights: b = 0.5 beside an image, c = 1. Of 2,500 phantoms (tests/benchmarks/search.py), queries were pictures
with exactly two findings. Of the ten nearest pictures, the avoided finding was in .85 with c = 0, .25 with
c = 0.5 and .01 with c = 1; the other finding in .85, .90 and .87. With c = 2 the other finding falls to .69.
A wanted text at b = 1 drowns the picture's other finding (.41); at b = 0.5 it does not (.71).

Limits:

- "Without" means far from the words. It is no negation: a picture far from "effusion" may have one that the
  model does not see, and pictures that are opposite in every way rank high for large c.
- "-c u" is not "+ the sentence 'no effusion'": models often place a denial near its finding.
- Images and texts lie in two cones (a modality gap): <v, x> is near .6 and <t, x> near .1 for unrelated
  pairs of the default run. Scores of queries of different kinds cannot be compared, and other models may
  need other weights.
- A score is a similarity, not a probability of disease.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from medclip_keras.embeddings import Encoder
from medclip_keras.errors import require
from medclip_keras.evaluation.arrays import Floats
from medclip_keras.search.index import Match, SearchIndex

if TYPE_CHECKING:  # it imports TensorFlow, which an index does not need
    from medclip_keras.inference import Image

TEXT_WEIGHT, WITHOUT_WEIGHT = 0.5, 1.0


def compose(
    images: Floats | None = None,
    texts: Floats | None = None,
    without: Floats | None = None,
    *,
    text_weight: float = TEXT_WEIGHT,
    without_weight: float = WITHOUT_WEIGHT,
) -> Floats:
    """Compose one query of unit vectors; see the module for the equation.

    Args:
        images: float (num_images, D) to be near to.
        texts: float (num_texts, D) to be near to.
        without: float (num_avoided, D) to be far from.
        text_weight: b, at least 0; of no effect without images and `without`.
        without_weight: c, at least 0.

    Returns:
        float32 (D,), of unit length.

    Raises:
        ValueError: neither an image nor a text, a negative weight, or parts that cancel out.

    >>> v, t, u = np.eye(3)[:, None]
    >>> [f"{x:.3f}" for x in compose(v, t, u, text_weight=2, without_weight=2)]
    ['0.333', '0.667', '-0.667']
    """
    parts = (
        (images, 1.0, "1"),
        (texts, text_weight, "text_weight"),
        (without, without_weight, "without_weight"),
    )
    given = [(vectors, weight) for vectors, weight, _ in parts if vectors is not None and len(vectors)]
    for _, weight, name in parts[1:]:
        require(0 <= weight < np.inf, name, "a finite number, at least 0", weight)
    wanted = any(vectors is not None and len(vectors) for vectors in (images, texts))
    require(wanted, "query", "an image or a text to be near to", "none", "Add --text or --image.")
    signs = [-1.0 if vectors is without else 1.0 for vectors, _ in given]
    query = sum(
        sign * weight * np.mean(np.asarray(vectors, np.float64), axis=0)
        for (vectors, weight), sign in zip(given, signs, strict=True)
    )
    length = float(np.linalg.norm(query))
    require(length > 1e-6, "query", "parts that do not cancel out", f"a vector of length {length:.1e}")
    return np.asarray(query / length, np.float32)


def ask(
    index: SearchIndex,
    model: Encoder,
    *,
    image: "Image | None" = None,
    texts: Sequence[str] = (),
    without: Sequence[str] = (),
    k: int = 10,
    text_weight: float = TEXT_WEIGHT,
    without_weight: float = WITHOUT_WEIGHT,
) -> list[Match]:
    """Return the `k` rows nearest to an image and texts and far from others, the nearest first.

    Raises:
        ValueError: another model than the index's, no query, an unreadable image, or `k` under 1.
    """
    index.require_model(model)
    encoded = [model.encode_texts(list(part)) if part else None for part in (texts, without)]
    images = None if image is None else model.encode_images([image])
    query = compose(images, *encoded, text_weight=text_weight, without_weight=without_weight)
    return index.search(query[None], k)[0]
