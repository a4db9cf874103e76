import dataclasses

import numpy as np
import pytest

from medclip_keras.knowledge.aliases import parse_alias
from medclip_keras.knowledge.concepts import Concept, ConceptTable, close_over_parents, load_table
from medclip_keras.knowledge.states import LabelState

NONE, POS, NEG, UNC = (LabelState(k) for k in range(4))

CHEXPERT = (
    *("No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Lesion", "Lung Opacity", "Edema"),
    *("Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other"),
    *("Fracture", "Support Devices"),
)
MORE = ("Infiltration", "Mass", "Nodule", "Emphysema", "Fibrosis", "Pleural Thickening", "Hernia")


def test_shipped_tables_are_ordered_as_designed():
    assert load_table("chexpert14").names == CHEXPERT
    assert load_table("chest21").names == CHEXPERT + MORE
    assert len(load_table("chest21")) == 21


@pytest.mark.parametrize("table", ["chest21", "chexpert14"])
def test_shipped_cuis_are_those_of_umls(table):
    cuis = dict(zip(load_table(table).names, load_table(table).cuis, strict=True))
    known = {
        "Cardiomegaly": "C0018800",
        "Edema": "C0034063",  # pulmonary edema, not edema of any place (C0013604)
        "Consolidation": "C0521530",
        "Pneumonia": "C0032285",
        "Atelectasis": "C0004144",
        "Pneumothorax": "C0032326",
        "Pleural Effusion": "C0032227",
        "Fracture": "C0016658",
    }
    assert {name: cuis[name] for name in known} == known


def test_shipped_aliases_parse():
    for table in ("chest21", "chexpert14"):
        for concept in load_table(table).concepts:
            assert all(parse_alias(alias).parts for alias in concept.aliases)


def test_table_survives_a_file(tmp_path):
    table = load_table("chest21")
    path = tmp_path / "mine.jsonl"
    path.write_text(table.to_jsonl())
    loaded = load_table(str(path))
    assert (loaded.name, loaded.concepts) == ("mine", table.concepts)
    assert loaded.fingerprint == table.fingerprint


def test_fingerprint_tells_order_aliases_and_parents_apart():
    a, b = Concept("C0000001", "A"), Concept("C0000002", "B", parents=("A",))
    tables = [
        ConceptTable("t", (a, b)),
        ConceptTable("t", (b, a)),
        ConceptTable("t", (a, dataclasses.replace(b, parents=()))),
        ConceptTable("t", (a, dataclasses.replace(b, aliases=("bee",)))),
    ]
    assert len({table.fingerprint for table in tables}) == 4
    assert ConceptTable("other name", (a, b)).fingerprint == tables[0].fingerprint


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([("C0000001", "A", ()), ("C0000002", "A", ())], "different names. Received: A more than once"),
        ([("C0000001", "A", ()), ("C0000001", "B", ())], "different CUIs. Received: C0000001 more than once"),
        ([("C0000001", "A", ("Bee",)), ("C0000002", "Bea", ())], r"'Bee' for 'A' \(near: 'Bea'\)"),
        ([("C0000001", "A", ("B",)), ("C0000002", "B", ("A",))], "without a circle. Received: a circle"),
        ([("C0000001", "A", ("A",))], "without a circle"),
        ([("C123", "A", ())], "UMLS CUIs .* Received: 'C123' for 'A'"),
        ([], "at least one concept"),
    ],
)
def test_impossible_tables_are_refused(rows, sentence):
    concepts = tuple(Concept(cui, name, parents=parents) for cui, name, parents in rows)
    with pytest.raises(ValueError, match=sentence):
        ConceptTable("bad", concepts)


def test_unknown_names_and_files_are_refused_with_near_ones(tmp_path):
    with pytest.raises(ValueError, match=r"Received: 'chest12'\. Shipped tables: chest21"):
        load_table("chest12")
    with pytest.raises(ValueError, match=r"Received: 'Cardiomegalie'\. Near names: Cardiomegaly"):
        load_table("chest21").index("Cardiomegalie")
    path = tmp_path / "bad.jsonl"
    path.write_text('{"cui": "C0000001", "name": "A"}\n{"cui": "C0000002"}\n')
    with pytest.raises(ValueError, match=r"Received: line 2 of 'bad' .*name"):
        load_table(str(path))


def test_closure_lifts_children_and_denies_below():
    table = ConceptTable(
        "chain",
        (
            Concept("C0000003", "leaf", parents=("middle",)),
            Concept("C0000002", "middle", parents=("root",)),
            Concept("C0000001", "root"),
            Concept("C0000004", "other"),
        ),
    )
    states = np.array(
        [
            [POS, NONE, NEG, NEG],  # a present leaf makes both ancestors present, even a denied one
            [UNC, NONE, NONE, NONE],
            [UNC, POS, NONE, NONE],
            [NONE, NONE, NEG, POS],  # a denied root denies what was not mentioned below it
            [NONE, POS, NONE, NONE],
            [NEG, NONE, NONE, NONE],  # a denied leaf says nothing of its parent
        ],
        np.int8,
    )
    expected = np.array(
        [
            [POS, POS, POS, NEG],
            [UNC, UNC, UNC, NONE],
            [UNC, POS, POS, NONE],
            [NEG, NEG, NEG, POS],
            [NONE, POS, POS, NONE],
            [NEG, NONE, NONE, NONE],
        ],
        np.int8,
    )
    before = states.copy()
    closed = close_over_parents(states, table)
    np.testing.assert_array_equal(closed, expected)
    np.testing.assert_array_equal(states, before)
    np.testing.assert_array_equal(close_over_parents(closed, table), closed)
    np.testing.assert_array_equal(close_over_parents(states[0], table), expected[0])
    with pytest.raises(ValueError, match=r"shape \(\.\.\., 4\).* Received: \(3,\)"):
        close_over_parents(np.zeros(3, np.int8), table)
