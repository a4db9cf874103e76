import hashlib

import pytest

from medclip_keras.records.splits import require_fractions, require_split, split_of


def test_split_of_is_the_documented_hash():
    draw = int(hashlib.sha256(b"salt\0patient").hexdigest()[:16], 16) / 2**64  # SHA-256 read as a number
    for share in (draw - 1e-9, draw + 1e-9):
        expected = "train" if draw < share else "valid"
        assert split_of("patient", (share, 1 - share, 0.0), "salt") == expected


def test_split_of_gives_each_split_its_share():
    splits = [split_of(str(patient), (0.7, 0.1, 0.2)) for patient in range(20_000)]
    shares = [splits.count(name) / len(splits) for name in ("train", "valid", "test")]
    # Standard deviation of a share of 0.7: sqrt(.7 * .3 / 20,000) = 0.0032.
    assert shares == pytest.approx([0.7, 0.1, 0.2], abs=0.013)


@pytest.mark.parametrize("fractions", [(0.8, 0.2), (0.8, 0.1, 0.2), (1.2, -0.1, -0.1)])
def test_fractions_that_do_not_add_up_get_the_sentence(fractions):
    with pytest.raises(ValueError, match=r"`split_fractions` must be three shares .* add up to 1. Received"):
        require_fractions(fractions)


def test_unknown_split_gets_the_sentence():
    require_split("")
    with pytest.raises(ValueError, match="`split` must be one of train, valid, test"):
        require_split("validation")
