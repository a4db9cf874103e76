"""PadChest: lists of labels to states, studies and their stemmed reports, folders of the zip archives."""

import csv
import gzip
import io

import pytest

from medclip_keras.knowledge.label_names import concept_of_label, labels_of
from medclip_keras.knowledge.sections import Section
from medclip_keras.knowledge.states import LabelState
from medclip_keras.sources import padchest
from medclip_keras.sources.rows import BadRowError, ReportRow

POSITIVE, NEGATIVE = LabelState.POSITIVE, LabelState.NEGATIVE
HEADER = [
    "",
    "ImageID",
    "ImageDir",
    "StudyDate_DICOM",
    "StudyID",
    "PatientID",
    "PatientBirth",
    "Projection",
    "MethodProjection",
    "Pediatric",
    "ReportID",
    "Report",
    "MethodLabel",
    "Labels",
    "Localizations",
    "LabelsLocalizationsBySentence",
    "labelCUIS",
    "LocalizationsCUIS",
]
IMAGES = (  # image, zip archive, study, patient, projection, report, labels
    ("a_01.png", "0", "s1", "p1", "PA", "4001", "['loculated pleural effusion', ' pacemaker']"),
    ("a_02.png", "0", "s1", "p1", "L", "4001", "['loculated pleural effusion', ' pacemaker']"),
    ("b_01.png", "54", "s2", "p1", "AP_horizontal", "4002", "['normal']"),
    ("c_01.png", "54", "s3", "p2", "COSTAL", "4003", "['unchanged', 'pneumonia', '']"),
    ("d_01.png", "54", "s4", "p3", "AP", "nan", "nan"),
    ("e_01.png", "54", "s5", "p4", "PA", "4005", "['pacemaker', 'exclude']"),
    ("f_01.png", "54", "s6", "p4", "PA", "4006", "['NSG tube']"),
)
TEXTS = {
    "4001": "derram pleural loculad . marcapas . ",
    "4002": "sin hallazg . ",
    "4003": "sin cambi",
    "4006": "s",
}


def table():
    file = io.StringIO()
    writer = csv.DictWriter(file, HEADER, restval="")
    writer.writeheader()
    for number, (image, archive, study, patient, projection, report, labels) in enumerate(IMAGES):
        row = {"": number, "ImageID": image, "ImageDir": archive, "StudyID": study, "PatientID": patient}
        row |= {"Projection": projection, "ReportID": report, "Report": TEXTS.get(report, "nan")}
        writer.writerow(row | {"Labels": labels, "MethodLabel": "Physician"})
    return file.getvalue()


def write_layout(folder, image_file):
    root = folder / "PadChest"
    for seed, (image, archive, *_) in enumerate(IMAGES):
        (root / "images" / archive).mkdir(parents=True, exist_ok=True)
        (root / "images" / archive / image).write_bytes(image_file(seed))
    (root / padchest.TABLE).write_text(table())
    return root


TABLE = padchest.TABLE
SECRETS = ("derram", "a_01")
DAMAGED = {
    write_layout: [
        (TABLE, None, rf"`input` must be a folder with {TABLE}\. .*Ask for access at https://bimcv"),
        (TABLE, lambda t: t.replace("Projection,", "View,", 1), "`Projection` must be a column of"),
        (TABLE, lambda t: t.replace("Labels", "labels", 1), "`Labels` must be a column of .*names: labels"),
        (
            TABLE,
            lambda t: t + t.split("\n")[1] + "\n",
            r"`ImageID` must be different .*'row 8, which repeats row 1",
        ),
        (
            TABLE,
            lambda t: t.replace("'pneumonia'", "'pneumonja'"),
            r"`Labels` must be labels of PadChest\. Received: 'pneumonja'\. Near names: pneumonia.* row 4 of",
        ),
        (TABLE, lambda t: t.replace("['normal']", "normal"), r"`Labels` must be a list such as .*row 3 of"),
        (TABLE, lambda t: t.replace("s1,p1", "s1,p9", 1), r"`PatientID` must be the same for all .*row 2 of"),
        (TABLE, lambda t: t.replace("s3,p2", "s3,"), r"`PatientID` must be filled, as StudyID.*row 4 of"),
    ]
}


def test_rows_are_those_of_the_table(archive):
    rows = list(padchest.image_rows(archive))
    assert [(row.image_id, row.study_id, row.patient_id) for row in rows] == [
        (image, study, patient) for image, _, study, patient, *_ in IMAGES
    ]
    assert [row.view for row in rows] == [*("frontal", "lateral", "frontal", "", "frontal"), *2 * ["frontal"]]
    assert {row.split for row in rows} == {""}
    assert [row.path for row in rows] == [f"{archive}/images/{place}/{image}" for image, place, *_ in IMAGES]


def test_labels_are_present_absent_or_open(archive, decoded):
    states = decoded(padchest, archive, "thorax")
    labelled = {concept_of_label("padchest", label) for label in labels_of("padchest")} - {None}
    effusion = states["a_01.png"]
    present = {"Loculated Pleural Effusion", "Pleural Effusion", "Pacemaker", "Support Devices"}
    assert {name for name, state in effusion.items() if state == POSITIVE} == present
    assert effusion.keys() == labelled | present
    assert effusion["No Finding"] == NEGATIVE
    assert states["a_02.png"] == effusion
    assert states["b_01.png"] == dict.fromkeys(labelled, NEGATIVE) | {"No Finding": POSITIVE}
    pneumonia = dict.fromkeys(("Pneumonia", "Consolidation", "Alveolar Pattern", "Lung Opacity"), POSITIVE)
    assert states["c_01.png"] == pneumonia | {"No Finding": NEGATIVE}
    assert states["d_01.png"] == {}
    assert states["e_01.png"] == {"Pacemaker": POSITIVE, "Support Devices": POSITIVE}
    assert states["f_01.png"] == dict.fromkeys(labelled - {"No Finding"}, NEGATIVE) | {
        "Support Devices": POSITIVE
    }


def test_wider_concepts_count_in_a_table_without_the_narrower_ones(archive, decoded):
    effusion = decoded(padchest, archive, "chest21")["a_01.png"]
    assert [name for name, state in effusion.items() if state == POSITIVE] == [
        "Pleural Effusion",
        "Support Devices",
    ]


@pytest.mark.parametrize("layout", ["0", ".", "images", "images-224"])
def test_images_lie_by_zip_archive_or_in_one_folder(archive, layout):
    for image, place, *_ in IMAGES:
        target = archive / place / image if layout == "0" else archive / layout / image
        target.parent.mkdir(exist_ok=True)
        (archive / "images" / place / image).rename(target)
    for place in ("0", "54"):
        (archive / "images" / place).rmdir()
    if layout != "images":
        (archive / "images").rmdir()
    folders = {row.path.removesuffix(f"/{row.image_id}") for row in padchest.image_rows(archive)}
    expected = {f"{archive}/0", f"{archive}/54"} if layout == "0" else {str(archive / layout)}
    assert folders == expected


def test_reports_are_one_a_study_with_their_text_as_it_is(archive):
    rows = list(padchest.report_rows(archive))
    assert [(row.report_id, row.study_id, row.patient_id) for row in rows] == [
        ("s1/4001", "s1", "p1"),
        ("s2/4002", "s2", "p1"),
        ("s3/4003", "s3", "p2"),
        ("s6/4006", "s6", "p4"),
    ]
    assert padchest.read_report(rows[0]) == (Section("body", "derram pleural loculad . marcapas ."),)
    assert "derram" not in repr(rows[0])
    with pytest.raises(BadRowError, match="no report text"):
        padchest.read_report(ReportRow("r", "s", "p", "t.csv"))
    (archive / f"{TABLE}.gz").write_bytes(gzip.compress((archive / TABLE).read_bytes()))
    (archive / TABLE).unlink()
    assert len(list(padchest.report_rows(archive))) == len(rows)
    assert len(list(padchest.image_rows(archive))) == len(IMAGES)
