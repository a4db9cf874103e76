"""BRAX: one table, PNG before DICOM files, CheXpert's codes."""

from medclip_keras.knowledge.label_names import labels_of
from medclip_keras.knowledge.states import LabelState
from medclip_keras.sources import brax

POSITIVE, NEGATIVE, UNCERTAIN = LabelState.POSITIVE, LabelState.NEGATIVE, LabelState.UNCERTAIN
LABELS = labels_of("brax")
COLUMNS = ",DicomPath,PngPath,PatientID,PatientSex,PatientAge,AccessionNumber,StudyDate"
REST = "ViewPosition,Rows,Columns,Manufacturer"
IMAGES = (  # patient, accession number, image, view, codes
    ("id_1", "700", "image-11", "PA", {"No Finding": "1.0"}),
    ("id_1", "700", "image-12", "RL", {"No Finding": "1.0"}),
    ("id_2", "700", "image-21", "AP", {"Edema": "-1.0", "Fracture": "0.0", "Pneumonia": "1.0"}),
    ("id_2", "701", "image-22", "", {}),
)


def table():
    lines = [",".join((COLUMNS, *LABELS, REST))]
    for number, (patient, study, image, view, codes) in enumerate(IMAGES):
        stem = f"{patient}/Study_1.{study}/Series_1/{image}"
        cells = (
            f"{number},Anonymized_DICOMs/{stem}.dcm,images/{stem}.png,{patient},F,85 or more,{study},2011",
        )
        lines.append(",".join((*cells, *(codes.get(label, "") for label in LABELS), f"{view},3000,2500,1")))
    return "\n".join(lines) + "\n"


def write(folder, image_file, kind):
    root = folder / "brax"
    top, suffix = ("images", "png") if kind == "png" else ("Anonymized_DICOMs", "dcm")
    for seed, (patient, study, image, *_) in enumerate(IMAGES):
        path = root / top / patient / f"Study_1.{study}" / "Series_1" / f"{image}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image_file(seed, kind))
    (root / TABLE).write_text(table())
    return root


def write_layout(folder, image_file):
    return write(folder, image_file, "png")


def write_dicom_layout(folder, image_file):
    return write(folder, image_file, "dicom")


TABLE = brax.TABLES[0]
SECRETS = ("id_1", "id_2")
DAMAGED = {
    write_layout: [
        (TABLE, None, rf"`input` must be a folder with {TABLE}\. .*content/brax/1\.1\.0"),
        (TABLE, lambda t: t.replace("PngPath", "Png"), "`PngPath` must be a column of"),
        (
            TABLE,
            lambda t: t.replace("Pneumonia", "pneumonia"),
            "`Pneumonia` must be a column .*names: pneumonia",
        ),
        (
            TABLE,
            lambda t: t + t.split("\n")[2] + "\n",
            "`PngPath` must be different .*'row 5, which repeats row 2'",
        ),
        (TABLE, lambda t: t.replace("-1.0", "2"), "`Edema` must be 1, 0, -1 or blank.*row 3 of"),
        (TABLE, lambda t: t.replace(".png,id_2", ".png,", 1), "`PatientID` must be filled.*row 3 of"),
        (TABLE, lambda t: t.replace(",701,", ",,"), "`AccessionNumber` must be filled.*row 4 of"),
    ],
    write_dicom_layout: [
        (TABLE, lambda t: t.replace("DicomPath", "Dicom"), "`DicomPath` must be a column of")
    ],
}


def test_a_study_is_known_by_its_patient_too(archive):
    rows = list(brax.image_rows(archive))
    assert [row.study_id for row in rows] == ["id_1/700", "id_1/700", "id_2/700", "id_2/701"]
    assert [row.patient_id for row in rows] == ["id_1", "id_1", "id_2", "id_2"]
    assert [row.view for row in rows] == ["frontal", "lateral", "frontal", ""]
    assert {row.split for row in rows} == {""}


def test_codes_are_states(archive, decoded, tmp_path, image_file):
    expected = [
        {"No Finding": POSITIVE},
        {"No Finding": POSITIVE},
        {"Edema": UNCERTAIN, "Fracture": NEGATIVE, "Pneumonia": POSITIVE},
        {},
    ]
    assert list(decoded(brax, archive, "chexpert14").values()) == expected
    (tmp_path / "other").mkdir()
    dicom = write_dicom_layout(tmp_path / "other", image_file)
    (dicom / TABLE).rename(dicom / brax.TABLES[1])
    assert list(decoded(brax, dicom, "chexpert14").values()) == expected
