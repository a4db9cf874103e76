"""Image to text retrieval: are the sentences nearest to an image about the image's own finding?

Follows: Zhang et al., MLHC 2022, section 4.3, and Wang et al., EMNLP 2022, table 4 (Precision@K).
Departs: the candidates are held-out sentences of the user's own reports, chosen by their labels.
"""

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from medclip_keras.evaluation.embedder import Batch, strings
from medclip_keras.evaluation.metrics import estimate, precision_at_k, weighted_mean
from medclip_keras.evaluation.zero_shot import first_of_each_class, only_finding
from medclip_keras.knowledge.states import LabelState

TOP = (1, 2, 5, 10)


@dataclass(frozen=True)
class Candidates:
    """The sentences that are retrieved.

    Attributes:
        texts: (num_candidates,), distinct.
        class_index: int (num_candidates,), the one finding that each states.
    """

    texts: tuple[str, ...]
    class_index: np.ndarray


def select_candidates(batches: Iterable[Batch], columns: Sequence[int], per_class: int) -> Candidates:
    """Sentences that state exactly one of the findings, and no other finding, at most `per_class` of each.

    A sentence that calls anything else positive or uncertain is left out. Of sentences that differ only in
    letter case, spaces or the final period, one is kept.

    Args:
        batches: {"record_key", "text", "label_states" (B, num_findings)}.
        columns: positions of the findings in the label states.
        per_class: the most sentences a finding; those of the smallest record keys.
    """
    keys, texts, classes = [], [], []
    for batch in batches:
        states = np.asarray(batch["label_states"])
        class_index = only_finding(states, columns)
        stated = np.isin(states, (LabelState.POSITIVE, LabelState.UNCERTAIN)).sum(axis=1)
        chosen = (class_index >= 0) & (stated == 1)
        keys.extend(strings(batch["record_key"])[chosen])
        texts.extend(strings(batch["text"])[chosen])
        classes.extend(class_index[chosen])
    kept, seen = [], set()
    for row in sorted(range(len(texts)), key=lambda i: (keys[i], texts[i])):
        normalised = " ".join(texts[row].casefold().split()).rstrip(" .")
        if normalised not in seen:
            seen.add(normalised)
            kept.append(row)
    class_index = np.array([classes[i] for i in kept], int)
    rows = first_of_each_class(class_index, np.arange(len(kept)), per_class)
    return Candidates(tuple(texts[kept[i]] for i in rows), class_index[rows])


def cut_offs(num_candidates: int) -> tuple[int, ...]:
    """Those K of Precision@K for which there are enough candidates."""
    return tuple(k for k in TOP if k <= num_candidates)


def chance(query_classes: np.ndarray, candidate_classes: np.ndarray) -> dict[str, float]:
    """Expected Precision@K of a random order: the share of relevant candidates, whatever K is.

    >>> chance(np.array([0, 1]), np.array([0, 0, 0, 1]))
    {'precision_at_1': 0.5, 'precision_at_2': 0.5}
    """
    share = (query_classes[:, None] == candidate_classes[None, :]).mean()
    return {f"precision_at_{k}": float(share) for k in cut_offs(len(candidate_classes))}


def figures(
    similarities: np.ndarray,
    query_classes: np.ndarray,
    candidate_classes: np.ndarray,
    patient_ids: np.ndarray,
    *,
    bootstrap: int,
    seed: int,
) -> dict:
    """Precision@{1, 2, 5, 10} with intervals over the queries' patients.

    Args:
        similarities: float (num_queries, num_candidates), rows are images.
        query_classes: int (num_queries,).
        candidate_classes: int (num_candidates,); relevant means the same class.
        patient_ids: (num_queries,).
        bootstrap: number of resamples.
        seed: of the resamples.

    Returns:
        {"precision_at_1": estimate, …} in JSON types, for those K that the candidates reach.
    """
    relevant = query_classes[:, None] == candidate_classes[None, :]
    statistics = {
        f"precision_at_{k}": functools.partial(weighted_mean, precision_at_k(similarities, relevant, k))
        for k in cut_offs(len(candidate_classes))
    }
    return {name: e.to_dict() for name, e in estimate(statistics, patient_ids, bootstrap, seed).items()}
