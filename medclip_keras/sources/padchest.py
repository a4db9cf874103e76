"""PadChest: chest X-rays of one hospital in Spain, with its reports' text and labels.

Layout on disk, as published (https://bimcv.cipf.es/bimcv-projects/padchest/; the request for access is
there), a folder with
    PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv    a row an image; or .csv.gz, .csv.zip
    images/0/<ImageID>, …, images/54/<ImageID>    each zip archive unpacked into a folder of its name
The numbered folders may lie beside the table, and all images may lie in one folder (`images/`, `images-224/`,
or beside the table), as in the reduced copies. Columns that are read: ImageID, ImageDir, StudyID, PatientID,
Projection, ReportID, Report, Labels. The authors' own description of the table is
https://github.com/auriml/Rx-thorax-automatic-captioning; PC_Dataset of
https://github.com/mlmed/torchxrayvision/blob/main/torchxrayvision/datasets.py reads the same columns.

Counts of the release: 160,861 rows of some 67,000 patients; 103 rows without labels
(https://github.com/f10409/RadHarmony, docs/wiki/datasets/padchest.md). It publishes no split: the split is by
patient.

Labels: 27 % of the reports were labelled by physicians, the others by a recurrent network from the reports
(`MethodLabel`). `Labels` is a list such as ['pneumonia', 'unchanged'] of findings that are present; a label
stands for the concept with PadChest's own CUI (`knowledge/tables/label_names.csv`), most of them in `thorax`
alone, so label records with `--concepts thorax`.

    a label's concept, and the wider ones that it implies      positive
    the concepts of the other labels                           negative
    No Finding: `normal` alone or with devices; a finding      positive; negative

`unchanged` compares, and leaves open what was there before; `exclude` and `suboptimal study` reject the
image: in their rows the concepts that are not named are not mentioned. Rows without labels have none. Nothing
is uncertain.

Reports are Spanish, in lower case, words stemmed and sentences separated by " . ": text for a model, from
which a labeller of whole words finds little. An image's labels are the table's.

Views by Projection: PA, AP and AP_horizontal are frontal, L lateral, others (COSTAL, blank) unknown.

Refused before any work: a missing table or column; a label that is not PadChest's; an image named twice; a
study of two patients; a row without a patient or a study."""

import functools
import re
from collections.abc import Iterator

from etils import epath

from medclip_keras.errors import near_names, refusal
from medclip_keras.knowledge.label_names import concepts_above, labels_of
from medclip_keras.knowledge.sections import Section
from medclip_keras.knowledge.states import LabelState
from medclip_keras.sources import dicom, sectioned_reports, tables
from medclip_keras.sources.rows import ImageRow, ReportRow, age_of, position_of, sex_of

CITATION = (
    "Bustos et al., PadChest: a large chest x-ray image dataset with multi-label annotated reports, Medical "
    "Image Analysis 66, 2020"
)
LICENCE = "PadChest Dataset Research Use Agreement (BIMCV): research, no redistribution"

read_image = dicom.read_image  # PNG files

TABLE = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
FOLDERS = ("images", "images-224")
NORMAL, DEVICES = "No Finding", "Support Devices"
OPEN = ("unchanged", "exclude", "suboptimal study")  # labels that say nothing of what they do not name
_VIEWS = {"PA": "frontal", "AP": "frontal", "AP_horizontal": "frontal", "L": "lateral"}
_LIST = re.compile(r"\[(?:\s*'[^']*'\s*,?)*\s*\]")
_BLANK = ("", "nan", "None")
_CONCEPTS = frozenset(tables.concepts_of("padchest").values())


def image_rows(path: epath.PathLike) -> Iterator[ImageRow]:
    """The images of the table; `path` is the folder that holds it."""
    root, table = epath.Path(path), _table(path)
    patient_of: dict[str, str] = {}
    images = []
    for row in tables.read_table(
        table, ("ImageID", "ImageDir", "StudyID", "PatientID", "Projection", "Labels")
    ):
        study, patient = _ids(row, patient_of)
        archive, told = row["ImageDir"].removesuffix(".0"), (_listed(row), _person(row))
        images.append((row["ImageID"], archive, study, patient, row["Projection"], *told))
    tables.require_distinct((image_id for image_id, *_ in images), "ImageID", table)
    folder_of = functools.cache(functools.partial(_folder_of, root))
    for image_id, archive, study, patient, projection, listed, (sex, age) in images:
        file, view = f"{folder_of(archive)}/{image_id}", _VIEWS.get(projection, "")
        position, labels = position_of(projection), _states(listed)
        yield ImageRow(image_id, study, patient, file, view, labels, view_position=position, sex=sex, age=age)


def report_rows(path: epath.PathLike) -> Iterator[ReportRow]:
    """The reports, one for each study and ReportID."""
    table, columns = _table(path), ("StudyID", "PatientID", "ReportID", "Report")
    patient_of: dict[str, str] = {}
    for row in tables.read_table(table, columns):  # check all rows, then read again: texts need much memory
        _ids(row, patient_of)
    seen = set()
    for row in tables.read_table(table, columns):
        report = f"{row['StudyID']}/{row['ReportID']}"
        content = sectioned_reports.pack([("body", row["Report"])])
        if content and report not in seen:
            seen.add(report)
            yield ReportRow(report, row["StudyID"], row["PatientID"], str(table), content)


def read_report(row: ReportRow) -> tuple[Section, ...]:
    """The report's text, as its body."""
    return sectioned_reports.read_report(row)


def _table(path: epath.PathLike) -> epath.Path:
    names = [f"{TABLE}{end}" for end in ("", ".gz", ".zip")]
    advice = "Ask for access at https://bimcv.cipf.es/bimcv-projects/padchest/."
    return tables.require_file(epath.Path(path), names, advice)


def _ids(row: tables.TableRow, patient_of: dict[str, str]) -> tuple[str, str]:
    """Study and patient of a row; `patient_of` remembers the patient of each study."""
    study, patient = row["StudyID"], row["PatientID"]
    if not study or not patient:
        row.refuse("PatientID", "filled, as StudyID", "Splits are by patient.")
    if patient_of.setdefault(study, patient) != patient:
        row.refuse("PatientID", "the same for all images of a study")
    return study, patient


def _person(row: tables.TableRow) -> tuple[str, int]:
    """Sex and age of a row, from PatientSex_DICOM and the years of birth and study, where it has them."""
    born, studied = (row.get(column, "")[:4] for column in ("PatientBirth", "StudyDate_DICOM"))
    years = str(int(studied) - int(born)) if born.isdigit() and studied.isdigit() else ""
    return sex_of(row.get("PatientSex_DICOM", "")), age_of(years)


def _listed(row: tables.TableRow) -> tuple[str, ...]:
    if row["Labels"] in _BLANK:
        return ()
    row.match("Labels", _LIST, "a list such as ['pneumonia', 'unchanged']")
    listed = tuple(filter(None, (label.strip() for label in re.findall("'([^']*)'", row["Labels"]))))
    for label in listed:
        if label not in labels_of("padchest"):
            advice = f"{near_names(label, labels_of('padchest'))} It is {row.place}."
            raise refusal("Labels", "labels of PadChest", label, advice)
    return listed


@functools.lru_cache(maxsize=4096)
def _states(listed: tuple[str, ...]) -> tables.Labels:
    if not listed:
        return {}
    states = tables.concept_states("padchest", dict.fromkeys(listed, LabelState.POSITIVE))
    findings = [name for name in states if name != NORMAL and DEVICES not in {name, *concepts_above(name)}]
    normal = LabelState.NEGATIVE if findings else states.get(NORMAL, LabelState.NOT_MENTIONED)
    others = () if set(OPEN) & set(listed) else _CONCEPTS
    return dict.fromkeys(others, LabelState.NEGATIVE) | states | {NORMAL: normal}


def _folder_of(root: epath.Path, image_dir: str) -> epath.Path:
    """The folder of a zip archive's images, or the common folder of all images."""
    places = [root / name / image_dir for name in FOLDERS] + [root / image_dir]
    places += [root / name for name in FOLDERS]
    return next((place for place in places if place.is_dir()), root)
