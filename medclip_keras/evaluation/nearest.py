"""Nearest candidates of queries, candidate chunk by chunk, so that a million candidates fit in memory.

Cosines of float32 differ in the last bits by the place of a candidate in a chunk, so they are compared in
steps of 2^-20. Candidates of one step are tied, and a figure is its mean over random orders of tied ones.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from medclip_keras.errors import require
from medclip_keras.evaluation.arrays import Array, Bools, Floats, Ints

STEPS = 2.0**20  # of a cosine of 1; whole numbers up to 2^24 are exact in float32
_COSINES_AT_ONCE = 1 << 24  # 64 MiB


class Rows(Protocol):
    """Embeddings (num_rows, D) that are read by slices, as an array or a file."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> Array: ...


@dataclass(frozen=True)
class Corpus:
    """Candidates to retrieve."""

    embeddings: Rows  # (num_candidates, D), of unit length
    classes: Ints  # (num_candidates,); those of the query's class are relevant
    groups: Ints  # (num_candidates,), of patients or studies; those of the query's group do not count


def in_steps(cosines: Floats) -> Floats:
    """Cosines in whole steps of 2^-20; equal sentences and images are tied."""
    steps: Floats = np.rint(np.multiply(cosines, STEPS, dtype=cosines.dtype))
    return steps


def precision_at_k(similarities: Floats, relevant: Bools, k: int) -> Floats:
    """Share of relevant candidates among the k most similar; ties count as the mean over their orders.

    >>> similarities = np.array([[0.9, 0.1, 0.5], [0.2, 0.2, 0.1]])
    >>> precision_at_k(similarities, np.array([[True, True, False], [False, True, False]]), k=1).tolist()
    [1.0, 0.5]

    Args:
        similarities: float (num_queries, num_candidates), cosines.
        relevant: bool (num_queries, num_candidates).
        k: at most num_candidates.

    Returns:
        float (num_queries,).

    Raises:
        ValueError: a similarity that is NaN.
    """
    require(not np.isnan(similarities).any(), "similarities", "numbers", "NaN")
    steps = in_steps(similarities)
    last = np.partition(steps, -k, axis=1)[:, [-k]]  # of the k-th nearest
    above, tied = steps > last, steps == last
    share = (relevant & tied).sum(axis=1) / tied.sum(axis=1)
    precision: Floats = ((relevant & above).sum(axis=1) + (k - above.sum(axis=1)) * share) / k
    return precision


def precisions(
    queries: Floats, query_classes: Ints, query_groups: Ints, corpus: Corpus, top: tuple[int, ...]
) -> dict[int, Floats]:
    """Precision@K of each K of `top`, float (num_queries,); NaN for a query with fewer than K candidates.

    Args:
        queries: float (num_queries, D), of unit length.
        query_classes: int (num_queries,).
        query_groups: int (num_queries,); -1 excludes no candidate.
        corpus: the candidates.
        top: the Ks.
    """
    nearest = _Nearest(query_classes, max(top))
    for steps, part in _chunks(queries, corpus):
        excluded = (corpus.groups[part] == query_groups[:, None]) & (query_groups[:, None] >= 0)
        np.copyto(steps, -np.inf, where=excluded)
        nearest.add(steps, corpus.classes[part])
    return {k: nearest.precision(k) for k in top}


def pair_ranks(queries: Floats, query_groups: Ints, corpus: Corpus) -> tuple[Floats, Floats]:
    """Numbers of other groups' candidates nearer than the query's own nearest, and tied with it.

    Args:
        queries: float (num_queries, D), of unit length.
        query_groups: int (num_queries,), each with at least one candidate of the group.
        corpus: the candidates, read twice.

    Returns:
        nearer, tied: float (num_queries,).
    """
    own = np.full(len(queries), -np.inf)
    for steps, part in _chunks(queries, corpus):
        is_own = corpus.groups[part] == query_groups[:, None]
        np.maximum(own, np.max(steps, axis=1, where=is_own, initial=-np.inf), out=own)
    require(bool(np.isfinite(own).all()), "query_groups", "groups of the candidates", "a group without any")
    nearer, tied = np.zeros((2, len(queries)))
    for steps, part in _chunks(queries, corpus):
        other = corpus.groups[part] != query_groups[:, None]
        nearer += (other & (steps > own[:, None])).sum(axis=1)
        tied += (other & (steps == own[:, None])).sum(axis=1)
    return nearer, tied


def recall_at_k(nearer: Floats, tied: Floats, k: int) -> Floats:
    """Probability that the query's own candidate is among the k nearest; ties are in random order.

    >>> recall_at_k(np.array([0.0, 1.0, 0.0]), np.array([0.0, 0.0, 3.0]), k=1).tolist()
    [1.0, 0.0, 0.25]
    """
    recall: Floats = np.clip((k - nearer) / (tied + 1), 0, 1)
    return recall


def _chunks(queries: Floats, corpus: Corpus) -> Iterator[tuple[Floats, slice]]:
    """Cosines in steps, float32 (num_queries, size), of each slice of the candidates."""
    require(bool(np.isfinite(queries).all()), "queries", "finite", "NaN or infinite embeddings")
    scaled = np.ascontiguousarray(queries, np.float32) * np.float32(STEPS)
    size = max(1, _COSINES_AT_ONCE // max(len(queries), 1))
    for start in range(0, len(corpus.embeddings), size):
        part = slice(start, min(start + size, len(corpus.embeddings)))
        steps = scaled @ np.asarray(corpus.embeddings[part], np.float32).T
        require(bool(np.isfinite(steps).all()), "candidates", "finite", "NaN or infinite embeddings")
        yield np.rint(steps, out=steps), part


class _Nearest:
    """The `most` nearest candidates of each query so far, and how many are tied with the last of them."""

    def __init__(self, query_classes: Ints, most: int):
        self.query_classes = query_classes
        self.steps = np.full((len(query_classes), most), -np.inf, np.float32)  # descending
        self.relevant = np.zeros((len(query_classes), most), bool)
        self.tied, self.tied_relevant = np.zeros((2, len(query_classes)))  # with the last, all of them

    def add(self, steps: Floats, classes: Ints) -> None:
        """Take another chunk: steps (num_queries, size), classes (size,)."""
        num_queries, most = self.steps.shape
        last = self.steps[:, -1]
        floor = last
        if steps.shape[1] > most and (last == -np.inf).any():  # of the first chunk nearly all would be taken
            floor = np.maximum(last, np.partition(steps, -most, axis=1)[:, -most])
        query, column = np.nonzero((steps >= floor[:, None]) & (steps > -np.inf))
        found = steps[query, column]
        is_relevant = classes[column] == self.query_classes[query]
        queries = np.concatenate([np.repeat(np.arange(num_queries), most), query])
        values = np.concatenate([self.steps.ravel(), found])
        relevant = np.concatenate([self.relevant.ravel(), is_relevant])
        order = np.lexsort((-values, queries))
        starts = np.searchsorted(queries[order], np.arange(num_queries))
        kept = order[starts[:, None] + np.arange(most)]  # (num_queries, most)
        self.steps, self.relevant = values[kept], relevant[kept]
        at_last = values == self.steps[queries, -1]
        at_last[: num_queries * most] &= np.repeat(self.steps[:, -1] != last, most)
        same = self.steps[:, -1] == last  # then the earlier ties are counted already
        for name, counted in (("tied", at_last), ("tied_relevant", at_last & relevant)):
            new = np.bincount(queries[counted], minlength=num_queries)
            setattr(self, name, np.where(same, getattr(self, name), 0) + new)

    def precision(self, k: int) -> Floats:
        """Precision@K, float (num_queries,)."""
        last = self.steps[:, [k - 1]]
        above, tied = self.steps > last, self.steps == last
        at_end = last[:, 0] == self.steps[:, -1]
        num_tied = np.where(at_end, self.tied, tied.sum(axis=1))
        num_relevant = np.where(at_end, self.tied_relevant, (tied & self.relevant).sum(axis=1))
        with np.errstate(invalid="ignore", divide="ignore"):
            share = (k - above.sum(axis=1)) * num_relevant / num_tied
        precision: Floats = ((above & self.relevant).sum(axis=1) + share) / k
        return np.where(np.isfinite(last[:, 0]), precision, np.nan)
