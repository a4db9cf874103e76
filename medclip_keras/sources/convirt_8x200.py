"""CheXpert 8x200: ConVIRT's sets for image-image and text-image retrieval, with images from CheXpert.

Layout on disk, as published (https://github.com/yuhaozhang/convirt), in a folder with
    image-retrieval/candidate.csv    a row an image: Path, Frontal/Lateral, … and CheXpert's 14 columns
    image-retrieval/query.csv        Variable, Path: a query image and its category
    text-retrieval/query.csv         Variable, Text: a query sentence and its category
    CheXpert-v1.0-small/             or CheXpert-v1.0/, here or beside the folder: CheXpert, or a link to it

Counts of the release: 1,600 candidates, 200 for each of eight categories (`CATEGORIES`); 80 query images,
10 each; 40 query sentences, 5 each, where the release's readme says 10. 1,600 candidates are of 1,559
patients; 6 of them are patients of query images too. All come from CheXpert's training images: take their
patients out of training.

Images: candidates are identified as `candidate/patient…/study…/view….jpg`, queries as `query/…`. Patients
and studies have CheXpert's own identifiers. A query sentence is a report of its own, identified by its
category and number: `Pneumothorax/1`. All of it is the split "test".

Labels: a candidate's one category is positive, the other seven negative. The table has 0 wherever CheXpert
says 0, nothing, or uncertain, in the other six columns everywhere, and so those are not mentioned here. Of
a query image only its category is known, and positive. Nothing is uncertain. A retrieved candidate is right
where its label of the query's category is positive.

Refused before any work: a missing table or column; a path that is not CheXpert's; a candidate with none or
several of the categories; an image or sentence that a table has twice."""

import re
from collections.abc import Iterator

from etils import epath

from medclip_keras.knowledge.sections import Section
from medclip_keras.knowledge.states import LabelState
from medclip_keras.sources import dicom, tables
from medclip_keras.sources.rows import BadRowError, ImageRow, ReportRow

CITATION = (
    "Zhang et al., Contrastive learning of medical visual representations from paired images and text, "
    "MLHC 2022; images: Irvin et al., CheXpert, AAAI 2019"
)
LICENCE = "Published by the authors for this evaluation; the images are CheXpert's"

PATIENTS_OF = "chexpert"

read_image = dicom.read_image  # JPEG files

CANDIDATES = "image-retrieval/candidate.csv"
QUERY_IMAGES = "image-retrieval/query.csv"
QUERY_SENTENCES = "text-retrieval/query.csv"
CATEGORIES = (
    "No Finding",
    "Cardiomegaly",
    "Edema",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Fracture",
)
_CONCEPT_OF_CATEGORY = {name: tables.concepts_of("convirt_8x200")[name] for name in CATEGORIES}
ARCHIVES = ("CheXpert-v1.0-small", "CheXpert-v1.0")
_EXAMPLE = "CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg"
_PATH = re.compile(r"CheXpert-v1\.0[^/]*/(?P<file>\w+/(?P<study>(?P<patient>patient\d+)/study\d+)/[^/]+)")


def image_rows(path: epath.PathLike) -> Iterator[ImageRow]:
    """Candidates, then query images; `path` is the folder that holds image-retrieval."""
    root = epath.Path(path)
    candidates, queries = _table(root, CANDIDATES), _table(root, QUERY_IMAGES)
    rows = tables.read_table(candidates, ("Path", "Frontal/Lateral", *CATEGORIES))
    checked = _image_rows(root, candidates, [(row, _candidate_states(row)) for row in rows])
    rows = tables.read_table(queries, ("Variable", "Path"))
    labelled = [(row, {row.choose("Variable", _CONCEPT_OF_CATEGORY): LabelState.POSITIVE}) for row in rows]
    checked += _image_rows(root, queries, labelled)
    yield from checked


def report_rows(path: epath.PathLike) -> Iterator[ReportRow]:
    """The query sentences; `path` is the folder that holds text-retrieval."""
    table = _table(epath.Path(path), QUERY_SENTENCES)
    rows = list(tables.read_table(table, ("Variable", "Text")))
    categories = [row.choose("Variable", _CONCEPT_OF_CATEGORY) for row in rows]
    tables.require_distinct((row["Text"] for row in rows), "Text", table)
    for index, (row, category) in enumerate(zip(rows, categories, strict=True)):
        query = f"{row['Variable']}/{categories[: index + 1].count(category)}"
        yield ReportRow(query, query, query, str(table), content=row["Text"].encode(), split="test")


def read_report(row: ReportRow) -> tuple[Section, ...]:
    """The sentence, as a report without headings."""
    if not row.content:
        raise BadRowError("the row has no text")
    return (Section("body", row.content.decode()),)


def _table(root: epath.Path, name: str) -> epath.Path:
    return tables.require_file(root, [name], "Download it from https://github.com/yuhaozhang/convirt.")


def _candidate_states(row: tables.TableRow) -> tables.Labels:
    states = tables.states_in(row, _CONCEPT_OF_CATEGORY)
    if list(states.values()).count(LabelState.POSITIVE) != 1:
        row.refuse("candidate", "positive for one of the eight categories")
    return states


def _image_rows(
    root: epath.Path, table: epath.Path, labelled: list[tuple[tables.TableRow, tables.Labels]]
) -> list[ImageRow]:
    """The images of a table, identified as `candidate/…` or `query/…` after its file name."""
    places = [folder / name for folder in (root, root.parent) for name in ARCHIVES]
    archive = next((place for place in places if place.is_dir()), places[0])
    kind = table.name.removesuffix(".csv")
    images = []
    for row, labels in labelled:
        match = row.match("Path", _PATH, f"such as {_EXAMPLE}")
        image = ImageRow(
            image_id=f"{kind}/{match['file'].partition('/')[2]}",
            study_id=match["study"],
            patient_id=match["patient"],
            path=str(archive / match["file"]),
            view="lateral" if "lateral" in match["file"] else "frontal",
            labels=labels,
            split="test",
        )
        images.append(image)
    tables.require_distinct((row.path for row in images), "Path", table)
    return images
