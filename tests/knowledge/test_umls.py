"""Concept tables from a Metathesaurus and an ontology: small ones of our own, with every trap."""

import gzip

import pytest

from medclip_keras.knowledge.concepts import NO_FINDING, SUPPORT_DEVICES, load_table
from medclip_keras.knowledge.labeller import ReportLabeller
from medclip_keras.knowledge.sections import Section
from medclip_keras.knowledge.states import LabelState
from medclip_keras.knowledge.umls.__main__ import main
from medclip_keras.knowledge.umls.cleaning import clean

LUNG, PNEUMONIA, VIRAL, EFFUSION, COLD, HEAT, PACEMAKER, DEAD, DISEASE, BROAD, DUCT, PIPE = (
    f"C{n:07d}" for n in range(1, 13)
)


def conso(cui, text, *, preferred=False, language="ENG", suppress="N"):
    term, form, chosen = ("P", "PF", "Y") if preferred else ("S", "VO", "N")
    middle = f"L1|{form}|S1|{chosen}|A1|||M1|SRC|PT|1"
    return f"{cui}|{language}|{term}|{middle}|{text}|0|{suppress}|256|"


def rel(first, label, second, rela="", suppress="N"):
    return f"{first}|A1|AUI|{label}|{second}|A2|AUI|{rela}|R1||SRC|SRC|||{suppress}||"


def sty(cui, tui, name):
    return f"{cui}|{tui}|A1.2|{name}|AT1|256|"


CONSO = [
    conso(LUNG, "Lung Diseases", preferred=True),
    conso(LUNG, "Disease, Lung"),  # an inversion of its name
    conso(PNEUMONIA, "Pneumonia, NOS", preferred=True),
    conso(PNEUMONIA, "pneumonias"),
    conso(PNEUMONIA, "Lung inflammation (disorder)"),
    conso(PNEUMONIA, "Old pulmonitis", suppress="O"),
    conso(PNEUMONIA, "Neumonía", language="SPA"),
    conso(PNEUMONIA, "Lungenentzündung", language="GER"),
    conso(PNEUMONIA, "ALL"),
    conso(VIRAL, "Pneumonia, Viral", preferred=True),
    conso(VIRAL, "Lung inflammation"),  # of two selected concepts
    conso(EFFUSION, "Pleural effusion", preferred=True),
    conso(EFFUSION, "Effusions, Pleural"),
    conso(EFFUSION, "PLEF"),
    conso(EFFUSION, "Water on the lung"),
    conso(COLD, "Common cold", preferred=True),
    conso(COLD, "Cold"),
    conso(COLD, "Head + nose cold"),
    conso(COLD, "Cold of the head and of the nose and of the throat"),
    conso(HEAT, "Cold", preferred=True),  # not selected, and claims the word
    conso(HEAT, "Pleural effusion"),  # the preferred name of another
    conso(PACEMAKER, "Implanted pacemaker", preferred=True),
    conso(DEAD, "Withdrawn disease", preferred=True, suppress="E"),
    conso(DISEASE, "Abnormal findings", preferred=True),
    conso(BROAD, "Chest condition of any kind", preferred=True),
    conso(DUCT, "Duct stenosis", preferred=True),
    conso(PIPE, "Duct narrowing", preferred=True),
]
REL = [
    rel(PNEUMONIA, "PAR", LUNG),
    rel(LUNG, "CHD", PNEUMONIA),  # the same, from the other side
    rel(VIRAL, "PAR", PNEUMONIA, "inverse_isa"),
    rel(VIRAL, "PAR", LUNG),  # implied by the two above
    rel(EFFUSION, "RB", HEAT),  # HEAT is not selected, and passes its parent on
    rel(LUNG, "RN", HEAT),
    rel(COLD, "PAR", LUNG, "part_of"),
    rel(COLD, "PAR", LUNG, suppress="Y"),
    rel(COLD, "RO", LUNG),
    rel(LUNG, "RO", COLD, "isa"),  # COLD is a LUNG, in its own words
    rel(PNEUMONIA, "RN", LUNG),  # against a parent of more trust: closes a circle
    rel(DUCT, "PAR", PIPE),
    rel(PIPE, "PAR", DUCT),  # neither is trusted more
    rel(DUCT, "PAR", DUCT),
]
TYPES = [
    *(sty(cui, "T047", "Disease or Syndrome") for cui in (LUNG, PNEUMONIA, VIRAL, EFFUSION, COLD, DEAD)),
    *(sty(cui, "T047", "Disease or Syndrome") for cui in (DISEASE, DUCT, PIPE)),
    sty(HEAT, "T070", "Natural Phenomenon or Process"),
    sty(PACEMAKER, "T074", "Medical Device"),
]


@pytest.fixture
def meta(tmp_path):
    folder = tmp_path / "META"
    folder.mkdir()
    for name, rows in (("MRCONSO", CONSO), ("MRREL", REL), ("MRSTY", TYPES)):
        (folder / f"{name}.RRF").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


def compiled(meta, *arguments, name="mine.jsonl"):
    output = meta.parent / name
    assert main(["--meta", str(meta), *arguments, "--output", str(output)]) == 0
    return load_table(str(output))


def rows_of(table):
    """Name → aliases and parents of the compiled concepts."""
    return {c.name: (set(c.aliases), set(c.parents)) for c in table.concepts if c.name != NO_FINDING}


def test_diseases_are_compiled_with_clean_aliases_and_implied_parents(meta, capsys):
    assert rows_of(compiled(meta, "--semantic_types", "T047")) == {
        "Lung Diseases": (set(), set()),
        "Pneumonia": ({"pneumonias"}, {"Lung Diseases"}),  # a plural that the matcher does not undo
        "Viral Pneumonia": (set(), {"Pneumonia"}),
        "Pleural effusion": ({"PLEF", "Water on the lung"}, {"Lung Diseases"}),
        "Common cold": (set(), {"Lung Diseases"}),
        "Duct stenosis": (set(), set()),
        "Duct narrowing": (set(), set()),
    }
    parts, part = {}, ""
    for line in capsys.readouterr().out.partition("\n\n")[0].splitlines():
        number, _, what = line.strip().partition(" ")
        if line.startswith(" "):
            parts[part][what] = int(number)
        else:
            part = line
            parts[part] = {}
    assert parts == {
        "MRREL.RRF": {"rows": len(REL), "of another relation": 2, "suppressed": 1},
        "MRSTY.RRF": {"rows": len(TYPES)},
        "MRCONSO.RRF": {"rows": len(CONSO), "suppressed": 2, "in another language": 2},
        "aliases": {
            "read": 19,
            "dropped: plural, inversion or spelling of another": 2,
            "dropped: abbreviation that is an English word": 1,
            "dropped: list or mark": 1,
            "dropped: too long": 1,
            "dropped: too general": 1,
            "dropped: ambiguous, of several concepts": 3,
            "kept": 10,
        },
        "concepts": {"selected": 9, "left out: no alias is left": 2, "kept, with rows of chest21": 8},
        "parents": {"kept": 4, "dropped: edges that close a circle": 3},
    }


def test_roots_select_what_is_below_them_and_meet_the_types(meta):
    assert set(rows_of(compiled(meta, "--roots", PNEUMONIA))) == {"Pneumonia", "Viral Pneumonia"}
    assert set(rows_of(compiled(meta, "--roots", f"{PNEUMONIA}, {COLD}"))) == {
        *("Pneumonia", "Viral Pneumonia", "Common cold")
    }
    both = compiled(meta, "--roots", HEAT, "--semantic_types", "Disease or Syndrome")
    assert set(rows_of(both)) == {"Pleural effusion"}


def test_languages_add_aliases_and_the_first_gives_the_names(meta):
    english = rows_of(compiled(meta, "--roots", PNEUMONIA, "--languages", "ENG,SPA,GER"))
    assert english["Pneumonia"][0] == {"Neumonía", "Lungenentzündung", "pneumonias"}
    spanish = rows_of(compiled(meta, "--roots", PNEUMONIA, "--languages", "SPA,ENG"))
    assert spanish["Neumonía"][0] == {"Pneumonia", "pneumonias"}


def test_no_finding_and_devices_work_in_a_compiled_table(meta):
    table = compiled(meta, "--semantic_types", "T047,T074")
    assert table.names[:2] == (NO_FINDING, SUPPORT_DEVICES)
    assert table.concepts[table.index("Implanted pacemaker")].parents == (SUPPORT_DEVICES,)
    labeller = ReportLabeller(table)

    def normal(text):
        states = labeller.label([Section("findings", text)]).states
        return states[table.index(NO_FINDING)] == LabelState.POSITIVE

    assert normal("Normal chest. Implanted pacemaker.")
    assert not normal("Normal chest. Water on the lung.")


def test_a_shipped_table_gains_aliases_and_keeps_its_own(meta):
    shipped = load_table("chest21")
    cui = shipped.cuis[shipped.index("Pleural Effusion")]
    excluded = "pericardial effusion"  # "!pericardial effusion" says that it is another finding
    rows = [conso(cui, text) for text in ("Thoracic dropsy", "Effusions, Pleural", excluded)]
    (meta / "MRCONSO.RRF").write_text("\n".join(rows) + "\n")
    table = compiled(meta, "--table", "chest21")
    assert table.names == shipped.names
    for own, before in zip(table.concepts, shipped.concepts, strict=True):
        added = ("Thoracic dropsy",) if own.cui == cui else ()
        assert (own.aliases, own.parents) == (before.aliases + added, before.parents)


@pytest.mark.parametrize("form", ["gz", "pieces"])
def test_compressed_files_and_pieces_give_the_same_table(meta, form):
    plain = compiled(meta, "--semantic_types", "T047", name="plain.jsonl")
    for path in list(meta.iterdir()):
        content = path.read_bytes()
        path.unlink()
        if form == "gz":
            (meta / f"{path.name}.gz").write_bytes(gzip.compress(content))
        else:  # cut within a line
            cut = len(content) // 2
            for suffix, piece in (("aa", content[:cut]), ("ab", content[cut:])):
                (meta / f"{path.name}.{suffix}.gz").write_bytes(gzip.compress(piece))
    assert compiled(meta, "--semantic_types", "T047").concepts == plain.concepts


def test_the_order_of_rows_does_not_matter(meta):
    plain = compiled(meta, "--semantic_types", "T047", name="plain.jsonl")
    for name, rows in (("MRCONSO", CONSO), ("MRREL", REL), ("MRSTY", TYPES)):
        (meta / f"{name}.RRF").write_text("\n".join(reversed(rows)) + "\n")
    assert compiled(meta, "--semantic_types", "T047").concepts == plain.concepts


OBO = r"""format-version: 1.2
id: header

[Term]
id: X:1
name: Lung disease
xref: UMLS:C0000001

[Term]
id: X:2
name: Grouping without a concept
is_a: X:1 ! Lung disease

[Term]
id: X:3
name: Pleural effusion
synonym: "Effusions, Pleural" EXACT plural_form []
synonym: "Fluid \"around\" lungs" EXACT layperson [x:y]
synonym: "Water on the lung" EXACT layperson []
synonym: "Something wider" BROAD []
xref: SNOMEDCT_US:1
xref: UMLS_CUI:C0000004 "name"
xref: UMLS:C0000099
xref: UMLS:C0000001
is_a: X:2 {source="a"} ! Grouping

[Term]
id: X:4
name: Hydrothorax
xref: UMLS:C0000004
is_a: X:1

[Term]
id: X:5
name: Gone
is_obsolete: true
xref: UMLS:C0000005

[Typedef]
id: part_of
name: part of
xref: UMLS:C0000077
"""


def test_an_ontology_gives_concepts_of_its_cuis(tmp_path):
    for name, write in (("x.obo", lambda path: path.write_text(OBO)), ("x.obo.gz", gzipped)):
        path, output = tmp_path / name, tmp_path / "x.jsonl"
        write(path)
        assert main(["--obo", str(path), "--roots", "X:1", "--output", str(output)]) == 0
        _, lung, effusion = load_table(str(output)).concepts
        assert (lung.cui, lung.name, lung.parents) == ("C0000001", "Lung disease", ())
        assert (effusion.cui, effusion.name, effusion.parents) == (
            "C0000004",
            "Hydrothorax",
            ("Lung disease",),
        )
        assert effusion.aliases == ("Pleural effusion", "Water on the lung")
        assert effusion.equivalents == ("C0000099",)  # the third is another term's own


def gzipped(path):
    path.write_bytes(gzip.compress(OBO.encode()))


@pytest.mark.parametrize(
    ("term", "alias"),
    [
        ("[D]Effusions, Pleural, NOS (finding)", "Pleural Effusions"),
        ("Lung Diseases, Interstitial, Familial", "Familial Interstitial Lung Diseases"),
        ("Pneumonia, due to virus", "Pneumonia due to virus"),
        ("Chronic obstructive lung disease (COLD)", "Chronic obstructive lung disease"),
        ("Opacity(s) <2>", "Opacity"),
        ("Crohn’s disease", "Crohn’s disease"),
        ("Ｐneumonia, unspecified", "Pneumonia"),
        ("Trisomy 21", "Trisomy 21"),
        ("ARDS", "ARDS"),
    ],
)
def test_terms_become_phrases_of_a_report(term, alias):
    assert clean(term) == (alias, "")


@pytest.mark.parametrize(
    ("term", "reason"),
    [
        ("Pneumonia (bacterial)", "bracket"),
        ("Lung, liver and kidney abscess", "list or mark"),
        ("Cough/wheeze", "list or mark"),
        ("!effusion", "list or mark"),
        ("Other specified pneumonia", "residual class"),
        ("Pneumonia, NEC", "residual class"),
        ("History of pneumonia", "assertion, not a finding"),
        ("No effusion", "assertion, not a finding"),
        ("PE", "too short"),
        ("Abscess of the upper lobe of the left lung after surgery", "too long"),
        ("Abnormality of the body", "too general"),
        ("COLD", "abbreviation that is an English word"),
        ("", "list or mark"),
    ],
)
def test_terms_that_no_report_should_match_are_dropped_with_the_reason(term, reason):
    assert clean(term) == ("", reason)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["--roots", "pneumonia"],
            "`--roots` must be CUIs, or identifiers of the .obo file. Received: 'pneumonia'",
        ),
        (["--semantic_types", "T999,T047"], "types of MRSTY.RRF, as T047 or by name. Received: 'T999'."),
        ([], "`--roots, --semantic_types or --table` must be given with --meta."),
        (["--table", "chest21", "--roots", LUNG], "`--table` must be given without --roots"),
        (["--table", "chest12"], "Received: 'chest12'. Shipped tables: chest21"),
        (["--roots", "C9999998"], "`concepts` must be some that are left."),
    ],
)
def test_wrong_selections_are_refused(meta, capsys, arguments, sentence):
    assert main(["--meta", str(meta), *arguments, "--output", str(meta.parent / "x.jsonl")]) == 1
    assert sentence in capsys.readouterr().err


def test_wrong_files_are_refused(meta, capsys):
    def refused(*arguments):
        assert main([*arguments]) == 1
        return capsys.readouterr().err

    to = ("--roots", LUNG, "--output", str(meta.parent / "x.jsonl"))
    (meta / "MRREL.RRF").write_text(REL[0] + "\nC0000001|A1\n")
    assert "row 2 (IndexError)'. Take the file" in refused("--meta", str(meta), *to)
    (meta / "MRREL.RRF").unlink()
    assert "`--meta` must be a folder with MRREL.RRF, MRREL.RRF.gz or" in refused("--meta", str(meta), *to)
    assert "`--meta` must be a folder with" in refused("--meta", str(meta / "none"), *to)
    assert "`--obo` must be an .obo file" in refused("--obo", str(meta / "x.obo"), *to)
    assert "given one at a time" in refused(*to)
    assert "ends in .jsonl" in refused("--meta", str(meta), "--roots", LUNG, "--output", "x.csv")
