"""MIMIC-CXR's labelled test studies: the radiologist's labels in place of the programs'."""

import importlib.util
import pathlib

from medclip_keras.knowledge.label_names import labels_of
from medclip_keras.knowledge.states import LabelState
from medclip_keras.sources import mimic_cxr, mimic_cxr_test

POSITIVE, NEGATIVE, UNCERTAIN = LabelState.POSITIVE, LabelState.NEGATIVE, LabelState.UNCERTAIN
TABLE = mimic_cxr_test.TABLE
LABELS = labels_of("mimic_cxr_test")
CODES = {  # study → codes
    "50000031": {"Airspace Opacity": "1.0", "No Finding": "0.0", "Edema": "-1.0"},
    "50000011": {"Pneumothorax": "1.0"},
}
SPEC = importlib.util.spec_from_file_location(
    "mimic_archive", pathlib.Path(__file__).parent / "test_mimic_cxr.py"
)
mimic_archive = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(mimic_archive)


def write_layout(folder, image_file):
    root = mimic_archive.write_layout(folder, image_file)
    rows = [(study, *(codes.get(label, "") for label in LABELS)) for study, codes in CODES.items()]
    (root / TABLE).write_text(mimic_archive.lines(("study_id", *LABELS), rows))
    return root


SECRETS = ("50000031",)
DAMAGED = {
    write_layout: [
        (TABLE, None, rf"`input` must be a folder with {TABLE}\. .*mimic-cxr-jpg/2\.1\.0"),
        (TABLE, lambda t: t.replace("study_id", "study"), "`study_id` must be a column of"),
        (TABLE, lambda t: t.replace("Airspace", "Lung"), "`Airspace Opacity` must be a column of"),
        (
            TABLE,
            lambda t: t.replace("Edema", "Oedema"),
            "`column` must be a label's.*'Oedema'. Near names: Edema",
        ),
        (
            TABLE,
            lambda t: t + t.split("\n")[1] + "\n",
            "`study_id` must be different in every row .*row 3 of",
        ),
        (TABLE, lambda t: t.replace("-1.0", "u"), "`Edema` must be 1, 0, -1 or blank.*row 1 of"),
        (
            TABLE,
            lambda t: t.replace("50000031", "59999999"),
            "`study_id` must be that of images of the metadata. Received: '1 of 2 studies",
        ),
    ]
}


def test_rows_are_those_of_the_tables_studies(archive):
    everything = {row.image_id: row for row in mimic_cxr.image_rows(archive)}
    rows = list(mimic_cxr_test.image_rows(archive))
    assert [row.image_id for row in rows] == ["aaaa0001", "aaaa0002", "cccc0001"]
    for row in rows:
        whole = everything[row.image_id]
        assert (row.path, row.patient_id, row.split) == (whole.path, whole.patient_id, whole.split)
    assert [row.report_id for row in mimic_cxr_test.report_rows(archive)] == ["s50000011", "s50000031"]
    assert everything["cccc0001"].labels["No Finding"] == POSITIVE  # the program's, which stay


def test_labels_are_the_tables(archive, decoded):
    effusion = {"Pneumothorax": POSITIVE}
    opacity = {"Lung Opacity": POSITIVE, "No Finding": NEGATIVE, "Edema": UNCERTAIN}
    for concepts in ("thorax", "chexpert14"):
        assert list(decoded(mimic_cxr_test, archive, concepts).values()) == [effusion, effusion, opacity]
