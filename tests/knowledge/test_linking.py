"""Spellings that the dictionary lacks, linked to it; a small table, for a large one is slow to make."""

import json

import numpy as np
import pytest
import spacy
from scipy.sparse import csr_matrix
from scispacy.linking_utils import Entity

from medclip_keras.knowledge.aliases import words_of
from medclip_keras.knowledge.concepts import Concept, ConceptTable, load_table
from medclip_keras.knowledge.extractor import Extractor
from medclip_keras.knowledge.linking import ExactIndex, Linking, candidate_generator
from medclip_keras.knowledge.spelling import THRESHOLD, SpellingLinker, similarity
from medclip_keras.knowledge.umls import knowledge_base_aliases

TABLE = ConceptTable(
    "small",
    (
        Concept("C0032227", "Pleural Effusion", ("effusion", "!pericardial effusion")),
        Concept("C0018800", "Cardiomegaly", ("(heart|cardiac silhouette) + enlarged", "~heart is normal")),
        Concept("C0004144", "Atelectasis"),
        Concept("C0032326", "Pneumothorax"),
        Concept("C0034063", "Edema"),
    ),
)


@pytest.fixture(scope="module")
def linking() -> Extractor:
    return Extractor(TABLE, linking=Linking())


@pytest.fixture(scope="module")
def plain() -> Extractor:
    return Extractor(TABLE)


def said(extractor, text):
    """What is asserted, by concept."""
    return {m.name: m.assertion for m in extractor.mentions(text, "findings")}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Small plueral effusion.", {"Pleural Effusion": "positive"}),
        ("No pnuemothorax.", {"Pneumothorax": "negative"}),
        ("Possible cardiomegally.", {"Cardiomegaly": "uncertain"}),
        ("The atelectatsis has resolved.", {"Atelectasis": "historical"}),
        ("Left pneumo  thorax.", {"Pneumothorax": "positive"}),
        ("Left pneumo, thorax.", {}),
        ("Right pleuraleffusion.", {"Pleural Effusion": "positive"}),
        ("The cardiac silhouete is markedly enlargd.", {"Cardiomegaly": "positive"}),
        ("The heart is nromal.", {"Cardiomegaly": "negative"}),
        ("Pericardal effusion.", {}),
        ("Withuot pneumothorax.", {"Pneumothorax": "negative"}),
        ("Ödem, edmea.", {"Edema": "positive"}),
    ],
)
def test_misspelled_findings_are_found_and_asserted(linking, text, expected):
    assert said(linking, text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "Infusion port, blood transfusion, fusion of the spine.",
        "Hypertension. Pneumonectomy. Pneumoperitoneum.",
        "The heart is abnormal.",  # not "normal"
        "Suffusion and diffusion.",
        "XXXXX XXXXXXXX",
        "",
    ],
)
def test_valid_words_are_not_corrected_to_findings(linking, text):
    assert said(linking, text) == {}


def test_linking_changes_nothing_where_all_words_are_known(linking, plain):
    text = "No pleural effusion, pneumothorax or edema. The heart is enlarged (5.5 cm), as on 3/4."
    assert linking.mentions(text, "findings") == plain.mentions(text, "findings") != ()


def test_linked_mention_has_original_offsets_and_similarity(linking):
    text = "Mild edema. Large left pnuemothorax, plueral  effusions and cardio\nmegaly."
    mentions = linking.mentions(text, "findings")
    written = [(text[m.start : m.end], m.rule) for m in mentions]
    assert written == [
        ("edema", "Edema"),
        ("pnuemothorax", "linked: Pneumothorax (0.92)"),  # one swap in twelve letters
        ("plueral  effusions", "linked: Pleural Effusion (0.86)"),  # one swap in seven
        ("cardio\nmegaly", "linked: Cardiomegaly (1.00)"),
    ]


def test_rule_gives_the_least_similarity(linking):
    (mention,) = linking.mentions("Plueral efusion.", "findings")
    assert mention.rule == "linked: Pleural Effusion (0.86)"  # six of seven, and seven of eight


def test_split_word_keeps_the_offsets_of_its_halves():
    linker = SpellingLinker(["pleural", "effusion"])
    text = "No pleuraleffusion."
    reading = linker.read(*words_of(text))
    assert [text[start:end] for start, end in reading.offsets] == ["No", "pleural", "effusion", "."]
    assert reading.similarities == {1: 1.0, 2: 1.0}


@pytest.mark.parametrize(
    ("one", "other", "edits"),
    [
        ("effusion", "effusion", 0),
        ("efusion", "effusion", 1),  # lost
        ("efffusion", "effusion", 1),  # doubled
        ("effision", "effusion", 1),  # replaced
        ("effuison", "effusion", 1),  # swapped
        ("fefusoin", "effusion", 2),
        ("", "effusion", 8),
    ],
)
def test_similarity_counts_edits(one, other, edits):
    expected = 1 - edits / max(len(one), len(other))
    assert similarity(one, other) == similarity(other, one) == pytest.approx(expected)


def test_threshold_is_the_least_similarity():
    word, spelling = "pneumothorax", "pneomothoraks"  # three edits in thirteen letters
    near = 1 - 3 / 13
    for threshold, expected in ((near - 0.01, word), (near + 0.01, "")):
        assert SpellingLinker([word], threshold=threshold).link(spelling)[0] == expected
    assert SpellingLinker([word]).link("pnuemothorax") == (word, pytest.approx(11 / 12))
    assert 11 / 12 > THRESHOLD > near


def test_the_fewest_edits_decide_not_the_highest_cosine():
    words, spelling = ("calcification", "opacification"), "clacification"
    (candidates,) = candidate_generator(Entity(word, word, [word]) for word in words)([spelling], 2)
    assert max(candidates, key=lambda one: one.similarities[0]).concept_id == "opacification"
    assert SpellingLinker(words).link(spelling) == ("calcification", pytest.approx(12 / 13))


def test_one_edit_in_five_letters_reaches_the_default_threshold():
    linker = SpellingLinker(["about", "edema"])
    assert linker.link("axout") == ("about", pytest.approx(0.8))
    assert linker.link("axoux") == ("", 0.0)


def test_ties_in_edits_prefer_the_same_beginning():
    linker = SpellingLinker(["right", "height", "excluded", "exclude"])
    assert linker.link("reight")[0] == "right"
    assert linker.link("excludde")[0] == "excluded"


def test_prefixed_known_words_are_valid():
    linker = SpellingLinker(["calcified", "pleural"], also_known=["hilar"])
    for word in ("uncalcified", "extrapleural", "suprahilar", "xxxxx", "edma", "12345"):
        assert linker.is_valid(word)
    for word in ("calcifed", "plueral", "uncalcifed"):
        assert not linker.is_valid(word)


@pytest.mark.parametrize(("valid", "near"), [("module", "nodule"), ("lobulated", "loculated")])
def test_valid_words_near_the_dictionary_are_kept(valid, near):
    linker = SpellingLinker([near])
    assert linker.link(valid) == (near, pytest.approx(1 - 1 / len(near)))  # so it would be corrected
    assert linker.read(*words_of(f"{valid} s")).words == [valid, "s"]


def test_exact_index_is_the_product_of_vectors():
    rng = np.random.default_rng(0)
    rows, queries = (rng.random((n, 7)) * (rng.random((n, 7)) < 0.6) for n in (11, 4))
    rows, queries = (m / np.maximum(np.linalg.norm(m, axis=1, keepdims=True), 1e-9) for m in (rows, queries))
    found = ExactIndex(csr_matrix(rows)).knnQueryBatch(csr_matrix(queries), k=3)
    for (positions, distances), query in zip(found, queries, strict=True):
        cosines = rows @ query
        assert positions.tolist() == np.argsort(-cosines)[:3].tolist()
        np.testing.assert_allclose(distances, 1 - np.sort(cosines)[::-1][:3])


def test_candidates_hold_every_alias_exactly():
    entities = [Entity("C0000001", "mass", ["mass", "lump"]), Entity("C0000002", "mast", ["mast"])]
    generate = candidate_generator(entities)
    for alias, cui in (("mass", "C0000001"), ("lump", "C0000001"), ("mast", "C0000002")):
        (candidates,) = generate([alias], 3)
        best = max(candidates, key=lambda candidate: max(candidate.similarities))
        assert (best.concept_id, max(best.similarities)) == (cui, pytest.approx(1))


def test_unknown_ngrams_lower_the_cosine():
    generate = candidate_generator([Entity("C0000001", "effusion", [])])
    for text, low, high in (("effusion", 0.999, 1.001), ("zygoma effusion", 0.3, 0.8)):
        ((candidate,),) = generate([text], 1)
        assert low < candidate.similarities[0] < high


def test_mentions_do_not_depend_on_the_order_of_the_matches(monkeypatch):
    extractor = Extractor(load_table("chest21"), linking=Linking())
    text, matcher = "Heart and mediastinal contozurs within normal limits.", extractor._matcher
    expected = extractor._read_sentence(text)
    monkeypatch.setattr(extractor, "_matcher", lambda doc: matcher(doc)[::-1])
    assert extractor._read_sentence(text) == expected != ()


@pytest.mark.parametrize("threshold", [0, -0.5, 1.1])
def test_thresholds_outside_of_their_range_are_refused(threshold):
    with pytest.raises(ValueError, match=r"`threshold` must be in \(0, 1\]"):
        Linking(threshold)


@pytest.fixture(scope="module")
def umls_path(tmp_path_factory):
    """A knowledge base as scispaCy writes it: inverted names, qualifiers, two owners of an alias."""
    entities = [
        ("C0032227", "Pleural effusion", ["Effusion, Pleural", "Water on the lung", "Fluid chest", "PE"]),
        ("C0013687", "Effusion (finding)", ["Effusion"]),
        ("C0034063", "Pulmonary Edema", ["Wet lung", "Fluid chest"]),
        ("C0004144", "Atelectasis", ["Effusion", "Airless lung"]),
    ]
    path = tmp_path_factory.mktemp("umls") / "kb.jsonl"
    keys = ("concept_id", "canonical_name", "aliases")
    path.write_text(
        "".join(json.dumps(dict(zip(keys, e, strict=True)) | {"types": []}) + "\n" for e in entities)
    )
    return str(path)


def test_knowledge_base_gives_aliases_of_one_owner_without_marks(umls_path):
    found = knowledge_base_aliases(umls_path, TABLE.cuis)
    assert found == {
        "C0032227": ("pleural effusion", "water on the lung"),
        "C0034063": ("pulmonary edema", "wet lung"),
        "C0004144": ("airless lung", "atelectasis", "effusion"),
    }


def test_knowledge_base_aliases_yield_to_the_table(umls_path, linking):
    extractor = Extractor(TABLE, linking=Linking(umls=umls_path))
    text = "No water on the lung, possible aireless lung. Effusion."
    mentions = [(m.name, m.assertion, m.rule) for m in extractor.mentions(text, "findings")]
    assert mentions == [
        ("Pleural Effusion", "negative", "UMLS: water on the lung"),
        ("Atelectasis", "uncertain", "linked: UMLS: airless lung (0.88)"),
        ("Pleural Effusion", "positive", "effusion"),  # the table's own, not atelectasis
    ]
    assert said(linking, text) == {"Pleural Effusion": "positive"}


def test_unreadable_knowledge_bases_are_refused(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"`umls` must be a \.jsonl file that exists, or 'umls'"):
        knowledge_base_aliases(str(tmp_path / "none.jsonl"), TABLE.cuis)
    path = tmp_path / "bad.jsonl"
    path.write_text('{"concept_id": "C0032227", "canonical_name": "A", "aliases": []}\n{"cui": 1}\n')
    with pytest.raises(ValueError, match=r"`umls` must be JSON lines .*Received: \"line 2 of 'bad.jsonl'"):
        knowledge_base_aliases(str(path), TABLE.cuis)

    def refuse(url):
        raise OSError("no route to host")

    monkeypatch.setattr("scispacy.file_cache.cached_path", refuse)
    with pytest.raises(ValueError, match=r"scispaCy could not download it .* give a file of yours"):
        knowledge_base_aliases("umls", TABLE.cuis)


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    """A spaCy model that finds a few entities, in the place of scispaCy's."""
    model = spacy.blank("en")
    ruler = model.add_pipe("entity_ruler")
    entities = ("fluid within the pleura", "hilum", "spine", "stable edema")
    ruler.add_patterns([{"label": "ENTITY", "pattern": pattern} for pattern in entities])
    model.meta["name"] = "tiny"
    path = tmp_path_factory.mktemp("model") / "en_tiny"
    model.to_disk(path)
    return str(path)


def test_entities_of_a_scispacy_model_are_linked_to_phrases(model_path):
    table = ConceptTable(
        "two", (Concept("C0032227", "Pleural Effusion", ("fluid in the pleura",)), TABLE.concepts[4])
    )
    extractor = Extractor(table, linking=Linking(threshold=0.5, scispacy_model=model_path))
    text = "No fluid within the pleura. Spine, stable edema and hilum."
    mentions = [(m.name, m.assertion, text[m.start : m.end]) for m in extractor.mentions(text, "findings")]
    assert mentions == [
        ("Pleural Effusion", "negative", "fluid within the pleura"),
        ("Edema", "positive", "edema"),
    ]
    (linked, exact) = (m.rule for m in extractor.mentions(text, "findings"))
    assert linked.startswith("linked: fluid in the pleura (0.")
    assert exact == "Edema"


def test_missing_models_and_models_without_entities_are_refused(tmp_path):
    sentence = r"`scispacy_model` must be an installed spaCy model.*'en_core_sci_sm'"
    with pytest.raises(ValueError, match=sentence):
        Linking(scispacy_model="en_core_sci_sm").resources()
    spacy.blank("en").to_disk(tmp_path / "blank")
    with pytest.raises(ValueError, match="`scispacy_model` must be a model that finds entities"):
        Extractor(TABLE, linking=Linking(scispacy_model=str(tmp_path / "blank")))
