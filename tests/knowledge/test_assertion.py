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
]


@pytest.mark.parametrize(("text", "expected"), SENTENCES)
def test_findings_of_a_sentence_are_asserted_as_a_radiologist_means_them(extractor, text, expected):
    found = {(m.name, SIGNS[m.assertion]) for m in extractor.mentions(text, "findings")}
    assert found == {tuple(pair.split(": ")) for pair in expected.split(", ")}
