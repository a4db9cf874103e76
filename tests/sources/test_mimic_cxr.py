"""MIMIC-CXR: tables joined by study and patient, images in two forms, reports as they come; all made up."""

import gzip
import re
import shutil

import numpy as np
import pytest

from beam_jobs.dataset.sharding import key_row
from beam_jobs.label_reports import UNUSABLE, LabelOptions, LabelReport
from medclip_keras.knowledge.concepts import load_table
from medclip_keras.knowledge.label_names import labels_of
from medclip_keras.knowledge.states import LabelState
from medclip_keras.sources import mimic_cxr
from medclip_keras.sources.rows import BadRowError, ReportRow

POSITIVE, NEGATIVE, UNCERTAIN = LabelState.POSITIVE, LabelState.NEGATIVE, LabelState.UNCERTAIN
METADATA, SPLIT, CHEXPERT, NEGBIO = map(mimic_cxr.TABLES.format, ("metadata", "split", "chexpert", "negbio"))
# Patient, study, image, view: two patients share "p10", one has two studies, studies have one to two images.
IMAGES = (
    ("10000001", "50000011", "aaaa0001", "PA"),
    ("10000001", "50000011", "aaaa0002", "LATERAL"),
    ("10000001", "50000012", "aaaa0003", "AP"),
    ("10000777", "50000021", "bbbb0001", "LL"),
    ("19999999", "50000031", "cccc0001", ""),
)
SPLITS = {"10000001": "train", "10000777": "validate", "19999999": "test"}
CODES = {  # study → codes; the third study has no row, the order is not that of the images
    "50000031": {"No Finding": "1.0"},
    "50000011": {"Edema": "1.0", "Pneumothorax": "0.0", "Pneumonia": "-1.0"},
    "50000021": {"Pleural Effusion": "0.0"},
}
REPORTS = {
    "50000011": "FINAL REPORT\n INDICATION: Cough.\n \n FINDINGS: There is edema.\n \n IMPRESSION: Edema.\n",
    "50000012": "FINAL REPORT\n INDICATION: Cough.\n",
    "50000021": "FINAL REPORT\n CHEST, PA AND LATERAL\n \n The heart is large. No effusion is seen.\n",
    "50000031": "WET READ: No pneumothorax.\n",
}


def lines(header, rows):
    return "\n".join(",".join(row) for row in (header, *rows)) + "\n"


def tables():
    """Name → text of the published tables, with their published columns."""
    dimensions = ("2544", "3056", "21800101", "101010.101", "CHEST (PORTABLE AP)", "", "Erect")
    patient_of = {study: patient for patient, study, *_ in IMAGES}
    labels = sorted(labels_of("mimic_cxr"))  # the published order is the alphabet's
    header = (
        *("dicom_id", "subject_id", "study_id", "PerformedProcedureStepDescription", "ViewPosition", "Rows"),
        *("Columns", "StudyDate", "StudyTime", "ProcedureCodeSequence_CodeMeaning"),
        *("ViewCodeSequence_CodeMeaning", "PatientOrientationCodeSequence_CodeMeaning"),
    )
    return {
        METADATA: lines(header, [(i, p, s, "CHEST", view, *dimensions) for p, s, i, view in IMAGES]),
        SPLIT: lines(
            ("dicom_id", "study_id", "subject_id", "split"),
            [(image, study, patient, SPLITS[patient]) for patient, study, image, _ in reversed(IMAGES)],
        ),
        CHEXPERT: lines(
            ("subject_id", "study_id", *labels),
            [(patient_of[study], study, *(said.get(x, "") for x in labels)) for study, said in CODES.items()],
        ),
    }


def image_path(root, index):
    patient, study, image, _ = IMAGES[index]
    return root / "files" / f"p{patient[:2]}" / f"p{patient}" / f"s{study}" / f"{image}.jpg"


def write_layout(folder, image_file):
    root = folder / "mimic"
    for index in range(len(IMAGES)):
        path = image_path(root, index)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image_file(index, "jpeg"))
    for name, text in tables().items():
        (root / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
    for patient, study, *_ in IMAGES:
        path = root / mimic_cxr.REPORTS / "files" / f"p{patient[:2]}" / f"p{patient}" / f"s{study}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(REPORTS[study])
    return root


def repeat(number):
    return lambda text: text + text.split("\n")[number] + "\n"


SECRETS = tuple(SPLITS)
IMAGE_TABLE, SPLIT_TABLE, LABEL_TABLE = f"{METADATA}.gz", f"{SPLIT}.gz", f"{CHEXPERT}.gz"
DAMAGED = {
    write_layout: [
        *(
            (f"{name}.gz", None, rf"`input` must be a folder with {name}\.gz.* Received: '.*mimic'")
            for name in (METADATA, SPLIT, CHEXPERT)
        ),
        (IMAGE_TABLE, lambda t: t.replace("ViewPosition", "View"), "`ViewPosition` must be a column of"),
        (IMAGE_TABLE, lambda t: t.replace("study_id", "study"), "`study_id` must be a column .*names: study"),
        (SPLIT_TABLE, lambda t: t.replace("split", "fold"), "`split` must be a column of"),
        (LABEL_TABLE, lambda t: t.replace("Edema", "Oedema"), "`Edema` must be a column .*names: Oedema"),
        (IMAGE_TABLE, repeat(2), r"`dicom_id` must be different in every .*'row 6, which repeats row 2'"),
        (LABEL_TABLE, repeat(1), r"`study_id` must be different in every row .*Received: 'row 4 of"),
        (LABEL_TABLE, lambda t: t.replace("-1.0", "2.0"), r"`Pneumonia` must be 1, 0, -1 or blank"),
        (SPLIT_TABLE, lambda t: t.replace("validate", "dev"), r"`split` must be one of .*Received: 'dev'"),
        (SPLIT_TABLE, lambda t: t.replace("train", "test", 1), r"`split` must be the same for all images of"),
        (SPLIT_TABLE, lambda t: t.replace("10000777", "1"), r"`split` must be known .*Received: 'row 4 of"),
    ]
}


def test_images_are_joined_with_split_and_labels_by_patient_and_study(archive):
    rows = list(mimic_cxr.image_rows(archive))
    assert [(row.patient_id, row.study_id, row.image_id) for row in rows] == [image[:3] for image in IMAGES]
    assert [row.view for row in rows] == ["frontal", "lateral", "frontal", "lateral", ""]
    assert [row.split for row in rows] == ["train", "train", "train", "valid", "test"]
    assert [row.path for row in rows] == [str(image_path(archive, index)) for index in range(len(IMAGES))]


def test_labels_are_the_studys_as_chexpert_codes_them(archive, decoded):
    first = {"Edema": POSITIVE, "Pneumothorax": NEGATIVE, "Pneumonia": UNCERTAIN}
    expected = [first, first, {}, {"Pleural Effusion": NEGATIVE}, {"No Finding": POSITIVE}]
    for concepts in ("thorax", "chexpert14"):
        assert list(decoded(mimic_cxr, archive, concepts).values()) == expected
    assert [len(row.labels) for row in mimic_cxr.image_rows(archive)] == [14, 14, 0, 14, 14]


def test_identifiers_that_pandas_made_numbers_are_joined(archive):
    rows = list(mimic_cxr.image_rows(archive))
    for name in (METADATA, SPLIT, CHEXPERT):
        text = re.sub(r"\b([15]\d{7})\b", r" \1.0", tables()[name])
        assert text.count(".0") > tables()[name].count(".0")
        (archive / f"{name}.gz").write_bytes(gzip.compress(text.encode("utf-8-sig")))
    assert list(mimic_cxr.image_rows(archive)) == rows


def test_tables_without_a_common_study_are_refused(archive):
    text = re.sub(r",5(\d{7}),", r",6\1,", tables()[CHEXPERT])
    (archive / f"{CHEXPERT}.gz").write_bytes(gzip.compress(text.encode()))
    with pytest.raises(
        ValueError, match="`input` must be tables of images and labels with at least one study"
    ):
        next(mimic_cxr.image_rows(archive))


def test_the_order_of_a_table_does_not_matter(archive):
    rows = list(mimic_cxr.image_rows(archive))
    for name in (SPLIT, CHEXPERT):
        header, *others = tables()[name].splitlines()
        (archive / f"{name}.gz").write_bytes(gzip.compress("\n".join([header, *sorted(others)]).encode()))
    assert list(mimic_cxr.image_rows(archive)) == rows


def test_unpacked_tables_and_negbio_are_read(archive):
    rows = list(mimic_cxr.image_rows(archive))
    for name, text in tables().items():
        (archive / f"{name}.gz").unlink()
        (archive / name).write_text(text)
    assert list(mimic_cxr.image_rows(archive)) == rows
    (archive / NEGBIO).write_text(tables()[CHEXPERT].replace("1.0", "0.0"))
    assert list(mimic_cxr.image_rows(archive)) == rows  # CheXpert's table goes first
    (archive / CHEXPERT).unlink()
    assert next(mimic_cxr.image_rows(archive)).labels["Edema"] == NEGATIVE


def test_dicom_files_are_read_without_a_jpg_file(archive, decoded, dicom_file):
    path = image_path(archive, 3)
    path.unlink()
    pixels = np.random.default_rng(5).integers(0, 4096, (20, 28)).astype(np.uint16)
    path.with_suffix(".dcm").write_bytes(dicom_file(pixels, bits=12))
    assert mimic_cxr.read_image(list(mimic_cxr.image_rows(archive))[3]).shape == (20, 28)
    assert decoded(mimic_cxr, archive)["bbbb0001"] == {"Pleural Effusion": NEGATIVE}


def test_reports_are_found_with_the_split_of_their_images(archive):
    rows = list(mimic_cxr.report_rows(archive))
    assert [(row.report_id, row.study_id, row.patient_id, row.split) for row in rows] == [
        ("s50000011", "50000011", "10000001", "train"),
        ("s50000012", "50000012", "10000001", "train"),
        ("s50000021", "50000021", "10000777", "valid"),
        ("s50000031", "50000031", "19999999", "test"),
    ]
    assert {row.study_id for row in rows} == {row.study_id for row in mimic_cxr.image_rows(archive)}
    names = [section.name for section in mimic_cxr.read_report(rows[0])]
    assert names == ["indication", "findings", "impression"]


def test_reports_may_lie_beside_the_images(archive):
    rows = list(mimic_cxr.report_rows(archive))
    sections = [mimic_cxr.read_report(row) for row in rows]
    shutil.copytree(archive / mimic_cxr.REPORTS, archive, dirs_exist_ok=True)
    shutil.rmtree(archive / mimic_cxr.REPORTS)
    beside = list(mimic_cxr.report_rows(archive))
    assert [(row.report_id, row.split) for row in beside] == [(row.report_id, row.split) for row in rows]
    assert [mimic_cxr.read_report(row) for row in beside] == sections


def study_list(*studies):
    patient_of = {study: patient for patient, study, *_ in IMAGES}
    rows = [(patient_of[s], s, f"files/p{patient_of[s][:2]}/p{patient_of[s]}/s{s}.txt") for s in studies]
    return lines(("subject_id", "study_id", "path"), rows)


def test_the_study_list_names_the_reports(archive):
    text = study_list("50000031", "50000011", "50000012")
    (archive / mimic_cxr.REPORTS / f"{mimic_cxr.STUDY_LIST}.gz").write_bytes(gzip.compress(text.encode()))
    (archive / mimic_cxr.REPORTS / "files/p10/p10000001/s50000012.txt").unlink()
    rows = list(mimic_cxr.report_rows(archive))
    found = [(row.report_id, row.split) for row in rows]
    assert found == [("s50000031", "test"), ("s50000011", "train"), ("s50000012", "train")]
    assert mimic_cxr.read_report(rows[0])[0].name == "findings"
    with pytest.raises(FileNotFoundError):
        mimic_cxr.read_report(rows[2])
    (archive / mimic_cxr.REPORTS / f"{mimic_cxr.STUDY_LIST}.gz").unlink()
    (archive / mimic_cxr.STUDY_LIST).write_text(study_list("50000031", "50000031"))
    with pytest.raises(ValueError, match=r"`study_id` must be different in every row .*repeats row 1"):
        next(mimic_cxr.report_rows(archive))


def test_reports_without_findings_or_impression_are_counted(archive):
    table = load_table("chexpert14")
    options = LabelOptions(source="mimic_cxr", input=str(archive), output=f"{archive}-records")
    label = LabelReport(mimic_cxr.read_report, table)
    outcomes = {row.report_id: label(key_row(row, options)) for row in mimic_cxr.report_rows(archive)}
    assert {name: outcome.tags for name, outcome in outcomes.items()} == {
        "s50000011": (),
        "s50000012": (UNUSABLE,),
        "s50000021": (),  # neither section, but text under no heading
        "s50000031": (),
    }
    states = outcomes["s50000021"].record["label_states"]
    assert states[table.names.index("Pleural Effusion")] == NEGATIVE


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b" \n", "empty"),
        (b"", "empty"),
        (b"M\xfcller", "not UTF-8 text"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:a\nsize 1\n", "is a Git LFS pointer"),
        (b"\xef\xbb\xbf\n<!DOCTYPE html>\n<title>Sign in</title>", "is a web page"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "is a web page"),
        (b"404: Not Found", "an answer of a web server"),
        (b'{"message": "Not Found"}', "an answer of a web server"),
        (b"%PDF-1.4\n", "is a PDF document"),
        (b"{\\rtf1 Clear.}", "is a rich text document"),
        (b"PK\x03\x04", "is a zip archive"),
        ("Clear.".encode("utf-16"), "is UTF-16 text"),
        (b"FINAL REPORT\0\1", "is a binary file"),
    ],
)
def test_unreadable_reports_are_bad_rows(tmp_path, content, sentence):
    (tmp_path / "s1.txt").write_bytes(content)
    with pytest.raises(BadRowError, match=sentence) as error:
        mimic_cxr.read_report(ReportRow("s1", "1", "2", str(tmp_path / "s1.txt")))
    assert "ller" not in str(error.value)


def test_a_byte_order_mark_is_no_text(tmp_path):
    (tmp_path / "s1.txt").write_bytes("\ufeffFINDINGS: Clear.".encode())
    (section,) = mimic_cxr.read_report(ReportRow("s1", "1", "2", str(tmp_path / "s1.txt")))
    assert (section.name, section.text) == ("findings", "Clear.")


def test_reports_need_the_table_of_the_split_and_reports(archive, tmp_path):
    (tmp_path / "empty").mkdir()
    (archive / f"{SPLIT}.gz").rename(tmp_path / "empty" / f"{SPLIT}.gz")
    with pytest.raises(ValueError, match=rf"`input` must be a folder with {SPLIT}\.gz"):
        next(mimic_cxr.report_rows(archive))
    with pytest.raises(ValueError, match=r"`input` must be a folder with reports such as .*s50414267\.txt"):
        next(mimic_cxr.report_rows(tmp_path / "empty"))
