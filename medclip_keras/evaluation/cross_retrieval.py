"""Retrieval beyond image to text by class: image to image, text to image, and reports with their own images.

Follows: Zhang et al., MLHC 2022 (ConVIRT), section 4.3, for Precision@{5, 10, 50} by image and by
    text; Radford et al., ICML 2021 (CLIP), for Recall@K of pairs.
Departs: queries are held-out images of the user's records with one finding each, and held-out sentences with
    one finding each; images of the query's own patient are no candidates.
"""

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from medclip_keras.evaluation.arrays import Array, Batch, ByModel, Floats, Ints
from medclip_keras.evaluation.embedder import strings
from medclip_keras.evaluation.metrics import Bootstrap, Statistic, weighted_mean
from medclip_keras.evaluation.nearest import Corpus, pair_ranks, precisions, recall_at_k
from medclip_keras.evaluation.results import TRAINED, UNTRAINED, Json
from medclip_keras.evaluation.sections import Section, Table
from medclip_keras.evaluation.table import Cells, estimate_of, value_text, with_interval
from medclip_keras.evaluation.tasks import Task

TOP = (5, 10, 50)  # of Precision@K
RECALL_TOP = (1, 5, 10)
MOST_PAIRS = 10_000
DIRECTIONS = {
    "image_to_image": "image → image, by class",
    "text_to_image": "text → image, by class",
    "pair_image_to_text": "image → its own report",
    "pair_text_to_image": "report → its own image",
}


@dataclass(frozen=True)
class CrossRetrieval:
    """Figures of each direction."""

    # direction → {"num_queries", "num_candidates", "baseline": {metric: value}, model: {metric: estimate}}
    metrics: Mapping[str, Json]


def image_to_image(queries: Task, images: ByModel, bootstrap: Bootstrap) -> Json:
    """Precision@K of images of the query's class among those of other patients, if there are K."""
    patients = _numbers(queries.patient_ids)
    found = {
        who: precisions(of, queries.class_index, patients, Corpus(of, queries.class_index, patients), TOP)
        for who, of in images.items()
    }
    same_class = queries.class_index[:, None] == queries.class_index
    others = patients[:, None] != patients
    with np.errstate(invalid="ignore"):
        share = (same_class & others).sum(axis=1) / others.sum(axis=1)
    chance = float(share.mean())
    return _precision_table(found, queries.patient_ids, len(queries.rows), chance, bootstrap)


def text_to_image(
    queries: Task, images: ByModel, texts: ByModel, text_classes: Ints, bootstrap: Bootstrap
) -> Json:
    """Precision@K of images that have the sentence's one finding; intervals over the sentences."""
    nobody = np.full(len(text_classes), -1)
    corpora = {who: Corpus(of, queries.class_index, np.zeros(len(of), int)) for who, of in images.items()}
    found = {
        who: precisions(texts[who], text_classes, nobody, corpus, TOP) for who, corpus in corpora.items()
    }
    chance = float((text_classes[:, None] == queries.class_index).mean())
    return _precision_table(found, np.arange(len(text_classes)), len(queries.rows), chance, bootstrap)


def paired(
    images: ByModel, studies: Ints, patient_ids: Array, texts: ByModel, bootstrap: Bootstrap
) -> dict[str, Json]:
    """Recall@K and rank of each image's own report, and of each report's nearest own image, both directions.

    A report is found by the rank of its nearest own image; its other images do not compete. Of tied
    candidates the rank is the mean over their orders.

    Args:
        images: model → float (num_images, D).
        studies: int (num_images,), rows of `texts`.
        patient_ids: (num_images,).
        texts: model → float (num_texts, D), of whole reports, each with an image.
        bootstrap: of the intervals, over patients.
    """
    numbers = np.arange(len(next(iter(texts.values()))))
    owners = patient_ids[[int(np.flatnonzero(studies == number)[0]) for number in numbers]]
    to_text = {w: pair_ranks(images[w], studies, Corpus(texts[w], numbers, numbers)) for w in images}
    to_image = {w: pair_ranks(texts[w], numbers, Corpus(images[w], studies, studies)) for w in images}
    return {
        "pair_image_to_text": _recall_table(
            to_text, patient_ids, np.ones(len(studies), int), len(numbers), bootstrap
        ),
        "pair_text_to_image": _recall_table(to_image, owners, np.bincount(studies), len(studies), bootstrap),
    }


def chance_of_ranks(own: Ints, num_candidates: int) -> Floats:
    """Chance that a query's rank is at most 1, 2, …, num_candidates if the order is random; mean of queries.

    With m own candidates among n others, the nearest own one has k others or more before it with the chance
    C(n, k) / C(n + m, k): none of the first k is own.

    >>> chance_of_ranks(np.array([1, 2]), 4).round(3).tolist()
    [0.375, 0.667, 0.875, 1.0]

    Args:
        own: int (num_queries,), each query's number of own candidates, from 1 to num_candidates.

    Returns:
        (num_candidates,) in [0, 1], not decreasing.
    """
    before, chance = np.arange(num_candidates), np.zeros(num_candidates)
    for number, queries in zip(*np.unique(own, return_counts=True), strict=True):
        others = np.maximum(num_candidates - number - before, 0)
        missed = np.cumprod(others / (num_candidates - before))
        chance += queries / len(own) * (1 - missed)
    return chance


def _median_rank(chance: Floats) -> float:
    """Mean of the lower and the upper median of ranks 1, 2, … with this cumulative chance."""
    lower, upper = (int(np.argmax(chance > half)) for half in (0.5 - 1e-9, 0.5 + 1e-9))
    return 1 + (lower + upper) / 2


def study_texts(batches: Iterable[Batch]) -> dict[str, str]:
    """Study → its sentences in order, joined; {} if the batches name no studies."""
    found: dict[str, list[str]] = {}
    for batch in batches:
        if "study_id" not in batch:
            return {}
        for study, text in zip(strings(batch["study_id"]), strings(batch["text"]), strict=True):
            found.setdefault(str(study), []).append(str(text))
    return {study: " ".join(texts) for study, texts in found.items()}


def pair_rows(study_ids: Sequence[str] | Array, texts: Mapping[str, str]) -> Ints:
    """Rows of the images with a report, of the first `MOST_PAIRS` studies by their hashes."""
    with_text = sorted({str(study) for study in study_ids} & set(texts))[:MOST_PAIRS]
    return np.flatnonzero(np.isin(study_ids, with_text)) if with_text else np.empty(0, int)


def _precision_table(
    found: Mapping[str, Mapping[int, Floats]],
    units: Array,
    num_candidates: int,
    chance: float,
    bootstrap: Bootstrap,
) -> Json:
    """A direction's table; a K without K candidates for any query is left out."""
    possible = [k for k in TOP if not np.isnan(next(iter(found.values()))[k]).all()]
    table: Json = {"num_queries": len(units), "num_candidates": num_candidates}
    table["baseline"] = {f"precision_at_{k}": chance for k in possible}
    for who, of in found.items():
        statistics = {f"precision_at_{k}": functools.partial(weighted_mean, of[k]) for k in possible}
        table[who] = _estimates(statistics, units, bootstrap)
    return table


def _recall_table(
    ranks: Mapping[str, tuple[Floats, Floats]],
    patient_ids: Array,
    own: Ints,
    num_candidates: int,
    bootstrap: Bootstrap,
) -> Json:
    table: Json = {"num_queries": len(patient_ids), "num_candidates": num_candidates}
    top = [k for k in RECALL_TOP if k <= num_candidates]
    chance = chance_of_ranks(own, num_candidates)
    table["baseline"] = {f"recall_at_{k}": float(chance[k - 1]) for k in top}
    table["baseline"]["median_rank"] = _median_rank(chance)
    for who, (nearer, tied) in ranks.items():
        statistics: dict[str, Statistic] = {
            f"recall_at_{k}": functools.partial(weighted_mean, recall_at_k(nearer, tied, k)) for k in top
        }
        statistics["median_rank"] = functools.partial(_weighted_median, 1 + nearer + tied / 2)
        table[who] = _estimates(statistics, patient_ids, bootstrap)
    return table


def _weighted_median(values: Floats, weights: Floats) -> Floats:
    """The lower median of values (num_samples,) that count `weights` (num_resamples, num_samples) times."""
    order = np.argsort(values)
    counts = np.cumsum(weights[:, order], axis=1)
    median: Floats = values[order][(counts < counts[:, [-1]] / 2).sum(axis=1)]
    return median


def _estimates(statistics: Mapping[str, Statistic], units: Array, bootstrap: Bootstrap) -> Json:
    return {name: found.to_dict() for name, found in bootstrap.estimate(statistics, units).items()}


def _numbers(names: Array) -> Ints:
    numbers: Ints = np.unique(names, return_inverse=True)[1]
    return numbers


def cross_retrieval_section(result: CrossRetrieval) -> Section:
    """A table a direction."""
    return Section(
        "cross-retrieval",
        "Retrieval, all directions",
        "Whether the images nearest to an image or a sentence show the same finding, and whether reports find"
        " their own images.",
        tuple(_direction_table(DIRECTIONS[name], found) for name, found in result.metrics.items()),
        (),
        ("Tied candidates count by the mean over their orders.",),
    )


def _direction_table(title: str, found: Json) -> Table:
    header: Cells = ("", "trained [95 % CI]", "untrained", "baseline")
    rows = []
    for metric, baseline in found["baseline"].items():
        name = metric.replace("_at_", "@").replace("_", " ")
        untrained = estimate_of(found[UNTRAINED][metric]) if UNTRAINED in found else None
        trained = with_interval(estimate_of(found[TRAINED][metric]))
        rows.append((name, trained, value_text(untrained), f"{baseline:.3f}"))
    caption = f"{found['num_queries']} queries among {found['num_candidates']} candidates."
    return Table(caption, header, tuple(rows), title)
