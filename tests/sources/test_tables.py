"""Tables of comma-separated values, and CheXpert's codes in them."""

import gzip
import zipfile

import pytest

from medclip_keras.knowledge.concepts import load_table
from medclip_keras.sources import csv, tables


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_read_table_yields_rows_by_column_also_after_a_byte_order_mark(tmp_path):
    path = write(tmp_path / "t.csv", '\ufeffa,b\n1,"two\nlines"\n3,\n')
    assert list(tables.read_table(path, ("a", "b"))) == [{"a": "1", "b": "two\nlines"}, {"a": "3", "b": ""}]


def test_read_table_refuses_a_missing_column_by_near_names_and_a_missing_file(tmp_path):
    path = write(tmp_path / "t.csv", "path,Patient ID\nx,1\n")
    with pytest.raises(ValueError, match=r"`patient_id` must be a column of .*Near names: Patient ID\."):
        next(tables.read_table(path, ("path", "patient_id")))
    with pytest.raises(ValueError, match=r"`zzz` must be a column of .*Known: path, Patient ID\."):
        next(tables.read_table(path, ("zzz",)))
    with pytest.raises(ValueError, match=r"`input` must be a table .* Received: '.*none.csv'"):
        next(tables.read_table(tmp_path / "none.csv", ()))


def test_read_table_refuses_a_row_that_ends_before_its_columns(tmp_path):
    short = write(tmp_path / "short.csv", "a,b,c\n1,2\n")
    assert [row["c"] for row in tables.read_table(short, ("a", "b"))] == [""]  # a column that no caller needs
    path = write(tmp_path / "cut.csv", "a,b,c\n1,2,3\n1,2\n1")
    with pytest.raises(ValueError, match=r"`input` must be a table whose rows .*'row 3 of .*cut\.csv'"):
        list(tables.read_table(path, ("a", "b")))


def test_read_table_refuses_another_encoding_without_quoting_the_line(tmp_path):
    path = tmp_path / "latin.csv"
    path.write_bytes("a\nMüller\n".encode("latin-1"))
    with pytest.raises(
        ValueError, match=r"`input` must be UTF-8\. Received: 'byte 0xfc in line 2 of .*latin"
    ) as error:
        list(tables.read_table(path, ("a",)))
    assert "ller" not in str(error.value)


@pytest.mark.parametrize("suffix", ["csv.gz", "csv.zip"])
def test_read_table_reads_compressed_tables_and_refuses_damaged_ones(tmp_path, suffix):
    path = tmp_path / f"t.{suffix}"
    content = "a,b\n" + "".join(f"{k},{k * k}\n" for k in range(999))
    if suffix == "csv.gz":
        path.write_bytes(gzip.compress(content.encode()))
    else:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("t.csv", content)
    assert [row["b"] for row in tables.read_table(path, ("a",))][-2:] == ["994009", "996004"]
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(ValueError, match=r"`input` must be a whole compressed table.*Download it again\."):
        list(tables.read_table(path, ("a",)))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_read_table_reads_lines_with_any_ends(tmp_path, end):
    (tmp_path / "t.csv").write_bytes(f'{end}a,b{end}1,"two{end}lines"{end} 3 ,{end}'.encode())
    rows = list(tables.read_table(tmp_path / "t.csv", ("a",)))
    assert rows == [{"a": "1", "b": f"two{end}lines"}, {"a": "3", "b": ""}]
    assert [row.place.partition(", ")[2] for row in rows] == ["line 3", "line 5"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"a,b,a\n1,2,3\n", r"`column` must be different from all other columns of .*\['a'\]"),
        (b"a,b\n1,2\n1,2,\n", r"rows are as long as its header\. Received: 'row 2 of .*t\.csv'"),
        (b'a,b\n\n1,2\n\n3,"4\n5,6\n', r"closed quotation marks\. Received: 'row 2 of .*t\.csv, line 5'"),
        (b'a,b\n1,"2"3\n', r"closed quotation marks\. Received: 'row 1 of"),
        (b"\n \n", "a table with a header. Received: 'the empty .*t.csv"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:a\n", "t.csv, which is a Git LFS pointer"),
        (b"\n<!DOCTYPE html>\n", "`a` must be a column of"),
        (b"<html><body>Sign in", "t.csv, which is a web page"),
        (b"PK\x03\x04\x14\x00", "t.csv, which is a zip archive or a spreadsheet"),
        ("a,b\n".encode("utf-16"), "t.csv, which is UTF-16 text"),
        (b"a,b\0\n", "t.csv, which is a binary file"),
        (b"a,b\n1,2\n3,\0\n", "text without NUL characters. Received: 'line 3 of"),
        (b"a,b\r1,2\r\xfc,2\r", r"UTF-8\. Received: 'byte 0xfc in line 3 of .*t\.csv"),
        (b"id,study_id,a\n1,1.23E+05,2\n", r"`study_id` must be written with all of its digits.*'row 1 of"),
    ],
)
def test_read_table_refuses_what_it_would_misread(tmp_path, content, sentence):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(ValueError, match=sentence):
        list(tables.read_table(tmp_path / "t.csv", ("a",)))


def test_read_table_refuses_a_zip_archive_with_a_password(tmp_path):
    with zipfile.ZipFile(tmp_path / "t.csv.zip", "w") as archive:
        archive.writestr("t.csv", "a\n1\n")
    content = bytearray((tmp_path / "t.csv.zip").read_bytes())
    for signature, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):  # of the member, and in the directory
        content[content.index(signature) + flags] |= 1
    (tmp_path / "t.csv.zip").write_bytes(content)
    with pytest.raises(ValueError, match=r"`input` must be a zip archive without a password.*t\.csv\.zip"):
        list(tables.read_table(tmp_path / "t.csv.zip", ("a",)))


def test_read_table_passes_over_what_a_macintosh_adds_to_a_zip_archive(tmp_path):
    with zipfile.ZipFile(tmp_path / "t.csv.zip", "w") as archive:
        archive.writestr("t.csv", "a\n1\n")
        archive.writestr("__MACOSX/._t.csv", "\0")
    assert list(tables.read_table(tmp_path / "t.csv.zip", ("a",))) == [{"a": "1"}]


def test_codes_of_a_row_are_refused_with_their_row(tmp_path):
    path = write(tmp_path / "t.csv", "Edema,Hernia\n1.0,0\n1,\n0,2\n")
    first, *_, last = tables.read_table(path, ())
    states = tables.states_in(first, {"Edema": "Edema", "Hernia": "Hernia"})
    assert [state.name for state in states.values()] == ["POSITIVE", "NEGATIVE"]
    with pytest.raises(
        ValueError, match=r"`Hernia` must be 1, 0, -1 or blank. Received: '2'. It is row 3 of"
    ):
        tables.states_in(last, {"Edema": "Edema", "Hernia": "Hernia"})


def test_read_table_refuses_an_archive_of_several_tables(tmp_path):
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
        archive.writestr("a.csv", "a\n")
        archive.writestr("b.csv", "a\n")
    with pytest.raises(ValueError, match=r"`input` must be one table .*Received: \['a.csv', 'b.csv'\]"):
        list(tables.read_table(tmp_path / "t.zip", ()))


def test_require_distinct_names_both_rows_and_no_key():
    tables.require_distinct(["p1", "p2", ("p1", "2")], "patientId", "t.csv")
    received = r"Received: 'row 4, which repeats row 2'\. Delete one of them\.$"
    with pytest.raises(
        ValueError, match=r"^`patientId` must be different in every row of t\.csv\. " + received
    ):
        tables.require_distinct(["p1", "p2", "p3", "p2", "p1"], "patientId", "t.csv")


def test_state_of_code_reads_chexperts_codes():
    states = [tables.state_of_code(code, "Edema") for code in ("1", "1.0", "0", "0.0", "-1.0", " ")]
    names = ["POSITIVE", "POSITIVE", "NEGATIVE", "NEGATIVE", "UNCERTAIN", "NOT_MENTIONED"]
    assert [state.name for state in states] == names


@pytest.mark.parametrize(("cell", "shown"), [("2", "2"), ("1,5", "1,5"), ("Ann Lee: edema", "a text")])
def test_a_cell_that_is_no_code_is_quoted_only_if_it_is_a_number(cell, shown):
    with pytest.raises(ValueError, match=f"`Edema` must be 1, 0, -1 or blank. Received: '{shown}'"):
        tables.state_of_code(cell, "Edema")


def test_code_of_state_is_the_inverse():
    assert {tables.state_of_code(code, "x"): code for code in tables.CODE_OF_STATE.values()} == (
        tables.CODE_OF_STATE
    )


def test_published_label_names_are_those_of_the_concept_tables():
    assert load_table("chexpert14").names == tables.CHEXPERT_OBSERVATIONS
    assert set(csv.CHEST21) == set(load_table("chest21").names)
