import dataclasses
import json
import re

import numpy as np
import pytest

from medclip_keras.knowledge.aliases import parse_alias
from medclip_keras.knowledge.concepts import Concept, ConceptTable, check_cuis, load_table

CHEXPERT = (
    *("No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Lesion", "Lung Opacity", "Edema"),
    *("Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other"),
    *("Fracture", "Support Devices"),
)
MORE = ("Infiltration", "Mass", "Nodule", "Emphysema", "Fibrosis", "Pleural Thickening", "Hernia")


def test_shipped_tables_have_the_documented_order():
    assert load_table("chexpert14").names == CHEXPERT
    assert load_table("chest21").names == CHEXPERT + MORE
    assert len(load_table("chest21")) == 21


@pytest.mark.parametrize("table", ["chest21", "chexpert14"])
def test_shipped_cuis_match_umls(table):
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
    for table in ("chest21", "chexpert14", "thorax"):
        for concept in load_table(table).concepts:
            assert all(parse_alias(alias).parts for alias in concept.aliases)


def test_table_written_and_loaded_is_equal(tmp_path):
    table = load_table("chest21")
    path = tmp_path / "mine.jsonl"
    path.write_text(table.to_jsonl())
    loaded = load_table(str(path))
    assert (loaded.name, loaded.concepts) == ("mine", table.concepts)
    assert loaded.fingerprint == table.fingerprint


def test_fingerprint_depends_on_order_aliases_and_parents():
    a, b = Concept("C0000001", "A"), Concept("C0000002", "B", parents=("A",))
    tables = [
        ConceptTable("t", (a, b)),
        ConceptTable("t", (b, a)),
        ConceptTable("t", (a, dataclasses.replace(b, parents=()))),
        ConceptTable("t", (a, dataclasses.replace(b, aliases=("bee",)))),
    ]
    assert len({table.fingerprint for table in tables}) == 4
    assert ConceptTable("other name", (a, b)).fingerprint == tables[0].fingerprint


def concept(cui="C0000001", name="A", *, parents=(), aliases=(), equivalents=()):
    return Concept(cui, name, tuple(aliases), tuple(parents), tuple(equivalents))


OTHER = concept("C0000002", "B")


@pytest.mark.parametrize(
    ("concepts", "sentence"),
    [
        ((), "hold at least one concept. Received: none of the table 'bad'."),
        ((concept(), concept("C0000002")), "different names. Received: 'A', row 1 ('A') and row 2 ('A') of"),
        (
            (OTHER, concept(), concept(name="C")),
            "different CUIs. Received: C0000001, row 2 ('A') and row 3 ('C')",
        ),
        (
            (OTHER, concept(equivalents=["C0000002"])),
            "different CUIs. Received: C0000002, row 1 ('B') and row 2",
        ),
        ((concept(equivalents=["C0000001"]),), "different CUIs. Received: C0000001, row 1 ('A') and row 1"),
        ((OTHER, concept(parents=["Bee"])), "same table. Received: 'Bee' (Known: B, A), row 2 ('A') of"),
        ((OTHER, concept("C123")), "UMLS CUIs (C and seven digits). Received: 'C123', row 2 ('A') of"),
        ((OTHER, concept("c0000001")), "UMLS CUIs (C and seven digits). Received: 'c0000001', row 2"),
        (
            (OTHER, concept(equivalents=["C00000012"])),
            "UMLS CUIs (C and seven digits). Received: 'C00000012'",
        ),
        ((concept(parents=["A"]),), "parents without a circle. Received: a circle, row 1 ('A') of"),
        ((OTHER, concept(aliases=["a (b"])), "aliases that can be parsed. Received: 'a (b', row 2 ('A') of"),
        ((OTHER, concept(aliases=["+ c"])), "aliases that can be parsed. Received: '+ c', row 2 ('A') of"),
    ],
)
def test_invalid_tables_are_refused_with_the_row(concepts, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        ConceptTable("bad", concepts)


def test_refusal_of_a_circle_names_only_its_rows():
    below = concept("C0000003", "below", parents=["A"])
    circle = (concept("C0000001", "A", parents=["B"]), concept("C0000002", "B", parents=["C"]))
    back = concept("C0000004", "C", parents=["root", "A"])
    with pytest.raises(ValueError, match=r"a circle, row 3 \('A'\) and row 4 \('B'\) and row 5 \('C'\) of"):
        ConceptTable("bad", (concept("C0000005", "root"), below, *circle, back))


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        ("effusion", "effusion"),
        ("Pleural-Effusions", "pleural effusion"),
        ("tumour", "tumors"),
        ("(left|right) effusion", "right effusions"),
        ("heart + enlarged", "(large|enlarged) + (heart|silhouette)"),
        ("&effusion", "effusion"),  # both must say so
        ("effusion", "&effusion"),
        ("b", "hernia"),  # the other's name
    ],
)
def test_alias_of_two_concepts_is_refused_with_both_rows(mine, theirs):
    concepts = (concept("C0000003", "C"), concept(aliases=[mine]), concept("C0000002", "B", aliases=[theirs]))
    sentence = r"aliases of one concept each, .* row 2 \('A'\) and row 3 \('B'\) of"
    with pytest.raises(ValueError, match=sentence):
        ConceptTable("bad", concepts)


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        ("&hydropneumothorax", "&hydropneumothorax"),
        ("joint effusion", "!joint effusion"),  # an excluded reading claims nothing
        ("~normal silhouette", "~normal silhouette"),  # a normal phrase may deny both
        ("heart enlarged", "heart + enlarged"),  # one phrase is not two parts
    ],
)
def test_aliases_that_two_concepts_may_share(mine, theirs):
    ConceptTable("good", (concept(aliases=[mine]), concept("C0000002", "B", aliases=[theirs])))


def test_name_is_shared_if_its_alias_has_the_sign():
    shared = (
        concept(name="Pleural Mass", aliases=["&pleural mass"]),
        concept("C0000002", "B", aliases=["&pleural mass"]),
    )
    assert len(ConceptTable("good", shared)) == 2


def test_refusal_gives_the_line_of_the_file(tmp_path):
    path = tmp_path / "mine.jsonl"
    rows = ['{"cui": "C0000001", "name": "A"}', "", '{"cui": "C0000002", "name": "B", "parents": ["C"]}']
    path.write_text("\n".join(rows))
    with pytest.raises(ValueError, match=re.escape("'C' (Known: A, B), row 3 ('B') of the table 'mine'")):
        load_table(str(path))


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ('{"cui": "C0000002"}', "name is missing or no text"),
        ('{"cui": 2, "name": "B"}', "cui is missing or no text"),
        ('{"cui": "C0000002", "name": " "}', "name is missing or no text"),
        ('{"cui": "C0000002", "name": "B", "alias": []}', "unknown field 'alias'; Near names: aliases"),
        ('{"cui": "C0000002", "name": "B", "colour": "red"}', "unknown field 'colour'; Known: cui, name"),
        ('{"cui": "C0000002", "name": "B", "aliases": "bee"}', "aliases is no list of texts"),
        ('{"cui": "C0000002", "name": "B", "parents": [1]}', "parents is no list of texts"),
        ("[]", "no JSON object"),
        ("{", "no JSON (column 2)"),
    ],
)
def test_invalid_lines_are_refused(tmp_path, row, problem):
    path = tmp_path / "bad.jsonl"
    path.write_text('{"cui": "C0000001", "name": "A"}\n' + row + "\n")
    with pytest.raises(ValueError, match=re.escape(f"Received: line 2 of 'bad': {problem}")):
        load_table(str(path))


def test_cuis_missing_in_the_knowledge_base_are_refused():
    table = ConceptTable("t", (OTHER, concept(equivalents=["C0000009"])))
    known = {"C0000001", "C0000002", "C0000009"}
    check_cuis(table, known)
    with pytest.raises(
        ValueError, match=re.escape("CUIs of the knowledge base. Received: C0000009, row 2 ('A')")
    ):
        check_cuis(table, known - {"C0000009"})


def test_equivalents_are_written_only_if_present():
    plain, twin = ConceptTable("t", (concept(),)), ConceptTable("t", (concept(equivalents=["C0000009"]),))
    assert "equivalents" not in plain.to_jsonl()
    assert json.loads(twin.to_jsonl())["equivalents"] == ["C0000009"]
    assert plain.fingerprint != twin.fingerprint


def test_unknown_names_and_files_are_refused_with_near_names():
    with pytest.raises(ValueError, match=r"Received: 'chest12'\. Shipped tables: chest21"):
        load_table("chest12")
    with pytest.raises(ValueError, match=r"Received: 'Cardiomegalie'\. Near names: Cardiomegaly"):
        load_table("chest21").index("Cardiomegalie")


def test_descendants_follow_parents_transitively():
    rows = (
        concept("C0000001", "leaf", parents=["left", "right"]),
        concept("C0000002", "left", parents=["root"]),
        concept("C0000003", "right"),
        concept("C0000004", "root"),
    )
    table = ConceptTable("t", rows)
    assert table.with_descendants("root") == {"root", "left", "leaf"}
    assert table.with_descendants("right") == {"right", "leaf"}
    assert table.with_descendants("leaf") == {"leaf"}
    above = [[1, 1, 1, 1], [0, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 1]]  # row k: the concepts that k implies
    np.testing.assert_array_equal(table.descendants.T, above)
