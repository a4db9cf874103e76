"""CheXpert Plus: one row an image, labels by path, reports in parts, PNG or DICOM files."""

import csv
import dataclasses
import io
import json

import pytest

from beam_jobs.dataset.selection import select
from medclip_keras.knowledge.label_names import labels_of
from medclip_keras.knowledge.sections import Section
from medclip_keras.knowledge.states import LabelState
from medclip_keras.sources import chexpert, chexpert_plus
from medclip_keras.sources.evaluation_sets import EVALUATION_SETS

POSITIVE, NEGATIVE, UNCERTAIN = LabelState.POSITIVE, LabelState.NEGATIVE, LabelState.UNCERTAIN
HEADER = [
    "",
    "path_to_image",
    "path_to_dcm",
    "frontal_lateral",
    "ap_pa",
    "deid_patient_id",
    "patient_report_date_order",
    "report",
    "section_narrative",
    "section_clinical_history",
    "section_history",
    "section_comparison",
    "section_technique",
    "section_procedure_comments",
    "section_findings",
    "section_impression",
    "section_end_of_impression",
    "section_summary",
    "section_accession_number",
    "age",
    "sex",
    "race",
    "ethnicity",
    "interpreter_needed",
    "insurance_type",
    "recent_bmi",
    "deceased",
    "split",
]
EFFUSION = {
    "section_history": "Cough.",
    "section_findings": "Effusion.",
    "section_impression": "1. Effusion.",
}
STEMS = {  # image without suffix → view, parts of its report
    "train/patient00001/study1/view1_frontal": ("Frontal", EFFUSION),
    "train/patient00001/study1/view2_lateral": ("Lateral", EFFUSION),
    "train/patient00001/study2/view1_frontal": ("Frontal", {"report": "NARRATIVE: x\nIMPRESSION: Clear."}),
    "train/patient00001/study2/view2_frontal": ("", {"report": "NARRATIVE: x\nIMPRESSION: Clear, addended."}),
    "valid/patient64541/study1/view1_frontal": ("Frontal", {"section_summary": "2-ABNORMAL"}),
}
CODES = {  # image without suffix → codes of CheXbert; the last one has no line
    "train/patient00001/study1/view1_frontal": {"Pleural Effusion": 1.0, "Edema": -1.0, "Fracture": 0.0},
    "train/patient00001/study1/view2_lateral": {"Pleural Effusion": 1.0, "Edema": -1.0, "Fracture": 0.0},
    "train/patient00001/study2/view1_frontal": {"No Finding": 1.0},
}
LABELS = "chexbert_labels/report_fixed.json"


def table():
    file = io.StringIO()
    writer = csv.DictWriter(file, HEADER, restval="")
    writer.writeheader()
    for number, (stem, (view, parts)) in enumerate(STEMS.items()):
        row = {"": number, "path_to_image": f"{stem}.jpg", "path_to_dcm": f"{stem}.dcm"}
        writer.writerow(row | parts | {"frontal_lateral": view, "split": stem.partition("/")[0]})
    return file.getvalue()


def label_lines():
    lines = [
        {"path_to_image": f"{stem}.jpg", **{label: codes.get(label) for label in labels_of("chexpert_plus")}}
        for stem, codes in CODES.items()
    ]
    return "".join(json.dumps(line) + "\n" for line in lines)


def write_layout(folder, image_file, images="PNG", kind="png"):
    root = folder / "plus"
    suffix = "dcm" if kind == "dicom" else kind
    for seed, stem in enumerate(STEMS):
        path = root / images / f"{stem}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image_file(seed, kind))
    (root / "chexbert_labels").mkdir()
    (root / LABELS).write_text(label_lines())
    (root / chexpert_plus.TABLE).write_text(table())
    return root


TABLE = chexpert_plus.TABLE
SECRETS = ("patient64541", "Cough")
DAMAGED = {
    write_layout: [
        (TABLE, None, rf"`input` must be a folder with {TABLE}\. .*aimi\.stanford\.edu"),
        (TABLE, lambda t: t.replace("path_to_image", "path", 1), "`path_to_image` must be a column of"),
        (
            TABLE,
            lambda t: t + t.split("\n")[1] + "\n",
            "`path_to_image` must be .*'row 6, which repeats row 1'",
        ),
        (
            TABLE,
            lambda t: t.replace("patient00001", "p1", 1),
            "`path_to_image` must be of the form .*'row 1 of",
        ),
        (
            TABLE,
            lambda t: t.replace(",valid\r", ",train\r"),
            "`split` must be that of the path's first .*row 5 of",
        ),
        (
            TABLE,
            lambda t: t.replace("patient64541", "patient00001"),
            "`split` must be the same for all .*row 5 of",
        ),
        (
            TABLE,
            lambda t: t.replace(",Lateral,", ",Oblique,"),
            "`frontal_lateral` must be Frontal.*'Oblique'",
        ),
        (LABELS, lambda t: t.replace("-1.0", "3", 1), "`Edema` must be 1, 0, -1 or blank.*row 1 of"),
        (LABELS, lambda t: t.replace("Edema", "Oedema"), "`Edema` must be a column of .*names: Oedema"),
        (
            LABELS,
            lambda t: t + t.split("\n")[1],
            "`path_to_image` must be different in every line .*row 4 of",
        ),
        (LABELS, lambda t: t + "{", "`input` must be a JSON object in every line. Received: 'line 4 of"),
    ]
}


def test_patients_studies_and_splits_are_those_of_the_path(archive):
    rows = list(chexpert_plus.image_rows(archive))
    assert [row.path for row in rows] == [f"{archive}/PNG/{stem}.png" for stem in STEMS]
    assert [row.patient_id for row in rows] == [*4 * ["patient00001"], "patient64541"]
    assert [row.study_id.partition("/")[2] for row in rows] == ["study1"] * 2 + ["study2"] * 2 + ["study1"]
    assert [row.split for row in rows] == [*4 * ["train"], "valid"]
    assert [row.view for row in rows] == ["frontal", "lateral", "frontal", "frontal", "frontal"]


def test_labels_are_chexberts_by_the_images_path(archive, decoded):
    first = {"Pleural Effusion": POSITIVE, "Edema": UNCERTAIN, "Fracture": NEGATIVE}
    expected = [first, first, {"No Finding": POSITIVE}, {}, {}]
    assert list(decoded(chexpert_plus, archive, "chexpert14").values()) == expected
    (archive / LABELS).rename(archive / "impression_fixed.json")
    assert list(decoded(chexpert_plus, archive, "chexpert14").values()) == expected
    (archive / "impression_fixed.json").unlink()
    assert list(decoded(chexpert_plus, archive).values()) == [{}] * 5


@pytest.mark.parametrize("images", ["DICOM", "DICOM/Uncompressed", "DICOM/Compressed"])
def test_dicom_files_are_read_where_there_is_no_png(tmp_path, image_file, decoded, images):
    root = write_layout(tmp_path, image_file, images, "dicom")
    rows = list(chexpert_plus.image_rows(root))
    assert [row.path for row in rows] == [f"{root}/{images}/{stem}.dcm" for stem in STEMS]
    assert decoded(chexpert_plus, root)[rows[2].image_id] == {"No Finding": POSITIVE}


def test_a_study_has_one_report_or_each_text_it_has(archive):
    rows = list(chexpert_plus.report_rows(archive))
    assert [(row.report_id, row.study_id, row.split) for row in rows] == [
        ("patient00001/study1", "patient00001/study1", "train"),
        ("patient00001/study2", "patient00001/study2", "train"),
        ("patient00001/study2/2", "patient00001/study2", "train"),
    ]
    assert {row.study_id for row in rows} < {row.study_id for row in chexpert_plus.image_rows(archive)}
    assert chexpert_plus.read_report(rows[0]) == (
        Section("indication", "Cough."),
        Section("findings", "Effusion."),
        Section("impression", "1. Effusion."),
    )
    assert chexpert_plus.read_report(rows[2])[-1] == Section("impression", "Clear, addended.")


def test_patients_of_chexperts_sets_are_held_out(archive, tmp_path, monkeypatch):
    for name in ("train", "valid"):
        (tmp_path / f"{name}.csv").write_text(
            ",".join(("Path", "Frontal/Lateral", "AP/PA", *labels_of("chexpert"))) + "\n"
        )
    with open(tmp_path / "train.csv", "a") as file:
        for number, finding in enumerate(EVALUATION_SETS["chexpert_5x200"].classes):
            codes = ",".join("1.0" if label == finding else "" for label in labels_of("chexpert"))
            file.write(
                f"CheXpert-v1.0/train/patient0000{number}/study1/view1_frontal.jpg,Frontal,AP,{codes}\n"
            )
    assert len(list(chexpert.image_rows(tmp_path))) == 5
    small = dataclasses.replace(EVALUATION_SETS["chexpert_5x200"], sizes={"test": (1,) * 5})
    monkeypatch.setitem(EVALUATION_SETS, "chexpert_5x200", small)
    selection = select("chexpert_plus", str(archive), hold_out=(f"chexpert_5x200={tmp_path}",))
    assert selection.held_out & {row.patient_id for row in chexpert_plus.image_rows(archive)} == {
        "patient00001"
    }
    with pytest.raises(ValueError, match="`hold_out` must be NAME=PATH for a set of another archive"):
        select("chexpert_plus", str(archive), hold_out=("chexpert_5x200",))
