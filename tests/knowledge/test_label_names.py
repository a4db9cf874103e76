import csv
import re

import pytest

from medclip_keras.knowledge import label_names
from medclip_keras.knowledge.concepts import load_table
from medclip_keras.knowledge.label_names import concept_of_label, datasets, labels_of


def header(path):
    with open(path, newline="") as file:
        return next(csv.reader(file))


def test_every_row_has_a_concept_of_thorax_or_a_reason():
    names = set(load_table("thorax").names)
    with label_names._TABLE.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({(row["dataset"], row["label"]) for row in rows}) == len(rows)
    assert {row["concept"] for row in rows} - names == {""}
    assert [row for row in rows if bool(row["concept"]) == bool(row["reason"])] == []


def test_labels_of_chexpert_and_nih_are_complete():
    chexpert, nih = load_table("chexpert14").names, labels_of("nih_chestxray14")
    for dataset in ("chexpert", "mimic_cxr", "convirt_8x200", "chexpert_plus", "brax"):
        assert {label: concept_of_label(dataset, label) for label in labels_of(dataset)} == dict(
            zip(chexpert, chexpert, strict=True)
        )
    assert len(nih) == 15  # fourteen and No Finding
    assert {concept_of_label("nih_chestxray14", label) for label in nih} | set(chexpert) == set(
        load_table("chest21").names
    )


@pytest.mark.parametrize(
    ("dataset", "label", "concept"),
    [
        ("nih_chestxray14", "Infiltration", "Infiltration"),
        ("nih_chestxray14", "Effusion", "Pleural Effusion"),
        ("nih_chestxray14", "Pleural_Thickening", "Pleural Thickening"),
        ("padchest", "infiltrates", "Infiltration"),
        ("padchest", "pleural effusion", "Pleural Effusion"),
        ("padchest", "mass", "Thoracic Mass"),
        ("padchest", "pulmonary mass", "Mass"),
        ("padchest", "laminar atelectasis", "Atelectasis"),
        ("padchest", "unchanged", None),
        ("padchest", "COVID 19 uncertain", None),
        ("rsna", "Lung Opacity", "Lung Opacity"),
        ("rsna", "Normal", "No Finding"),
        ("rsna", "No Lung Opacity / Not Normal", None),
        ("rsna", "Target", "Pneumonia"),
        ("openi", "normal", "No Finding"),
        ("openi", "Effusion", "Pleural Effusion"),
        ("openi", "Lung/hypoinflation/mild", "Volume Loss"),
        ("openi", "Opacity/lung/base/left", "Lung Opacity"),
        ("openi", "Calcinosis/aorta, thoracic", "Aortic Calcification"),
        ("openi", "Calcinosis/lung/hilum", "Calcification"),
        ("openi", "Lung/new", None),
        ("covid", "COVID-19", "COVID-19"),
        ("covid", "Viral Pneumonia", "Viral Pneumonia"),
        ("kermany", "PNEUMONIA", "Pneumonia"),
        ("kermany", "virus", "Viral Pneumonia"),
        ("mura", "positive", None),
        ("mimic_cxr_test", "Airspace Opacity", "Lung Opacity"),
        ("vindr_cxr", "Nodule/Mass", "Lung Lesion"),
        ("vindr_cxr", "ILD", "Interstitial Pattern"),
        ("vindr_cxr", "Other diseases", None),
        ("siim_acr", "EncodedPixels", "Pneumothorax"),
    ],
)
def test_concept_of_label(dataset, label, concept):
    assert concept_of_label(dataset, label) == concept


def test_unknown_names_are_refused_with_near_ones():
    sentence = r"`dataset` must be .* Received: 'padchests'\. Near names: padchest"
    with pytest.raises(ValueError, match=sentence):
        concept_of_label("padchests", "pneumonia")
    with pytest.raises(ValueError, match=r"`dataset` must be .* Known: nih_chestxray14, chexpert"):
        labels_of("something else")
    with pytest.raises(
        ValueError,
        match=r"`label` must be a label of padchest\. .*'pneumothoraks'\. Near names: pneumothorax",
    ):
        concept_of_label("padchest", "pneumothoraks")
    with pytest.raises(ValueError, match=r"Received: 'Gadget/lung/left'"):
        concept_of_label("openi", "Gadget/lung/left")


def test_every_label_of_the_real_tables_is_known(medclip_data):
    used = {"nih_chestxray14": set(), "openi": set(), "convirt_8x200": set(), "kermany": set()}
    with open(medclip_data / "nih_chestxray14" / "Data_Entry_2017_v2020.csv", newline="") as file:
        for row in csv.DictReader(file):
            used["nih_chestxray14"].update(row["Finding Labels"].split("|"))
    used["openi"].update(header(medclip_data / "openi" / "gold14_dev.csv")[1:])
    used["convirt_8x200"].update(
        header(medclip_data / "convirt_8x200" / "image-retrieval" / "candidate.csv")[5:]
    )
    for folder in ("image-retrieval", "text-retrieval"):
        with open(medclip_data / "convirt_8x200" / folder / "query.csv", newline="") as file:
            used["convirt_8x200"].update(row["Variable"] for row in csv.DictReader(file))
    with open(medclip_data / "kermany_pneumonia" / "manifest.csv", newline="") as file:
        for row in csv.DictReader(file):
            used["kermany"].update((row["label"], row["subtype"]))
    assert {dataset: len(labels) for dataset, labels in used.items()} == {
        "nih_chestxray14": 15,
        "openi": 15,
        "convirt_8x200": 14,
        "kermany": 4,
    }
    for dataset, labels in used.items():
        assert labels <= set(labels_of(dataset))
        assert all(concept_of_label(dataset, label) for label in labels)


def test_padchest_labels_map_to_the_concept_with_their_cui(medclip_data):
    concepts = {cui: c.name for c in load_table("thorax").concepts for cui in (c.cui, *c.equivalents)}
    text = (medclip_data / "padchest_terms" / "tree_term_CUI_counts.csv").read_text()
    nodes = re.findall(
        r"^[│├└─\s]*(.+?) \[(?:CUI:(C\d{7}), )?counts", text[: text.index("localization")], re.M
    )
    nodes = [
        (label, cui) for label, cui in nodes if (label, cui) != ("adenopathy", "C0149711")
    ]  # of the hilum
    assert len(nodes) > 180
    assert {label for label, _ in nodes} <= set(labels_of("padchest"))
    for label, cui in nodes:
        if cui:
            assert concept_of_label("padchest", label) == concepts.get(cui), label


def test_every_data_set_has_labels():
    assert len(datasets()) == 15
    assert all(labels_of(dataset) for dataset in datasets())
