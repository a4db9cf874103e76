"""Leaks between splits, within and over folders of records: patients, equal pictures, nearly equal pictures.

Of every record a validation keeps its `marks`, with its picture in 16 x 16 gray values. Two pictures are
nearly equal if these correlate by more than 0.995, as a picture does with itself saved anew as JPEG, resized,
or a little brighter. Pictures of two patients do not: the most alike of 1,372 radiographs of ChestX-ray14
correlate by 0.973, of Kermany's 1,200 by 0.980. A picture that is cropped or turned is another one here.

Patients of two folders are compared where identifiers mean the same: in one archive, or in related ones, with
keys of one salt.
"""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from beam_jobs.validation.anomalies import Anomaly, leak
from beam_jobs.validation.marks import Marks
from medclip_keras.records.splits import SPLITS

NEARLY_EQUAL = 0.995
_POOLED = 8  # side of the first, coarser comparison
_ROUNDING = 1e-5  # of a product in float32
_AT_ONCE = 4096  # pictures that are compared with as many


def find_leaks(folders: Sequence[Marks], within: bool = True) -> list[Anomaly]:
    """Anomalies of patients and pictures in several splits, between the folders and `within` each.

    Within a folder they are nearly equal pictures: its statistics show the others.
    """
    found: list[Anomaly] = []
    for first, one in enumerate(folders):
        for other in folders[first + (not within) :]:
            for split, other_split in itertools.permutations(range(len(SPLITS)), 2):
                if one is not other or split < other_split:
                    found += _leaks_between(one, split, other, other_split)
    return found


def _leaks_between(one: Marks, split: int, other: Marks, other_split: int) -> Iterator[Anomaly]:
    marks = one.marks[one.marks["split"] == split]
    others = other.marks[other.marks["split"] == other_split]
    where = f"{SPLITS[split]} of {one.directory}", f"{SPLITS[other_split]} of {other.directory}"
    if one is not other and one.namespace == other.namespace:
        yield from _shared(marks, others, "patient", "patient_id", where)
    if one is not other:
        yield from _shared(marks, others, "picture", "image", where)
    pairs = np.array(list(near_pairs(marks[marks["seen"]], others[others["seen"]])), np.uint64).reshape(-1, 2)
    if len(pairs):
        yield leak("nearly_equal", "image", len(np.unique(pairs[:, 1])), where, _keys(pairs[:, 0]))


def _shared(
    marks: np.ndarray, others: np.ndarray, name: str, feature: str, where: tuple[str, str]
) -> Iterator[Anomaly]:
    shared = np.intersect1d(marks[name], others[name])
    shared = shared[shared > 0]
    if len(shared):
        yield leak(name, feature, len(shared), where, _keys(marks["key"][np.isin(marks[name], shared)]))


def _keys(keys: np.ndarray) -> list[str]:
    return [f"{key:016x}" for key in np.unique(keys)[:3].tolist()]


def near_pairs(marks: np.ndarray, others: np.ndarray) -> Iterator[tuple[int, int]]:
    """Keys of nearly equal pictures, one of each; equal ones are left out."""
    for start in range(0, len(marks), _AT_ONCE):
        some = marks[start : start + _AT_ONCE]
        vectors = _normalise(some["reduced"])
        for other_start in range(0, len(others), _AT_ONCE):
            yield from _near_pairs(some, vectors, others[other_start : other_start + _AT_ONCE])


def _near_pairs(some: np.ndarray, vectors: np.ndarray, more: np.ndarray) -> Iterator[tuple[int, int]]:
    """Pairs in two chunks. Pooling moves no two vectors apart: it finds all candidates at a quarter the cost.

    With |a - b|² = |a|² + |b|² - 2 a·b, of pooled a and b at most 2 - 2 NEARLY_EQUAL, as one product.
    """
    others = _normalise(more["reduced"])
    a, b = _pool(vectors), _pool(others)
    left = np.column_stack([2 * a, -(a**2).sum(1), np.full(len(a), -1, np.float32)])
    right = np.column_stack([b, np.ones(len(b), np.float32), (b**2).sum(1)])
    candidates = np.flatnonzero(left @ right.T > 2 * NEARLY_EQUAL - 2 - _ROUNDING)
    for i, j in zip(*np.divmod(candidates, len(b)), strict=True):
        if vectors[i] @ others[j] > NEARLY_EQUAL and some["picture"][i] != more["picture"][j]:
            yield int(some["key"][i]), int(more["key"][j])


def _normalise(reduced: np.ndarray) -> np.ndarray:
    """(n, 16, 16) to float32 (n, 256), of mean 0 and length 1."""
    vectors = reduced.reshape(len(reduced), -1).astype(np.float32)
    vectors -= vectors.mean(axis=1, keepdims=True)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)


def _pool(vectors: np.ndarray) -> np.ndarray:
    """Project (n, 256) onto means of 2 x 2 values: (n, 64), lengths at most as before."""
    parts = vectors.reshape(len(vectors), _POOLED, 2, _POOLED, 2)
    return parts.sum(axis=(2, 4)).reshape(len(vectors), -1) / 2
