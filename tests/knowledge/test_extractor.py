import json
import pathlib
import pickle

import pytest

from medclip_keras.knowledge.aliases import words_of
from medclip_keras.knowledge.concepts import Concept, ConceptTable
from medclip_keras.knowledge.extractor import Extractor


def test_mention_has_offsets_cue_and_concept(extractor):
    text = "1. The heart is large.\n2. There is no left pleural effusion or pneumothorax."
    mentions = extractor.mentions(text, "impression")
    assert [(m.name, text[m.start : m.end], m.assertion, m.cue) for m in mentions] == [
        ("Cardiomegaly", "heart is large", "positive", ""),
        ("Pleural Effusion", "pleural effusion", "negative", "no"),
        ("Pneumothorax", "pneumothorax", "negative", "no"),
    ]
    assert {m.section for m in mentions} == {"impression"}
    assert [m.cui for m in mentions] == ["C0018800", "C0032227", "C0032326"]


def test_repeated_sentences_keep_their_own_offsets(extractor):
    text = "No effusion. Heart large. No effusion."
    spans = [(m.start, m.end) for m in extractor.mentions(text, "body") if m.name == "Pleural Effusion"]
    assert spans == [(3, 11), (29, 37)]
    assert [text[start:end] for start, end in spans] == ["effusion", "effusion"]


def test_a_repeated_sentence_is_read_once(monkeypatch):
    read, reading = [], Extractor._read_sentence
    monkeypatch.setattr(Extractor, "_read_sentence", lambda *a: read.append(a[1]) or reading(*a))
    one = Extractor(ConceptTable("one", (Concept("C0034063", "Edema"),)))
    assert len(one.mentions("Edema. None. Edema.", "findings")) == 2
    assert read == ["Edema.", "None."]


def test_negation_ends_with_its_sentence_and_clause(said, extractor):
    assert said(extractor, "No effusion. Pneumothorax.") == {"Pleural Effusion": "-", "Pneumothorax": "+"}
    assert said(extractor, "No effusion but pneumothorax.") == {"Pleural Effusion": "-", "Pneumothorax": "+"}
    assert said(extractor, "No effusion or pneumothorax.") == {"Pleural Effusion": "-", "Pneumothorax": "-"}


def test_case_spelling_and_hyphens_do_not_matter(said, extractor):
    for text in ("INTERSTITIAL EDEMA", "Interstitial oedema", "interstitial-edema", "interstitial\nedema"):
        assert said(extractor, text) == {"Edema": "+"}


def test_longest_phrase_wins(said, extractor):
    assert said(extractor, "Nodular lesion of the lung.") == {"Nodule": "+"}
    assert said(extractor, "Nodular density.") == {"Nodule": "?"}
    assert said(extractor, "Opacity and a nodule.") == {"Lung Opacity": "+", "Nodule": "+"}


def test_uncertain_alias_does_not_cover_other_concepts(said, extractor):
    assert said(extractor, "Nodular opacity.") == {"Nodule": "?", "Lung Opacity": "+"}
    assert said(extractor, "No nodular opacity.") == {"Nodule": "-", "Lung Opacity": "-"}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The heart, seen on both views, is enlarged.", {"Cardiomegaly": "+"}),
        ("The heart, lungs, and mediastinum are enlarged.", {"Enlarged Cardiomediastinum": "+"}),
        ("The heart, and the aorta is enlarged.", {}),
        ("The heart lies behind the sternum as before and the aorta is enlarged.", {}),  # too far apart
    ],
)
def test_parts_of_an_alias_may_enclose_one_phrase_in_commas(said, extractor, text, found):
    assert said(extractor, text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Normal.", {"No Finding": "+"}),
        ("Essentially normal", {"No Finding": "+"}),
        ("Normal aorta.", {}),
        ("Aorta is normal.", {}),
    ],
)
def test_whole_sentence_alias_matches_no_part_of_a_sentence(said, extractor, text, found):
    assert said(extractor, text) == found


def test_overlapping_aliases_give_one_mention(extractor):
    mentions = extractor.mentions("The heart shows cardiac enlargement.", "findings")
    assert [m.name for m in mentions] == ["Cardiomegaly"]


def test_negation_does_not_apply_to_no_finding(said, extractor):
    assert said(extractor, "No effusion and no acute disease.") == {
        "Pleural Effusion": "-",
        "No Finding": "+",
    }


def test_custom_table_is_extracted(said):
    table = ConceptTable(
        "bones",
        (
            Concept(
                "C0000001", "Scoliosis", ("(curved|crooked) spine", "spine + curvature", "!no curvature")
            ),
            Concept("C0000002", "Osteopenia", ("~normal bone density",)),
        ),
    )
    extractor = Extractor(table)
    assert said(extractor, "Scoliosis.") == {"Scoliosis": "+"}  # the name itself is an alias
    assert said(extractor, "A crooked spine.") == {"Scoliosis": "+"}
    assert said(extractor, "Curvature of the spine, no osteopenia.") == {"Scoliosis": "+", "Osteopenia": "-"}
    assert said(extractor, "Curvature is seen, the spine is not.") == {}  # a comma apart
    assert said(extractor, "Normal bone density.") == {"Osteopenia": "-"}
    assert said(extractor, "Not a normal bone density.") == {}


def test_extractor_can_be_pickled(said, extractor):
    copy = pickle.loads(pickle.dumps(extractor))
    assert said(copy, "No effusion.") == {"Pleural Effusion": "-"}
    assert copy.table == extractor.table


def test_extractor_limited_to_words_gives_equal_mentions(extractor):
    # All phenomena in a few texts, so that many phrases are left out and many are not.
    lines = (pathlib.Path(__file__).parent / "challenge.jsonl").read_text().splitlines()
    texts = [json.loads(line)["text"] for line in lines]
    for part in range(0, len(texts), 20):
        text = "\n\n".join(texts[part : part + 20])
        words = frozenset(words_of(text)[0])
        quick = Extractor(extractor.table, words=words)
        assert quick.mentions(text, "findings") == extractor.mentions(text, "findings")
        assert len(quick._uses) < len(extractor._uses) / 10  # that is what makes it quick
