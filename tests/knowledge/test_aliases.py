import pytest

from medclip_keras.knowledge.aliases import (
    ABSENT,
    EXCLUDED,
    OPEN,
    PRESENT,
    alternatives,
    parse_alias,
    words_of,
)


def test_words_of_normalises_and_keeps_offsets():
    text = "Air-space opacities, w/o oedema - tumours (1.5 cm)"
    words, offsets = words_of(text)
    assert words == [*("air", "space", "opacity", ",", "w/o", "edema", "-", "tumor", "(", "1.5", "cm", ")")]
    assert [text[start:end] for start, end in offsets][:3] == ["Air", "space", "opacities"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("R/O or W/O", ["r/o", "or", "w/o"]),
        ("Tube d/c'd", ["tube", "d/c'd"]),
        ("edema vs. mass.", ["edema", "vs", "mass", "."]),
        ("Lt. and rt. base", ["lt", "and", "rt", "base"]),
        ("Haemo-pneumothorax", ["hemopneumothorax"]),
        ("right-sided mass - no edema", ["right", "sided", "mass", "-", "no", "edema"]),
        ("XXXX nodules, ___", ["xxxx", "nodule", ","]),
    ],
)
def test_words_of_abbreviations_hyphens_and_masks(text, words):
    assert words_of(text)[0] == words


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("pneumothoraces", "Pneumothorax"),
        ("HAEMOTHORAX", "hemothorax"),
        ("masses", "mass"),
        ("bases", "base"),
        ("represents", "represent"),
        ("catheters", "catheter"),
    ],
)
def test_inflections_and_spellings_are_normalised_alike(one, other):
    assert words_of(one)[0] == words_of(other)[0]


@pytest.mark.parametrize("word", ["atelectasis", "was", "thickness", "focus", "this"])
def test_final_s_of_a_singular_is_kept(word):
    assert words_of(word)[0] == [word]


def test_parse_alias_reads_signs_parts_and_alternatives():
    assert parse_alias("!joint effusion").role == EXCLUDED
    assert parse_alias("~heart is normal").role == ABSENT
    assert parse_alias("?nodular opacity").role == OPEN
    whole = parse_alias("^normal")
    assert (whole.role, whole.parts, whole.text) == (PRESENT, (("normal",),), "^normal")
    alias = parse_alias("(big|large|) heart + (seen|noted)")
    assert alias.role == PRESENT
    assert alias.parts == (("big heart", "large heart", "heart"), ("seen", "noted"))


@pytest.mark.parametrize("text", ["", "!", "?", "^", "heart + ", "a (b|) + (|c)"])
def test_aliases_without_a_word_are_refused(text):
    with pytest.raises(ValueError, match="must be phrases with a word in every part"):
        parse_alias(text)


@pytest.mark.parametrize("text", ["(left|right effusion", "left|right effusion", "left) effusion"])
def test_unbalanced_brackets_are_refused(text):
    with pytest.raises(ValueError, match=r"alternatives as \(one\|two\)"):
        alternatives(text)
