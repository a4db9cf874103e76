import pytest

from medclip_keras.knowledge.abbreviations import definitions
from medclip_keras.knowledge.concepts import load_table
from medclip_keras.knowledge.labeller import ReportLabeller
from medclip_keras.knowledge.sections import Section


@pytest.mark.parametrize(
    ("text", "meanings"),
    [
        ("Left pleural effusion (PE).", {"PE": ("pleural", "effusion")}),
        ("Right-lower-lobe (RLL) nodules (see CT).", {"RLL": ("right", "lower", "lobe")}),
        ("Enlarged heart (CXR).", {}),
        ("Effusion (PE).", {}),
        ("No brackets.", {}),
    ],
)
def test_definitions_are_the_words_before_the_bracket(text, meanings):
    assert definitions(text) == meanings


def test_defined_abbreviation_is_a_mention_at_its_own_offsets(extractor):
    text = "Right pleural effusion (PE) and lung nodule (LN). No left PE, the LN is new."
    mentions = extractor.mentions(text, "findings")
    assert [(m.name, text[m.start : m.end], m.assertion) for m in mentions] == [
        ("Pleural Effusion", "pleural effusion", "positive"),
        ("Pleural Effusion", "PE", "positive"),
        ("Nodule", "nodule", "positive"),
        ("Nodule", "LN", "positive"),
        ("Pleural Effusion", "PE", "negative"),
        ("Nodule", "LN", "positive"),
    ]


def test_definition_does_not_apply_to_other_reports(extractor):
    assert extractor.mentions("Small pleural effusion (PE). PE.", "findings")[2:]
    assert extractor.mentions("No PE.", "findings") == ()


def test_impression_uses_definitions_of_the_findings():
    labels = ReportLabeller(load_table("chest21")).label(
        [Section("findings", "No pleural effusion (PE)."), Section("impression", "Small PE.")]
    )
    assert [(m.section, m.assertion) for m in labels.mentions][-1] == ("impression", "positive")
