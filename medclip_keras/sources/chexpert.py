"""CheXpert: chest X-rays of one hospital, with labels that a program took from their (unpublished) reports.

Layout on disk, as published (https://stanfordmlgroup.github.io/competitions/chexpert/), a folder
`CheXpert-v1.0` or `CheXpert-v1.0-small` with
    train.csv, valid.csv    Path, Sex, Age, Frontal/Lateral, AP/PA, then 14 label columns; a row an image
    test.csv                Path, then label columns; also as test_labels.csv
    train/patient00001/study1/view1_frontal.jpg    valid/…    test/…
Tables may be compressed (.csv.gz). Those that are not there are left out, but one must be. The newer download
in batches is read as it is, in one folder, which is the input
    CheXpert-v1.0 batch 1 (validate & csv)/train.csv, valid.csv, valid/…
    CheXpert-v1.0 batch 2 (train 1)/patient00001/…    CheXpert-v1.0 batch 3 (train 2)/…    and so on
The same columns are read by CheX_Dataset of
https://github.com/mlmed/torchxrayvision/blob/main/torchxrayvision/datasets.py.

Counts of the release: 224,316 images of 65,240 patients; train 223,414 images of 64,540 patients, valid 234
of 200, test 668 of 500.

Labels are 1 positive, 0 negative, -1 uncertain, blank not mentioned (1.0 and so on too). Train was labelled
by a program from reports; valid and test by radiologists from images, 1 or 0. The split is the tables', by
patient.

Patient and study are those of `Path`, whose first folder may have any name. The view is that of
Frontal/Lateral, else of AP/PA, else of the file's name.

Refused before any work: no table; a missing column; a path of another form; a repeated image; a label that is
no code."""

import re
from collections.abc import Iterator, Mapping

from etils import epath

from medclip_keras.errors import require
from medclip_keras.sources import dicom, tables
from medclip_keras.sources.rows import ImageRow, age_of, position_of, sex_of

CITATION = (
    "Irvin et al., CheXpert: a large chest radiograph dataset with uncertainty labels and expert comparison, "
    "AAAI 2019"
)
LICENCE = "Stanford University School of Medicine CheXpert Dataset Research Use Agreement"

read_image = dicom.read_image  # JPEG files

TABLES = {  # split → names of its table
    "train": ("train.csv", "train.csv.gz"),
    "valid": ("valid.csv", "valid.csv.gz"),
    "test": ("test.csv", "test.csv.gz", "test_labels.csv", "test_labels.csv.gz"),
}
_CONCEPT_OF_LABEL = tables.concepts_of("chexpert")
_VIEW_COLUMN = "Frontal/Lateral"
_LATERAL = {"lateral": "LATERAL"}
_VIEWS = {"Frontal": "frontal", "Lateral": "lateral", "": ""}
_PATH = re.compile(
    r"(?:.*/)?(?P<image>(?P<split>train|valid|test)/(?P<patient>patient\d+)/(?P<study>study\d+)/"
    r"view\d+_(?P<view>frontal|lateral)\.\w+)"
)
_PATIENT = re.compile(r"patient\d+")
_BATCHES = "CheXpert-v1.0 batch *"
_EXAMPLE = "CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg"


def image_rows(path: epath.PathLike) -> Iterator[ImageRow]:
    """The images of train, valid and test; `path` is the folder of the tables, or a folder with one such."""
    root, table_of = _find_tables(epath.Path(path))
    batch_of = _batches(root)
    checked = []
    for split, table in table_of.items():
        rows = [_image_row(root, batch_of, split, row) for row in _read(table, split)]
        tables.require_distinct((row.image_id for row in rows), "Path", table)
        checked += rows
    yield from checked


def _find_tables(folder: epath.Path) -> tuple[epath.Path, dict[str, epath.Path]]:
    """The folder that holds the tables, and split → table."""
    below = sorted(folder.glob("CheXpert-v1.0*")) if folder.is_dir() else []
    found = {root: own for root in (folder, *below) if (own := _tables_in(root))}
    requirement = f"a folder, and one only, with {', '.join(names[0] for names in TABLES.values())}"
    advice = "Download it from https://stanfordmlgroup.github.io/competitions/chexpert/."
    if folder not in found:
        received = [root.name for root in found] or str(folder)
        require(len(found) == 1, "input", requirement, received, advice)
    return next(iter(found.items()))


def _tables_in(root: epath.Path) -> dict[str, epath.Path]:
    found = {split: tables.first_file(root, names) for split, names in TABLES.items()}
    return {split: table for split, table in found.items() if table}


def _batches(root: epath.Path) -> dict[str, epath.Path]:
    """Patient → the batch folder that replaces train/, next to or below the tables."""
    found = [batch for folder in (root.parent, root) for batch in sorted(folder.glob(_BATCHES))]
    parts = [part for batch in found for part in (batch, batch / "train") if part.is_dir()]
    return {place.name: part for part in parts for place in part.iterdir() if _PATIENT.fullmatch(place.name)}


def _read(table: epath.Path, split: str) -> Iterator[tables.TableRow]:
    """The rows of a table; that of the test split has fewer columns, but one of the labels at least."""
    labels = tuple(_CONCEPT_OF_LABEL)
    columns = ("Path", _VIEW_COLUMN, "AP/PA", *labels) if split != "test" else ("Path",)
    for row in tables.read_table(table, columns):
        if not set(labels).intersection(row):
            tables.require_columns(list(row), labels, str(table))
        yield row


def _image_row(
    root: epath.Path, batch_of: Mapping[str, epath.Path], split: str, row: tables.TableRow
) -> ImageRow:
    match = row.match("Path", _PATH, f"of the form {_EXAMPLE}")
    if match["split"] != split:
        row.refuse("Path", f"a path in the folder {split}")
    view = row.choose(_VIEW_COLUMN, _VIEWS, "Frontal, Lateral or blank") if _VIEW_COLUMN in row else ""
    batch = batch_of.get(match["patient"]) if split == "train" else None
    return ImageRow(
        image_id=match["image"],
        study_id=f"{match['patient']}/{match['study']}",
        patient_id=match["patient"],
        path=f"{batch}/{match['image'].removeprefix('train/')}" if batch else f"{root}/{match['image']}",
        view=view or dicom.view_of_position(row.get("AP/PA", "")) or match["view"],
        labels=tables.states_in(row, _CONCEPT_OF_LABEL),
        split=split,
        view_position=position_of(row.get("AP/PA", "")) or _LATERAL.get(view, ""),
        sex=sex_of(row.get("Sex", "")),
        age=age_of(row.get("Age", "") if row.get("Age") != "0" else ""),
    )
