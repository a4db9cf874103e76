"""The scope of denials and hedges in whole sentences: + there, - denied, ? open, < past or resolved."""

import pytest

SIGNS = {"positive": "+", "negative": "-", "uncertain": "?", "historical": "<"}

SENTENCES = [
    ("Pneumothorax and effusion have both resolved.", "Pneumothorax: <, Pleural Effusion: <"),
    ("The effusion is resolved.", "Pleural Effusion: <"),
    ("I cannot see a pneumothorax.", "Pneumothorax: -"),
    ("A pneumothorax could not be identified.", "Pneumothorax: -"),
    ("We do not see any effusion.", "Pleural Effusion: -"),
    ("Failed to demonstrate a fracture.", "Fracture: -"),
    ("The lungs are clear.", "Lung Opacity: -"),
    ("Biapical pleural thickening.", "Pleural Thickening: +"),
    ("The lungs are clear of infiltrate.", "Infiltration: -"),
    ("There is possible consolidation.", "Consolidation: ?"),
    ("There is a questionable nodule in the right base.", "Nodule: ?"),
    ("This is a possible nodule.", "Nodule: ?"),
    ("Pneumothorax is possible and an effusion is seen.", "Pneumothorax: ?, Pleural Effusion: +"),
    ("Probable nodule.", "Nodule: +"),
    ("The cardiothoracic ratio is normal.", "Cardiomegaly: -"),
    ("Cardiothoracic ratio within normal limits.", "Cardiomegaly: -"),
    (
        "No enlargement of the cardiac silhouette, effusion, or fracture.",
        "Cardiomegaly: -, Pleural Effusion: -, Fracture: -",
    ),
    ("No interval enlargement of the effusion.", "Pleural Effusion: +"),
    ("No increase in the left effusion.", "Pleural Effusion: +"),
    ("The heart is not significantly increased in size.", "Cardiomegaly: -"),
    ("No suspicious nodule, no pneumothorax.", "Nodule: -, Pneumothorax: -"),
    ("Neither suspicious nodule nor effusion is seen.", "Nodule: -, Pleural Effusion: -"),
    ("Suspicious nodule in the right lung.", "Nodule: +"),
    ("No suspicion of fracture, no pneumothorax.", "Fracture: -, Pneumothorax: -"),
    ("Possible effusion, no pneumothorax.", "Pleural Effusion: ?, Pneumothorax: -"),
    ("Possible small effusion without edema.", "Pleural Effusion: ?, Edema: -"),
    ("The heart may not be enlarged.", "Cardiomegaly: ?"),
    ("Bilateral hydrothoraces.", "Pleural Effusion: +"),
    ("Haemothoraces and pneumothoraces.", "Pleural Effusion: +, Pneumothorax: +"),
    ("Atelectasis is favoured over pneumonia.", "Atelectasis: +, Pneumonia: ?"),
    ("Atelectasis is more likely than pneumonia.", "Atelectasis: +, Pneumonia: ?"),
    ("Lungs with emphysema, possible fibrosis at the bases.", "Emphysema: +, Fibrosis: ?"),
    ("Small effusion and questionable edema.", "Pleural Effusion: +, Edema: ?"),
    ("Enlarged cardiac silhouette, pericardial effusion not excluded.", "Cardiomegaly: +"),
    ("Most suggestive of atelectasis.", "Atelectasis: +"),
    ("Suggestive of atelectasis.", "Atelectasis: ?"),
    ("Effusion after tube removal.", "Pleural Effusion: +, Support Devices: <"),
]


@pytest.mark.parametrize(("text", "expected"), SENTENCES)
def test_findings_of_a_sentence_are_asserted_as_a_radiologist_means_them(extractor, text, expected):
    found = {(m.name, SIGNS[m.assertion]) for m in extractor.mentions(text, "findings")}
    assert found == {tuple(pair.split(": ")) for pair in expected.split(", ")}


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
            {
                **dict.fromkeys(("Lung Opacity", "Edema"), ("No", "sign of opacity consistent with edema")),
            },
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
        (
            "Heart size is normal. Nodular shadow.",
            {"Cardiomegaly": (None, None), "Nodule": (None, None)},
        ),
    ],
)
def test_a_mention_knows_its_cue_and_what_the_cue_reaches(extractor, text, expected):
    assert explained(extractor, text) == expected


def test_every_finding_lies_in_the_scope_that_decides_it(extractor):
    for text, _ in SENTENCES:
        for mention in extractor.mentions(text, "findings"):
            if mention.scope is None:
                assert (mention.cue, mention.cue_span) == ("", None)
                continue
            begin, end = mention.scope
            assert begin < mention.end
            assert mention.start < end
            assert text[slice(*mention.cue_span)].lower()[0] == mention.cue[0]
