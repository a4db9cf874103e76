"""The concept of each data set's own label names: one table of data set, label and concept of `thorax`.

`tables/label_names.csv` is the one place for it; a new data set is new rows. Concepts of `chest21` and
`chexpert14` have the same names in `thorax`, so the table serves records of those as well. A label stands
for a concept that its presence implies: PadChest's "laminar atelectasis" is Atelectasis. A label without such
a concept is listed without one, and with the reason in the last column.

nih_chestxray14   `Finding Labels` of ChestX-ray14 (Wang et al., CVPR 2017).
chexpert          its 14 columns (Irvin et al., AAAI 2019), which the CheXpert and NegBio tables of
mimic_cxr         MIMIC-CXR-JPG and the tables of ConVIRT's
convirt_8x200     8x200 retrieval task have as well; so do
chexpert_plus     the label files of CheXpert Plus (Chambon et al., 2024) and
brax              the table of BRAX (Reis et al., Scientific Data 9, 2022).
mimic_cxr_test    the same of the radiologist's table of MIMIC-CXR-JPG 2.1.0, with Airspace Opacity.
padchest          `Labels` of PadChest (Bustos et al., Medical Image Analysis 66, 2020), in its spelling.
rsna              classes and `Target` of the RSNA Pneumonia Detection Challenge.
openi             columns of the labels coded by people (gold14), and the frequent ones of the MeSH headings
                  and automatic terms in the XML. Of a heading such as `Opacity/lung/base/left` the longest
                  part that is listed counts.
covid             folder and class names of the COVID-19 collections.
kermany           folders and subtypes of Kermany et al., Cell 2018.
vindr_cxr         columns of VinDr-CXR (Nguyen et al., Scientific Data 9, 2022).
siim_acr          the outlines of the SIIM-ACR Pneumothorax Segmentation challenge.
mura              a study's outcome: bones of the arm, no concept.
"""

import csv
import functools

from medclip_keras.errors import near_names, refusal
from medclip_keras.knowledge import TABLES
from medclip_keras.knowledge.concepts import load_table

_TABLE = TABLES / "label_names.csv"


def concept_of_label(dataset: str, label: str) -> str | None:
    """The concept of `thorax` for a data set's label, None for a label without a concept.

    >>> concept_of_label("nih_chestxray14", "Effusion")
    'Pleural Effusion'
    >>> concept_of_label("openi", "Pleural Effusion/left/small")
    'Pleural Effusion'
    >>> concept_of_label("padchest", "unchanged") is None
    True

    Raises:
        ValueError: no such data set, or a label that it does not have; the near names are in the sentence.
    """
    concepts = _labels(dataset)
    known = label
    while known not in concepts and "/" in known:
        known = known.rpartition("/")[0]
    if known not in concepts:
        raise refusal("label", f"a label of {dataset}", label, near_names(label, concepts))
    return concepts[known]


def labels_of(dataset: str) -> tuple[str, ...]:
    """The label names of a data set, in the order of the table.

    >>> labels_of("rsna")
    ('Lung Opacity', 'Normal', 'No Lung Opacity / Not Normal', 'Target')

    Raises:
        ValueError: no such data set; the near names are in the sentence.
    """
    return tuple(_labels(dataset))


@functools.cache
def concepts_above(concept: str) -> frozenset[str]:
    """The further concepts of `thorax` that a concept implies.

    >>> sorted(concepts_above("Rib Fracture Callus"))
    ['Fracture', 'Rib Fracture']

    Raises:
        ValueError: no such concept.
    """
    thorax = load_table("thorax")
    implied = thorax.descendants[:, thorax.index(concept)]
    return frozenset(name for name, is_implied in zip(thorax.names, implied, strict=True) if is_implied) - {
        concept
    }


def meanings(dataset: str) -> list[tuple[str, str | None, list[str]]]:
    """A data set's labels, each with its concept and those above it; none of one without label names.

    >>> meanings("kermany")[0]
    ('NORMAL', 'No Finding', [])
    """
    concepts = _table().get(dataset, {})
    return [(label, of, sorted(concepts_above(of)) if of else []) for label, of in concepts.items()]


def datasets() -> tuple[str, ...]:
    """Names of the data sets with label names."""
    return tuple(_table())


def _labels(dataset: str) -> dict[str, str | None]:
    if dataset not in _table():
        raise refusal("dataset", "a data set of label_names.csv", dataset, near_names(dataset, _table()))
    return _table()[dataset]


@functools.cache
def _table() -> dict[str, dict[str, str | None]]:
    """Data set → label → concept or None."""
    table: dict[str, dict[str, str | None]] = {}
    for row in csv.DictReader(_TABLE.read_text(encoding="utf-8").splitlines()):
        table.setdefault(row["dataset"], {})[row["label"]] = row["concept"] or None
    return table
