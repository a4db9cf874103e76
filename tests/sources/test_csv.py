"""Everybody's own table."""

import csv as builtin_csv

import numpy as np
import pytest
from etils import epath

from medclip_keras.knowledge.states import LabelState
from medclip_keras.sources import csv
from medclip_keras.sources.rows import BadRowError, ReportRow

TABLE = """path,patient_id,study_id,split,view,report,Pleural Effusion,Cardiomegaly,hospital,scanner
images/1.png,p17,s1,train,PA,"FINDINGS: Small left effusion.
No pneumothorax.",1,0,north,1
images/2.png,p17,s1,val,lateral,"FINDINGS: Small left effusion.
No pneumothorax.",,-1.0,north,0.0
,p23,s3,,,IMPRESSION: No acute disease.,,,south,
/absolute/4.png,p24,s4,TEST,,,0,1,south,2
gs://bucket/5.png,p25,,,,,,,,
"""


def write_layout(folder, image_file):
    root = folder / "own"
    root.mkdir()
    for seed, name in enumerate("abc"):
        (root / f"{name}.png").write_bytes(image_file(seed))
    path = root / "mine.csv"
    path.write_text("path,patient_id,Edema\na.png,p1,1\nb.png,p1,0\nc.png,p2,-1\n")
    return path


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text(TABLE)
    return path


def test_image_rows_are_the_rows_with_a_path(table, tmp_path):
    rows = list(csv.image_rows(table))
    relative = [str(tmp_path / f"images/{number}.png") for number in (1, 2)]
    assert [row.path for row in rows] == [*relative, "/absolute/4.png", "gs://bucket/5.png"]
    assert [row.image_id for row in rows][:2] == ["images/1.png", "images/2.png"]
    assert [row.patient_id for row in rows] == ["p17", "p17", "p24", "p25"]
    assert [row.study_id for row in rows][:3] == ["p17/s1", "p17/s1", "p24/s4"]
    assert [row.number for row in rows] == [1, 2, 4, 5]
    assert [row.split for row in rows] == ["train", "valid", "test", ""]
    assert [row.view for row in rows] == ["frontal", "lateral", "", ""]


def test_labels_are_read_as_chexpert_codes_them(table):
    labels = [row.labels for row in csv.image_rows(table)]
    effusion = [label["Pleural Effusion"].name for label in labels]
    assert effusion == ["POSITIVE", "NOT_MENTIONED", "NEGATIVE", "NOT_MENTIONED"]
    heart = [label["Cardiomegaly"].name for label in labels]
    assert heart == ["NEGATIVE", "UNCERTAIN", "POSITIVE", "NOT_MENTIONED"]
    # A column of another concept table counts where it holds a code, also one saved as a float.
    assert labels[0]["scanner"] == LabelState.POSITIVE  # the job drops it unless the concept table has it
    assert labels[1]["scanner"] == LabelState.NEGATIVE
    assert "scanner" not in labels[2]
    assert "hospital" not in labels[0]
    assert "report" not in labels[0]


def test_report_rows_are_one_a_study(table):
    rows = list(csv.report_rows(table))
    found = [(row.report_id, row.study_id, row.patient_id, row.split) for row in rows]
    assert found == [("s1", "p17/s1", "p17", "train"), ("s3", "p23/s3", "p23", "")]
    first = csv.read_report(rows[0])
    assert [section.name for section in first] == ["findings"]
    assert "No pneumothorax." in first[0].text


def test_a_row_with_image_and_report_joins_without_a_study_column(tmp_path):
    path = tmp_path / "plain.csv"
    path.write_text("path,patient_id,report\na.png,p1,No effusion is seen.\nb.png,p2,Large effusion.\n")
    images, reports = list(csv.image_rows(path)), list(csv.report_rows(path))
    assert [row.study_id for row in images] == [row.study_id for row in reports]
    assert len({row.study_id for row in images}) == 2
    assert [row.report_id for row in reports] == ["row 1 of plain.csv", "row 2 of plain.csv"]
    path.write_text("path,patient_id,report\nnew.png,p1,Clear.\na.png,p1,No effusion is seen.\n")
    assert images[0].study_id not in {row.study_id for row in csv.report_rows(path)} - {reports[0].study_id}
    assert [row.study_id for row in csv.report_rows(path)][1] == images[0].study_id  # rows may move


@pytest.mark.parametrize("names", [("images.csv", "reports.csv"), ("images/t.csv", "reports/t.csv")])
def test_rows_of_two_tables_are_no_study(tmp_path, names):
    texts = ("path,patient_id\na.png,p1\n", "report,patient_id\nClear.,p1\n")
    for name, text in zip(names, texts, strict=True):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (image,) = csv.image_rows(tmp_path / names[0])
    (report,) = csv.report_rows(tmp_path / names[1])
    assert image.study_id != report.study_id


def test_equal_rows_are_studies_of_their_own(tmp_path):
    (tmp_path / "t.csv").write_text("patient_id,report\np1,Clear.\np1,Clear.\n")
    assert len({row.study_id for row in csv.report_rows(tmp_path / "t.csv")}) == 2


def test_study_numbers_may_begin_anew_for_each_patient(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("path,patient_id,study_id,report\na.png,p1,1,Clear.\nb.png,p2,1.0,Edema.\nc.png,p2,2,\n")
    assert [row.study_id for row in csv.image_rows(path)] == ["p1/1", "p2/1", "p2/2"]
    reports = list(csv.report_rows(path))
    assert [(row.study_id, row.content) for row in reports] == [("p1/1", b"Clear."), ("p2/1", b"Edema.")]
    assert len({row.report_id for row in reports}) == 2


def test_a_blank_split_is_that_of_the_patients_other_rows(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("path,patient_id,split,report\n,p1,,Clear.\na.png,p1,test,\nb.png,p2,,Edema.\n")
    assert [row.split for row in csv.report_rows(path)] == ["test", ""]
    assert [row.split for row in csv.image_rows(path)] == ["test", ""]
    path.write_text("path,patient_id,split\na.png,p1,test\nb.png,p1,train\nc.png,p1,\n")
    with pytest.raises(
        ValueError, match=r"`split` must be one of test, train\. Received: 'blank in row 3 of"
    ):
        list(csv.image_rows(path))


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_table_reads_as_a_spreadsheet_saves_it(table, tmp_path, delimiter):
    rows = [*builtin_csv.DictReader(TABLE.splitlines(keepends=True))]
    columns = ["Cardiomegaly", *(name for name in rows[0] if name != "Cardiomegaly"), ""]
    saved = tmp_path / "saved.csv"
    with saved.open("w", encoding="utf-8-sig", newline="") as file:
        writer = builtin_csv.DictWriter(file, columns, restval="", delimiter=delimiter)  # ends lines by CRLF
        writer.writeheader()
        writer.writerows({**row, "patient_id": f" {row['patient_id']} "} for row in rows)
        writer.writerow({})
        writer.writerow({"view": " "})
    assert list(csv.image_rows(saved)) == list(csv.image_rows(table))
    contents = [row.content for row in csv.report_rows(table)]
    assert [row.content for row in csv.report_rows(saved)] == contents


def test_identifiers_are_read_in_one_form(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(
        "path,patient_id,study_id\na.png, 7,9.0\nb.png,7.0 ,9\nc.png,\u00a07\t, 9 \nd.png,1.2.0,9\n"
    )
    assert [row.patient_id for row in csv.image_rows(path)] == ["7", "7", "7", "1.2.0"]
    assert [row.study_id for row in csv.image_rows(path)] == ["7/9", "7/9", "7/9", "1.2.0/9"]
    path.write_text("path,patient_id\na.png,M\u00fcller\nb.png,Mu\u0308ller\n")
    assert len({row.patient_id for row in csv.image_rows(path)}) == 1


def test_a_path_is_one_image_however_it_is_spelt(tmp_path):
    path, head = tmp_path / "t.csv", "path,patient_id\n"
    path.write_text(f"{head}./a/1.png,p\na//b/../1.png,p\na/1.png,p\nhttp://h/a//1.png,p\n")
    rows = list(csv.image_rows(path))
    address = "http://h/a//1.png"  # a server may tell them apart
    assert [row.image_id for row in rows] == ["a/1.png"] * 3 + [address]
    paths = [f"{tmp_path}/{name}" for name in ("a/1.png", "a/b/../1.png", "a/1.png")]  # b may be a link
    assert [row.path for row in rows] == [*paths, address]
    path.write_text(f"{head}./a/1.png,p\na/1.png,q\n")
    with pytest.raises(ValueError, match=r"`path` must be an image of one patient .* repeats row 1"):
        list(csv.image_rows(path))


def test_a_path_above_a_table_on_a_bucket_is_resolved(tmp_path, monkeypatch):
    (tmp_path / "t.csv").write_text(
        "path,patient_id\n../images/1.png,p\n/data/2.png,p\ngs://b/a/../3.png,p\n"
    )
    monkeypatch.setattr(csv, "_folder_of", lambda path: epath.Path("gs://bucket/tables"))
    found = [row.path for row in csv.image_rows(tmp_path / "t.csv")]
    assert found[0] == "gs://bucket/images/1.png"
    assert found[2] == "gs://b/a/../3.png"


def test_studies_of_two_patients_are_two_whatever_their_names(tmp_path):
    (tmp_path / "t.csv").write_text("patient_id,study_id,report\na/b,c,Edema.\na,b/c,Effusion.\n")
    assert [row.content for row in csv.report_rows(tmp_path / "t.csv")] == [b"Edema.", b"Effusion."]


def test_a_column_almost_like_a_concept_in_use_is_refused(tmp_path):
    (tmp_path / "t.csv").write_text("path,patient_id,covid 19\na.png,p,1\n")
    with pytest.raises(ValueError, match=r"`column` must be written 'COVID-19'\. Received: 'covid 19'"):
        csv.unused_columns(tmp_path / "t.csv", ["COVID-19"])
    assert csv.unused_columns(tmp_path / "t.csv", ["Edema"]) == {"covid 19": 1}


@pytest.mark.parametrize("code", ["1", "1.0", "1.", "+1", " 1.000"])
def test_a_code_is_read_in_every_concept_table_as_programs_write_it(tmp_path, code):
    (tmp_path / "t.csv").write_text(f"path,patient_id,COVID-19,Edema\na.png,p,{code},{code}\n")
    (row,) = csv.image_rows(tmp_path / "t.csv")
    assert [row.labels[name] for name in ("COVID-19", "Edema")] == [LabelState.POSITIVE] * 2
    assert csv.unused_columns(tmp_path / "t.csv", ["COVID-19"]) == {"Edema": 1}


@pytest.mark.parametrize(
    "content", ["version https://git-lfs.github.com/spec/v1\noid sha256:a\n", "<html><h1>Sign in</h1></html>"]
)
def test_a_report_that_is_none_is_a_bad_row(content):
    with pytest.raises(BadRowError, match="the report is a"):
        csv.read_report(ReportRow("r", "s", "p", "t.csv", content.encode()))


def test_backslashes_separate_folders(tmp_path):
    (tmp_path / "mine.csv").write_text("path,patient_id\nimages\\a\\1.png,p1\ngs://b/odd\\name.png,p1\n")
    rows = list(csv.image_rows(tmp_path / "mine.csv"))
    assert [row.image_id for row in rows] == ["images/a/1.png", "gs://b/odd\\name.png"]
    assert [row.path for row in rows] == [str(tmp_path / "images/a/1.png"), "gs://b/odd\\name.png"]


def test_unused_columns_are_counted_by_their_filled_cells(table):
    assert csv.unused_columns(table, ["Pleural Effusion", "Cardiomegaly"]) == {"hospital": 4, "scanner": 3}
    with pytest.raises(ValueError, match=r"`scanner` must be 1, 0, -1 .*Received: '2'. It is row 4 of"):
        csv.unused_columns(table, ["scanner"])


def test_a_report_may_be_longer_than_the_limit_of_the_csv_module(tmp_path):
    text = "No effusion. " * 12_000
    assert len(text) > 131_072
    (tmp_path / "long.csv").write_text(f"patient_id,report\np1,{text}\n")
    (row,) = csv.report_rows(tmp_path / "long.csv")
    assert row.content == text.strip().encode()


def test_dicom_files_are_pictures_and_tell_their_view(tmp_path, dicom_file):
    pixels = np.array([[9, 8, 7], [6, 5, 4]], np.uint8)
    (tmp_path / "1.dcm").write_bytes(dicom_file(pixels, ViewPosition="LL"))
    path = tmp_path / "mine.csv"
    path.write_text("path,patient_id,view\n1.dcm,p1,\n1.dcm,p1,PA\nabsent.dcm,p3,\n")
    rows = list(csv.image_rows(path))
    assert [row.view for row in rows] == ["lateral", "frontal", ""]
    np.testing.assert_array_equal(csv.read_image(rows[0]), 257 * pixels.astype(int))


def test_a_row_without_text_is_a_bad_row():
    with pytest.raises(BadRowError, match="no report text"):
        csv.read_report(ReportRow("r", "s", "p", "t.csv"))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("path,patientid\na.png,p\n", r"`patient_id` must be a column of .*Near names: patientid\."),
        ("file,patient_id\na.png,p\n", r"`path` must be a column of"),
        ("path,patient_id,pleural_effusion\na.png,p,1\n", r"`column` must be written 'Pleural Effusion'"),
        ("path,patient_id,Study ID\na.png,p,1\n", r"`column` must be written 'study_id'"),
        (
            "path,patient_id,Edema\na.png,p,yes\n",
            r"`Edema` must be .* Received: 'yes'. It is row 1 of .*wrong",
        ),
        ("path,patient_id,view\na.png,p,oblique\n", r"`view` must be .*Received: 'oblique'. It is row 1 of"),
        ("path,patient_id,split\na.png,p,dev\n", r"`split` must be one of .*Received: 'dev'"),
        ("path,patient_id\na.png,\n", r"`patient_id` must be filled. Received: 'row 1 of"),
        ("path,patient_id\na.png,p,extra\n", r"`input` must be a table whose rows are as long"),
        ("path,patient_id,Edema,Edema\na.png,p,1,0\n", r"`column` must be different .*Received: \['Edema'\]"),
        (
            'path,patient_id,report\na.png,p,\na.png,p,"No\nc.png,p,\n',
            r"closed quotation .*'row 2 of .*wrong",
        ),
        (
            "path,patient_id,Edema,Edema.1\na.png,p,1,0\n",
            r"`column` must be different from the column 'Edema'",
        ),
        (
            "path,patient_id\na.png,p\n./a.png,q\n",
            "`path` must be an image of one patient.*'row 2 of .*repeats row 1'",
        ),
        ("path,patient_id,split\na.png,p,train\na.png,p,test\n", "`path` must be an image of one patient"),
        ("path,patient_id\na.png,1.23457E+11\n", r"`patient_id` must be written with all .*'row 1 of"),
        ("path,patient_id\na.png,p\nC:\\a.png,p\n", r"`path` must be a path without a drive.*'row 2 of"),
        (
            "path,patient_id\nd:/a.png,p\n",
            r"drive letter.*'row 1 of .*Write it relative to the table's folder",
        ),
        ("path,patient_id\n\\\\pacs\\a.png,p\n", r"without a drive letter or a server's name.*'row 1 of"),
    ],
)
def test_wrong_tables_are_refused(tmp_path, text, sentence):
    path = tmp_path / "wrong.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=sentence):
        list(csv.image_rows(path))


def test_report_rows_ask_for_a_report_column(tmp_path, image_file):
    with pytest.raises(ValueError, match="`report` must be a column"):
        next(csv.report_rows(write_layout(tmp_path, image_file)))
