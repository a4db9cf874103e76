"""CheXpert Plus: CheXpert's images with their reports, as PNG and DICOM files.

Layout on disk, as published (https://aimi.stanford.edu/datasets/chexpert-plus), a folder with
    df_chexpert_plus_240401.csv    a row an image: path_to_image, path_to_dcm, frontal_lateral, ap_pa, split,
                                   report, section_findings, section_impression, …; or .csv.gz, .csv.zip
    chexbert_labels/report_fixed.json, impression_fixed.json, findings_fixed.json    or beside the table
    PNG/train/patient00001/study1/view1_frontal.png    the unpacked PNG chunks; or PNG/PNG/train/…
    DICOM/Uncompressed/train/…/view1_frontal.dcm       or DICOM/Compressed/…, DICOM/…; where there is no PNG
The label files are those of https://github.com/Stanford-AIMI/chexpert-plus; the loader
https://github.com/f10409/RadHarmony/blob/main/radharmony/harmonizer/chexpert/chexpert_plus.py reads the same
columns and folders.

Counts of the release: 223,228 images of 187,711 studies of 64,725 patients. The split is the table's, train
and valid, by patient. Patients, studies and images have CheXpert's own numbers: sets of `chexpert` and of
`convirt_8x200` can be held out (`--hold_out chexpert_5x200=FOLDER_OF_CHEXPERT`), and an image of one archive
must not train where the other tests it.

Labels are CheXpert's 14, by CheXbert from the reports, of an image by its path: 1 positive, 0 negative, -1
uncertain, null not mentioned. The first label file that is there counts: of the whole report, of its
impression, of its findings. Without any, or in none of its lines, an image has no labels of its own, and
`--reports` gives it those of its report.

Reports, one a study, repeated in the rows of its images. The columns `section_…` are its parts: clinical
history (or history), comparison, technique, findings and impression; a report with neither findings nor
impression is taken whole from `report`, and split at its headings. Where rows of a study differ in their
text, each text is a report of its own: `patient00001/study1`, `patient00001/study1/2`.

Views by frontal_lateral, else by the file's name.

Refused before any work: a missing table or column; a path of another form; a repeated image; a split that the
path contradicts; a patient in two splits; a line of a label file that is not as described."""

import re
from collections.abc import Iterator

from etils import epath

from medclip_keras.knowledge.sections import Section, split_sections
from medclip_keras.sources import dicom, json_files, sectioned_reports, tables
from medclip_keras.sources.rows import ImageRow, ReportRow

CITATION = (
    "Chambon et al., CheXpert Plus: augmenting a large chest X-ray dataset with text radiology reports, "
    "patient demographics and additional image formats, arXiv:2405.19538, 2024"
)
LICENCE = "Stanford University School of Medicine CheXpert Plus Dataset Research Use Agreement"

PATIENTS_OF = "chexpert"

read_image = dicom.read_image  # PNG or DICOM files

TABLE = "df_chexpert_plus_240401.csv"
LABEL_FILES = ("report_fixed.json", "impression_fixed.json", "findings_fixed.json")
FOLDERS = {  # folder → suffix of its images
    "PNG": ".png",
    "PNG/PNG": ".png",
    "DICOM/Uncompressed": ".dcm",
    "DICOM/Compressed": ".dcm",
    "DICOM": ".dcm",
}
SECTIONS = {  # section → columns that hold it, the first filled one counts
    "indication": ("section_clinical_history", "section_history"),
    "comparison": ("section_comparison",),
    "technique": ("section_technique",),
    "findings": ("section_findings",),
    "impression": ("section_impression",),
}
_SPLITS = {"train": "train", "valid": "valid"}
_VIEWS = {"Frontal": "frontal", "Lateral": "lateral", "": ""}
_CONCEPT_OF_LABEL = tables.concepts_of("chexpert_plus")
_PATH = re.compile(
    r"(?P<stem>(?P<split>train|valid)/(?P<study>(?P<patient>patient\d+)/study\d+)/"
    r"view\d+_(?P<view>frontal|lateral))\.\w+"
)
_EXAMPLE = "train/patient00001/study1/view1_frontal.jpg"


def image_rows(path: epath.PathLike) -> Iterator[ImageRow]:
    """The images of the table; `path` is the folder that holds it."""
    root, table = epath.Path(path), _table(path)
    labels_of, (folder, suffix) = _labels(root), _images(root)
    split_of: dict[str, str] = {}
    images = []
    for row in tables.read_table(table, ("path_to_image", "frontal_lateral", "split")):
        match = _match(row, split_of)
        view = row.choose("frontal_lateral", _VIEWS, "Frontal, Lateral or blank") or match["view"]
        labels = labels_of.get(row["path_to_image"], {})
        images.append((match["stem"], match["study"], match["patient"], view, labels, match["split"]))
    tables.require_distinct((stem for stem, *_ in images), "path_to_image", table)
    for stem, study, patient, view, labels, split in images:
        yield ImageRow(f"{stem}{suffix}", study, patient, f"{folder}/{stem}{suffix}", view, labels, split)


def report_rows(path: epath.PathLike) -> Iterator[ReportRow]:
    """The reports of the table, each once."""
    table = _table(path)
    columns = ("path_to_image", "split", "report", *(name for names in SECTIONS.values() for name in names))
    split_of: dict[str, str] = {}
    for row in tables.read_table(table, columns):  # check all rows, then read again: texts need much memory
        _match(row, split_of)
    texts_of: dict[str, list[int]] = {}
    for row in tables.read_table(table, columns):
        match, content = _match(row, split_of), _content(row)
        study, texts = match["study"], texts_of.setdefault(match["study"], [])
        if content and hash(content) not in texts:
            texts.append(hash(content))
            report = study if len(texts) == 1 else f"{study}/{len(texts)}"
            yield ReportRow(report, study, match["patient"], str(table), content, match["split"])


def read_report(row: ReportRow) -> tuple[Section, ...]:
    """The report's sections; a whole report is split at its headings."""
    sections = sectioned_reports.read_report(row)
    whole = len(sections) == 1 and sections[0].name == "body"
    return split_sections(sections[0].text) if whole else sections


def _table(path: epath.PathLike) -> epath.Path:
    names = [f"{TABLE}{end}" for end in ("", ".gz", ".zip")]
    advice = "Download it from https://aimi.stanford.edu/datasets/chexpert-plus."
    return tables.require_file(epath.Path(path), names, advice)


def _match(row: tables.TableRow, split_of: dict[str, str]) -> re.Match[str]:
    """The parts of a row's path; `split_of` remembers the split of each patient."""
    match = row.match("path_to_image", _PATH, f"of the form {_EXAMPLE}")
    if row.choose("split", _SPLITS) != match["split"]:
        row.refuse("split", "that of the path's first folder")
    if split_of.setdefault(match["patient"], match["split"]) != match["split"]:
        row.refuse("split", "the same for all images of a patient")
    return match


def _content(row: tables.TableRow) -> bytes:
    parts = {name: next(filter(None, map(row.get, columns)), "") for name, columns in SECTIONS.items()}
    if not sectioned_reports.pack([("", parts["findings"]), ("", parts["impression"])]):
        parts = {"body": row["report"]}
    return sectioned_reports.pack(parts.items())


def _images(root: epath.Path) -> tuple[epath.Path, str]:
    """The folder of the images, and the suffix of their files."""
    found = ((root / name, suffix) for name, suffix in FOLDERS.items() if (root / name).is_dir())
    of_split = (pair for pair in found if any((pair[0] / split).is_dir() for split in _SPLITS))
    return next(of_split, (root / "PNG", ".png"))


def _labels(root: epath.Path) -> dict[str, tables.Labels]:
    """path_to_image → labels, by the first label file that exists; empty without any."""
    names = [f"{folder}{name}" for name in LABEL_FILES for folder in ("chexbert_labels/", "")]
    file = tables.first_file(root, names)
    labels: dict[str, tables.Labels] = {}
    for row in json_files.read_rows(file) if file else ():
        tables.require_columns(list(row), ("path_to_image", *_CONCEPT_OF_LABEL), str(file))
        if row["path_to_image"] in labels:
            row.refuse("path_to_image", f"different in every line of {file}", "Download it again.")
        labels[row["path_to_image"]] = tables.states_in(row, _CONCEPT_OF_LABEL)
    return labels
