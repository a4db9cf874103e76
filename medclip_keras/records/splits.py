"""Split of a patient, by hash: equal in every job, on any machine."""

import hashlib
from collections.abc import Sequence

from medclip_keras.errors import require

SPLITS = ("train", "valid", "test")
DEFAULT_FRACTIONS = (0.8, 0.1, 0.1)


def split_of(patient_id: str, fractions: Sequence[float] = DEFAULT_FRACTIONS, salt: str = "") -> str:
    """Split of a patient (train, valid or test), and of all images and reports of that patient.

    SHA-256 of salt and patient, read as a number u in [0, 1): train if u < fractions[0], valid if
    u < fractions[0] + fractions[1], else test. Equal in every job with the same salt and fractions.

    Args:
        patient_id: as the source names the patient.
        fractions: of train, valid, test; they add up to 1.
        salt: another salt gives another split of the patients.

    >>> [split_of(patient, (0.5, 0.25, 0.25)) for patient in ("1", "2", "3", "4")]
    ['train', 'test', 'valid', 'train']
    """
    digest = hashlib.sha256(f"{salt}\0{patient_id}".encode()).digest()
    # A float holds 53 bits exactly, so that u stays below 1.
    draw = (int.from_bytes(digest[:8], "big") >> 11) / 2**53
    if draw < fractions[0]:
        return "train"
    # Rounding must not put patients into a test split of fraction 0.
    return "valid" if draw < fractions[0] + fractions[1] or fractions[2] == 0 else "test"


def require_fractions(fractions: Sequence[float]) -> None:
    """Raises the error sentence unless `fractions` are three shares of a whole."""
    meant = len(fractions) == 3 and all(0 <= share <= 1 for share in fractions)
    require(
        meant and abs(sum(fractions) - 1) < 1e-6,
        "split_fractions",
        "three shares (train, valid, test) that add up to 1",
        tuple(fractions),
        "Example: 0.8,0.1,0.1.",
    )


def require_split(split: str) -> None:
    """Raises the error sentence unless `split` is one of ours, or "" (none published)."""
    require(split in ("", *SPLITS), "split", f"one of {', '.join(SPLITS)}, or empty", split)
