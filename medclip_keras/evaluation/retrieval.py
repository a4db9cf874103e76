"""Image to text retrieval: whether the sentences nearest to an image state the image's finding.

Follows: Zhang et al., MLHC 2022, section 4.3, and Wang et al., EMNLP 2022, table 4 (Precision@K).
Departs: the candidates are held-out sentences of the user's own reports, chosen by their labels.
"""

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from medclip_keras.evaluation.arrays import Batch, Bools, ByModel, Floats, Ints
from medclip_keras.evaluation.embedder import strings
from medclip_keras.evaluation.metrics import Bootstrap, Statistic, weighted_mean
from medclip_keras.evaluation.nearest import precision_at_k
from medclip_keras.evaluation.results import Estimates, RetrievalResult
from medclip_keras.evaluation.tasks import Task, first_of_each_class, only_finding
from medclip_keras.knowledge.states import LabelState

TOP = (1, 2, 5, 10)


@dataclass(frozen=True)
class Candidates:
    """Sentences to retrieve."""

    texts: tuple[str, ...]  # (num_candidates,), distinct
    class_index: Ints  # (num_candidates,), the one finding that each states


def select_candidates(batches: Iterable[Batch], columns: Sequence[int], per_class: int) -> Candidates:
    """Select sentences that state exactly one of the findings and no other concept, at most `per_class` each.

    A sentence with any other positive or uncertain concept is excluded. Of sentences that differ only in
    letter case, spaces or the final period, one is kept.

    Args:
        batches: {"record_key", "text", "label_states" (B, num_findings)}.
        columns: positions of the findings in the label states.
        per_class: maximum number of sentences a finding; those of the smallest record keys are taken.
    """
    found: list[tuple[str, str, int]] = []  # record key, text, class
    for batch in batches:
        states = np.asarray(batch["label_states"])
        class_index = only_finding(states, columns)
        stated = np.isin(states, (LabelState.POSITIVE, LabelState.UNCERTAIN)).sum(axis=1)
        chosen = (class_index >= 0) & (stated == 1)
        keys, texts = strings(batch["record_key"])[chosen], strings(batch["text"])[chosen]
        found += zip(keys.tolist(), texts.tolist(), class_index[chosen].tolist(), strict=True)
    distinct: dict[str, tuple[str, int]] = {}  # normalised text → text, class
    for _, text, k in sorted(found, key=lambda row: row[:2]):
        distinct.setdefault(" ".join(text.casefold().split()).rstrip(" ."), (text, k))
    kept = list(distinct.values())
    class_index = np.array([k for _, k in kept], int)
    rows = first_of_each_class(class_index, np.arange(len(kept)), per_class)
    return Candidates(tuple(kept[i][0] for i in rows), class_index[rows])


def retrieve(
    queries: Task, candidates: Candidates, similarities: ByModel, bootstrap: Bootstrap
) -> RetrievalResult:
    """Precision@{1, 2, 5, 10}, as far as there are candidates, with intervals over the queries' patients.

    `similarities` are by model, float (num_queries, num_candidates), rows are images; candidates of the
    query's class are relevant.
    """
    estimates, baseline = {}, {}
    for who, similarity in similarities.items():
        statistics = precision_statistics(queries, candidates.class_index, similarity)
        estimates[who] = Estimates(bootstrap.estimate(statistics, queries.patient_ids))
        # In a random order Precision@K is the share of relevant candidates, for every K.
        baseline = dict.fromkeys(statistics, float(_relevant(queries, candidates.class_index).mean()))
    num_candidates = {n: int((candidates.class_index == k).sum()) for k, n in enumerate(queries.classes)}
    has_queries = dict(zip(queries.classes, queries.has_images, strict=True))
    counts = {
        "num_queries": len(queries.rows),
        "num_candidates": num_candidates,
        "not_retrieved": [n for n, number in num_candidates.items() if not (number and has_queries[n])],
    }
    return RetrievalResult(queries, counts, baseline, {"": estimates}, candidates.class_index, similarities)


def precision_statistics(
    queries: Task, candidate_classes: Ints, similarities: Floats
) -> dict[str, Statistic]:
    """Map each metric of `retrieve` to its statistic; similarities float (num_queries, num_candidates)."""
    relevant = _relevant(queries, candidate_classes)
    return {
        f"precision_at_{k}": functools.partial(weighted_mean, precision_at_k(similarities, relevant, k))
        for k in TOP
        if k <= len(candidate_classes)
    }


def _relevant(queries: Task, candidate_classes: Ints) -> Bools:
    """Whether query and candidate are of one class, bool (num_queries, num_candidates)."""
    relevant: Bools = queries.class_index[:, None] == candidate_classes[None, :]
    return relevant
