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

import collections
import re
from collections.abc import Iterator, Mapping

from etils import epath

from medclip_keras.errors import require
from medclip_keras.knowledge.label_names import concept_of_label
from medclip_keras.knowledge.sections import Section
from medclip_keras.knowledge.states import LabelState
from medclip_keras.sources.rows import BadRowError, ImageRow, ReportRow
from medclip_keras.sources.tables import read_table, require_distinct, state_of_code

CITATION = (
    "Zhang et al., Contrastive learning of medical visual representations from paired images and text, "
    "MLHC 2022; images: Irvin et al., CheXpert, AAAI 2019"
)
LICENCE = "Published by the authors for this evaluation; the images are CheXpert's"

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
ARCHIVES = ("CheXpert-v1.0-small", "CheXpert-v1.0")
_PATH = re.compile(r"CheXpert-v1\.0[^/]*/(?P<file>\w+/(?P<study>(?P<patient>patient\d+)/study\d+)/[^/]+)")


def image_rows(path: epath.PathLike) -> Iterator[ImageRow]:
    """Candidates, then query images, whether their files are there or not.

    Args:
        path: the folder that holds image-retrieval.

    Raises:
        ValueError: a missing table or column, a row that cannot be meant, or that is there twice.
    """
    root = epath.Path(path)
    checked = [*candidate_rows(root), *query_rows(root)]
    yield from checked


def candidate_rows(path: epath.PathLike) -> list[ImageRow]:
    """The images to retrieve from; see `image_rows`."""
    table = _table(path, CANDIDATES)
    rows = list(read_table(table, ("Path", "Frontal/Lateral", *CATEGORIES)))
    labels = [_candidate_states(row, f"row {number} of {table}") for number, row in enumerate(rows, 1)]
    return _image_rows(epath.Path(path), table, rows, labels)


def query_rows(path: epath.PathLike) -> list[ImageRow]:
    """The images to retrieve with; see `image_rows`."""
    table = _table(path, QUERY_IMAGES)
    rows = list(read_table(table, ("Variable", "Path")))
    labels = [
        {concept_of_label("convirt_8x200", _category(row, number, table)): LabelState.POSITIVE}
        for number, row in enumerate(rows, 1)
    ]
    return _image_rows(epath.Path(path), table, rows, labels)


def read_image(row: ImageRow) -> bytes:
    """The JPEG file."""
    return epath.Path(row.path).read_bytes()


def report_rows(path: epath.PathLike) -> Iterator[ReportRow]:
    """The query sentences.

    Args:
        path: the folder that holds text-retrieval.

    Raises:
        ValueError: a missing table or column, another category, or a sentence that is there twice.
    """
    table = _table(path, QUERY_SENTENCES)
    rows = list(read_table(table, ("Variable", "Text")))
    categories = [_category(row, number, table) for number, row in enumerate(rows, 1)]
    require_distinct((row["Text"] for row in rows), "Text", table)
    numbers: collections.Counter = collections.Counter()
    for row, category in zip(rows, categories, strict=True):
        numbers[category] += 1
        query = f"{category}/{numbers[category]}"
        yield ReportRow(query, query, query, str(table), content=row["Text"].encode(), split="test")


def read_report(row: ReportRow) -> tuple[Section, ...]:
    """The sentence, as a report without headings.

    Raises:
        BadRowError: the row has no text.
    """
    if not row.content:
        raise BadRowError("the row has no text")
    return (Section("body", row.content.decode()),)


def _table(path: epath.PathLike, name: str) -> epath.Path:
    table = epath.Path(path) / name
    advice = "Download it from https://github.com/yuhaozhang/convirt."
    require(table.is_file(), "input", f"a folder with {name}", str(path), advice)
    return table


def _category(row: Mapping[str, str], number: int, table: epath.Path) -> str:
    is_known = row["Variable"] in CATEGORIES
    require(is_known, "Variable", f"one of {', '.join(CATEGORIES)}", f"row {number} of {table}")
    return row["Variable"]


def _candidate_states(row: Mapping[str, str], place: str) -> dict[str, LabelState]:
    codes = {name: state_of_code(row[name], name) for name in CATEGORIES}
    of_one = list(codes.values()).count(LabelState.POSITIVE) == 1
    require(of_one, "candidate", "positive for one of the eight categories", place)
    return {concept_of_label("convirt_8x200", name): state for name, state in codes.items()}


def _image_rows(
    root: epath.Path, table: epath.Path, rows: list[dict[str, str]], labels: list[dict[str, LabelState]]
) -> list[ImageRow]:
    """Rows of a table of images, under its name."""
    matches = [_PATH.fullmatch(row["Path"]) for row in rows]
    for number, match in enumerate(matches, 1):
        requirement = "such as CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg"
        require(match is not None, "Path", requirement, f"row {number} of {table}")
    require_distinct((row["Path"] for row in rows), "Path", table)
    places = [folder / name for folder in (root, root.parent) for name in ARCHIVES]
    archive = next((place for place in places if place.is_dir()), places[0])
    kind = table.name.removesuffix(".csv")
    return [
        ImageRow(
            image_id=f"{kind}/{match['file'].partition('/')[2]}",
            study_id=match["study"],
            patient_id=match["patient"],
            path=str(archive / match["file"]),
            view="lateral" if "lateral" in match["file"] else "frontal",
            labels=states,
            split="test",
        )
        for match, states in zip(matches, labels, strict=True)
    ]
