"""Leaks: patients and pictures that are both in the test and in the training images.

Equal pictures have equal pixels. Nearly equal ones have nearly equal hashes: the signs of the 255 lowest
frequencies of a picture, against their median, which brightness, size and compression hardly change.

Follows: Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010 (the DCT hash).
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.fft import dctn

from medclip_keras.errors import require
from medclip_keras.evaluation.arrays import Array, Batch, Floats, Ints, Strings
from medclip_keras.evaluation.embedder import strings
from medclip_keras.evaluation.sections import Section, Table

NEARLY = 24  # differing bits of 256 up to which pictures are nearly equal
MOST_NAMED = 100  # pairs
_SIDE, _KEPT = 32, 16  # of the reduced picture and of its lowest frequencies
_AT_ONCE = 4096  # training pictures compared at once

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Pictures:
    """Compact descriptions of images, for comparison."""

    record_keys: Strings  # (num_images,)
    patient_ids: Strings  # (num_images,)
    digests: Array  # (num_images,) of the pixels, bytes
    hashes: Bytes  # (num_images, 32), packed bits

    def __len__(self) -> int:
        return len(self.record_keys)


@dataclass(frozen=True)
class Leaks:
    """Counts, and the record keys of the first pairs of equal and nearly equal pictures."""

    metrics: Mapping[str, Any]


def read_pictures(batches: Iterable[Batch]) -> Pictures:
    """Read keys, patients and hashes of batches {"record_key", "patient_id", "images" (B, S, S, 1)}."""
    keys, patients, digests = [np.empty(0, np.str_)], [np.empty(0, np.str_)], [np.empty(0, "S16")]
    hashes = [np.empty((0, _KEPT * _KEPT // 8), np.uint8)]
    for batch in batches:
        images = np.asarray(batch["images"])[..., 0]
        keys.append(strings(batch["record_key"]))
        patients.append(strings(batch["patient_id"]))
        digests.append(np.array([_digest(image) for image in images], "S16"))
        hashes.append(perceptual_hashes(images))
    named = np.concatenate(keys), np.concatenate(patients)
    return Pictures(*named, np.concatenate(digests), np.concatenate(hashes))


def perceptual_hashes(images: Bytes) -> Bytes:
    """Hashes of gray images uint8 (num_images, height, width): packed bits uint8 (num_images, 32)."""
    reduced = _reduce(_reduce(images.astype(np.float32), 1), 2)  # (num_images, 32, 32)
    low = dctn(reduced, axes=(1, 2), norm="ortho")[:, :_KEPT, :_KEPT].reshape(len(images), -1)
    low[:, 0] = 0  # the mean gray
    return np.packbits(low > np.median(low[:, 1:], axis=1, keepdims=True), axis=1)


def find_leaks(test: Pictures, training: Pictures) -> Leaks:
    """Compare test images with training images.

    Raises:
        ValueError: patients of the test images are among the training images.
    """
    shared = np.intersect1d(test.patient_ids, training.patient_ids)
    advice = "Correct the splits, or leave the task leaks out: then figures are too good."
    received = f"{len(shared)} of {len(np.unique(test.patient_ids))} patients in training too"
    require(not len(shared), "test images", "of other patients than the training images", received, advice)
    equal = np.isin(test.digests, training.digests)
    distances, nearest = nearest_hashes(test.hashes, training.hashes)
    nearly = ~equal & (distances <= NEARLY)
    first = {digest: n for n, digest in reversed(list(enumerate(training.digests.tolist())))}
    partner = np.array([first.get(d, n) for d, n in zip(test.digests.tolist(), nearest, strict=True)], int)
    order = np.argsort(np.where(equal, -1, distances), kind="stable")
    named = [row for row in order if equal[row] or nearly[row]][:MOST_NAMED]
    pairs = [
        [
            str(test.record_keys[n]),
            str(training.record_keys[partner[n]]),
            0 if equal[n] else int(distances[n]),
        ]
        for n in named
    ]
    return Leaks(
        {
            "num_test_images": len(test.record_keys),
            "num_training_images": len(training.record_keys),
            "shared_patients": 0,
            "equal_pictures": int(equal.sum()),
            "nearly_equal_pictures": int(nearly.sum()),
            "nearly_equal_bits": NEARLY,
            "least_distance": int(distances.min()) if len(distances) and len(training.record_keys) else None,
            "pairs": pairs,
        }
    )


def nearest_hashes(hashes: Bytes, others: Bytes) -> tuple[Ints, Ints]:
    """Number of differing bits of the nearest of the others, and its row: int (num_images,) each."""
    signs, num_bits = _signs(hashes), 8 * hashes.shape[1]
    distances, rows = np.full(len(hashes), num_bits + 1), np.zeros(len(hashes), int)
    for start in range(0, len(others), _AT_ONCE):
        differing = (num_bits - signs @ _signs(others[start : start + _AT_ONCE]).T) / 2
        best = differing.argmin(axis=1)
        found = differing[np.arange(len(hashes)), best]
        rows = np.where(found < distances, best + start, rows)
        distances = np.minimum(distances, found.astype(int))
    return distances, rows


def _signs(hashes: Bytes) -> Floats:
    """Bits as -1 and 1: the inner product of two is the number of equal bits less that of differing ones."""
    return np.unpackbits(hashes, axis=1).astype(np.float32) * 2 - 1


def _reduce(images: Floats, axis: int) -> Floats:
    """Mean over 32 equal parts of an axis; a smaller picture is repeated first."""
    images = np.repeat(images, -(-_SIDE // images.shape[axis]), axis)
    edges = np.linspace(0, images.shape[axis], _SIDE + 1).astype(int)
    sums: Floats = np.add.reduceat(images, edges[:-1], axis=axis)
    shape = [1, 1, 1]
    shape[axis] = _SIDE
    means: Floats = sums / np.diff(edges).reshape(shape)
    return means


def _digest(image: Bytes) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(image).tobytes(), digest_size=8).hexdigest().encode()


def leaks_section(result: Leaks) -> Section:
    """Counts; the pairs are in metrics.json alone."""
    found = result.metrics
    rows = (
        ("patients in both", str(found["shared_patients"])),
        ("test images with an equal training image", str(found["equal_pictures"])),
        ("test images with a nearly equal training image", str(found["nearly_equal_pictures"])),
    )
    caption = (
        f"{found['num_test_images']} test images against {found['num_training_images']} training images;"
        f" nearly equal: up to {found['nearly_equal_bits']} of 256 bits of a perceptual hash differ."
    )
    notes = ("Record keys of the pairs are in metrics.json.",) if found["pairs"] else ()
    return Section(
        "leaks",
        "Were test images seen in training?",
        "Patients and pictures that stand among the training images too would make every figure too good.",
        (Table(caption, ("leak", "number"), rows),),
        (),
        notes,
    )
