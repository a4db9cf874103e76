"""Assertions of the sentences in `readings.csv`: + positive, - negative, ? uncertain, < historical."""

import csv
import pathlib

import pytest

with pathlib.Path(__file__).with_name("readings.csv").open(encoding="utf-8", newline="") as file:
    SENTENCES = [(row["text"], row["findings"]) for row in csv.DictReader(file)]


@pytest.mark.parametrize(("text", "expected"), SENTENCES)
def test_assertions_of_a_sentence(said, extractor, text, expected):
    pairs = (pair.split(": ") for pair in expected.split(", ") if pair)
    assert said(extractor, text) == {name: "".join(sorted(signs)) for name, signs in pairs}


def explained(extractor, text):
    """Finding → the words of its cue and of its scope."""
    return {
        m.name: tuple(text[slice(*span)] if span else None for span in (m.cue_span, m.scope))
        for m in extractor.mentions(text, "findings")
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # ahead, up to a word at which every scope ends; offsets are those of the section, not of the sentence
        (
            "Clear. No pneumothorax or left effusion, but the heart is enlarged.",
            {
                "Pneumothorax": ("No", "pneumothorax or left effusion"),
                "Pleural Effusion": ("No", "pneumothorax or left effusion"),
                "Cardiomegaly": (None, None),
            },
        ),
        ("No mass with effusion.", {"Mass": ("No", "mass"), "Pleural Effusion": (None, None)}),
        # a new clause, a list
        (
            "No mass, nodule or edema and there is an effusion.",
            {
                **dict.fromkeys(("Mass", "Nodule", "Edema"), ("No", "mass, nodule or edema")),
                "Pleural Effusion": (None, None),
            },
        ),
        (
            "No sign of opacity consistent with edema.",
            {**dict.fromkeys(("Lung Opacity", "Edema"), ("No", "sign of opacity consistent with edema"))},
        ),
        # back, to the beginning of its statement
        (
            "Heart is large; mass and edema are not seen today.",
            {
                "Cardiomegaly": (None, None),
                **dict.fromkeys(("Mass", "Edema"), ("not seen", "mass and edema are")),
            },
        ),
        (
            "A mass is seen, an effusion not seen.",
            {"Mass": (None, None), "Pleural Effusion": ("not seen", "an effusion")},
        ),
        # both ways
        (
            "Opacity: edema versus mass; no effusion",
            {
                "Lung Opacity": (None, None),
                **dict.fromkeys(("Edema", "Mass"), ("versus", "edema versus mass")),
                "Pleural Effusion": ("no", "effusion"),
            },
        ),
        # as far as its kind reaches
        (
            "Prior exam of one two three four five nodules; prior one two three four five nodules.",
            {"Nodule": (None, None)},
        ),
        # a comma of its own
        (
            "In the appropriate clinical setting, this is pneumonia.",
            {"Pneumonia": ("In the appropriate clinical setting", "this is pneumonia")},
        ),
        # a statement of normality and an open phrase need no cue
        ("Heart size is normal. Nodular shadow.", {"Cardiomegaly": (None, None), "Nodule": (None, None)}),
    ],
)
def test_mention_has_cue_and_scope(extractor, text, expected):
    assert explained(extractor, text) == expected


def test_every_finding_overlaps_the_scope_of_its_cue(extractor):
    for text, _ in SENTENCES:
        for mention in extractor.mentions(text, "findings"):
            if mention.scope is None:
                assert (mention.cue, mention.cue_span) == ("", None)
                continue
            begin, end = mention.scope
            assert begin < mention.end
            assert mention.start < end
            assert text[slice(*mention.cue_span)].lower()[0] == mention.cue[0]
