"""The wide table: what it carries over from PadChest, its tree, and that its words are found."""

import itertools
import re

import pytest

from medclip_keras.knowledge.aliases import PRESENT, parse_alias
from medclip_keras.knowledge.concepts import NO_FINDING, load_table
from medclip_keras.knowledge.extractor import Extractor
from medclip_keras.knowledge.labeller import ReportLabeller
from medclip_keras.knowledge.sections import Section
from medclip_keras.knowledge.states import LabelState

# PadChest's CUIs that are no finding: quality of the image, a heading of the tree, a doubt about COVID-19.
LEFT_OUT = {"C2828075", "C0436485", "C5203671"}


@pytest.fixture(scope="module")
def table():
    return load_table("thorax")


@pytest.fixture(scope="module")
def wide(table):
    return Extractor(table)


@pytest.fixture(scope="module")
def labeller(table):
    return ReportLabeller(table)


@pytest.fixture(scope="module")
def padchest(medclip_data):
    """(label, CUI or None, first label above it) of each node of PadChest's tree of terms."""
    nodes, path = [], []
    text = (medclip_data / "padchest_terms" / "tree_term_CUI_counts.csv").read_text()
    for line in text.splitlines():
        branch, label, cui = re.match(r"([│├└─\s]*)(.+?) \[(?:CUI:(C\d{7}), )?counts", line).groups()
        path = [*path[: len(branch) // 4], label]
        nodes.append((label, cui, path[0]))
    return nodes


def ancestors(table, name):
    """A name and all above it, by a recursion of its own."""
    parents = table.concepts[table.names.index(name)].parents
    return {name}.union(*(ancestors(table, parent) for parent in parents))


def phrases_of(concept, most=12):
    """Phrases that name a concept, of long lists some from all over."""
    for text in concept.aliases:
        alias = parse_alias(text)
        if alias.role == PRESENT:
            phrases = [" ".join(parts) for parts in itertools.product(*alias.parts)]
            yield from phrases[:: 1 + len(phrases) // most]


def test_thorax_begins_with_chest21(table):
    small = load_table("chest21")
    assert table.names[:21] == small.names
    assert table.cuis[:21] == small.cuis


def test_thorax_keeps_the_parents_of_chest21(table):
    small = load_table("chest21")
    for name in small.names:
        assert ancestors(small, name) <= ancestors(table, name)
    assert len(table.order) == len(table)


def test_thorax_has_exactly_the_findings_of_padchest(table, padchest):
    findings = {cui for _, cui, top in padchest if cui and top != "localization"}
    places = {cui for _, cui, top in padchest if cui and top == "localization"}
    small = load_table("chest21")
    ours = {cui for concept in table.concepts for cui in (concept.cui, *concept.equivalents)}
    assert len(findings) > 150
    assert findings - ours == LEFT_OUT
    assert ours - findings <= set(small.cuis)
    assert not places & ours
    own = [c for c in table.concepts if not findings.intersection((c.cui, *c.equivalents))]
    assert [c.name for c in own] == ["Lung Lesion", "Pleural Other", "Support Devices"]
    assert len(table) == len(findings - LEFT_OUT) + len(own)


def test_each_name_and_first_alias_is_found_and_denied(table, wide):
    failures = []
    for concept in table.concepts:
        if concept.name == NO_FINDING:
            continue
        first = next(phrases_of(concept))
        for phrase, (start, expected) in itertools.product(
            (concept.name, first), (("There is", "positive"), ("No", "negative"))
        ):
            mentions = wide.mentions(f"{start} {phrase}.", "findings")
            found = {m.assertion for m in mentions if m.name == concept.name}
            if found != {expected}:
                failures.append((concept.name, start, phrase, found))
    assert not failures


def test_thorax_finds_what_chest21_finds_or_a_descendant(table, wide, extractor):
    failures = []
    for concept in extractor.table.concepts:
        for phrase in phrases_of(concept):
            sentence = f"There is {phrase}."
            narrow = {m.name for m in extractor.mentions(sentence, "findings") if m.assertion == "positive"}
            found = [m.name for m in wide.mentions(sentence, "findings") if m.assertion == "positive"]
            missing = narrow - set().union(*(ancestors(table, name) for name in found))
            if missing:
                failures.append((phrase, missing))
    assert not failures


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("Moderate pericardial effusion.", {"Pericardial Effusion"}),
        ("Subcutaneous emphysema of the neck.", {"Subcutaneous Emphysema"}),
        ("Small hydropneumothorax.", {"Hydropneumothorax", "Pneumothorax", "Pleural Effusion"}),
        ("COVID-19 pneumonia.", {"COVID-19", "Viral Pneumonia", "Pneumonia"}),
        ("Loculated right effusion.", {"Loculated Pleural Effusion", "Pleural Effusion"}),
        ("Old healed rib fractures.", {"Rib Fracture Callus", "Rib Fracture", "Fracture"}),
        ("Dual-lead pacemaker.", {"Dual Chamber Device", "Pacemaker", "Support Devices"}),
        ("Right internal jugular central line.", {"Jugular Central Venous Catheter", "Support Devices"}),
        ("Mediastinal lymphadenopathy.", {"Adenopathy", "Enlarged Cardiomediastinum"}),
        ("Calcified granuloma.", {"Calcified Granuloma", "Granuloma", "Calcification"}),
        ("Stable postradiation changes.", {"Post Radiotherapy Changes"}),
        ("Compression deformity of T12.", {"Vertebral Compression", "Vertebral Fracture", "Fracture"}),
        ("Congestive heart failure.", {"Heart Failure"}),
        ("Kyphoscoliosis.", {"Scoliosis", "Kyphosis"}),
        ("Status post median sternotomy and CABG.", {"Sternotomy", "Heart Surgery"}),
        ("Diffuse ground-glass opacities.", {"Ground Glass Opacity", "Lung Opacity"}),
        ("Air bronchograms.", {"Air Bronchogram", "Consolidation", "Alveolar Pattern", "Lung Opacity"}),
        ("Prosthetic aortic valve.", {"Artificial Aortic Valve", "Prosthesis", "Support Devices"}),
    ],
)
def test_sentence_implies_concepts_and_their_ancestors(table, wide, sentence, expected):
    mentions = wide.mentions(sentence, "findings")
    assert {m.assertion for m in mentions} == {"positive"}
    assert expected <= set().union(*(ancestors(table, m.name) for m in mentions))


@pytest.mark.parametrize(
    ("sentence", "not_meant"),
    [
        ("Moderate pericardial effusion.", "Pleural Effusion"),
        ("Subcutaneous emphysema of the neck.", "Emphysema"),
        ("Calcified granuloma.", "Nodule"),
        ("Degenerative changes of the right shoulder.", "Vertebral Degenerative Changes"),
        ("Aortic valve calcification.", "Aortic Calcification"),
        ("Straightening of the normal kyphosis.", "Kyphosis"),
        ("Chronic obstructive pulmonary disease.", "Chronic Changes"),
        ("Breast abscess.", "Lung Abscess"),
        ("Carotid artery aneurysm.", "Aortic Aneurysm"),
        ("Noncalcified nodule.", "Calcified Granuloma"),
        ("The trachea is midline.", "Mediastinal Shift"),
        ("Mass effect on the trachea.", "Mass"),
        ("Congestive heart failure.", "Edema"),
    ],
)
def test_similar_phrase_does_not_imply_a_concept(table, wide, sentence, not_meant):
    mentions = wide.mentions(sentence, "findings")
    found = [m.name for m in mentions if m.assertion == "positive"]
    assert not_meant not in set().union(*(ancestors(table, name) for name in found))


@pytest.mark.parametrize(
    ("sentence", "denied"),
    [
        ("Pulmonary vascularity is within normal limits.", "Pulmonary Venous Congestion"),
        ("The hila are unremarkable.", "Hilar Enlargement"),
        ("Costophrenic angles are sharp.", "Costophrenic Angle Blunting"),
        ("The mediastinum is midline.", "Mediastinal Shift"),
        ("The lungs are well inflated.", "Volume Loss"),
        ("The osseous structures are intact.", "Fracture"),
        ("The thoracic aorta is normal in caliber.", "Aortic Aneurysm"),
    ],
)
def test_normal_sentence_negates_a_concept(wide, sentence, denied):
    found = {m.name: m.assertion for m in wide.mentions(sentence, "findings")}
    assert found[denied] == "negative"


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("Normal chest. Tip of the PICC line in the SVC. Median sternotomy.", False),
        ("Normal chest. Tip of the PICC line in the SVC.", True),
        ("Normal chest. Dual chamber pacemaker.", True),
        ("Normal chest. Calcified granuloma.", False),
    ],
)
def test_support_devices_leave_a_chest_normal(table, labeller, text, normal):
    labels = labeller.label([Section("findings", text)])
    assert (labels.states[table.index(NO_FINDING)] == LabelState.POSITIVE) == normal
