"""The user's own tables of other forms: Parquet with images inside, workbooks, folders of parts."""

import io
import json
import zipfile

import numpy as np
import PIL.Image
import pyarrow
import pyarrow.parquet
import pytest

from medclip_keras.knowledge.states import LabelState
from medclip_keras.sources import csv, spreadsheets, table
from medclip_keras.sources.rows import BadRowError

POSITIVE, NEGATIVE, UNCERTAIN = LabelState.POSITIVE, LabelState.NEGATIVE, LabelState.UNCERTAIN
COLUMNS = ("image_path", "subject_id", "view_position", "findings", "impression", "Edema", "Hernia", "note")
ROWS = (
    ("a.png", "p1", "PA", "Mild edema.", "", "1", "", "x"),
    ("b.png", "p2", "lateral", "", "No edema.", "0", "-1", ""),
    ("c.png", "p3", "", "", "", "", "", ""),
)
LABELS = {
    "a.png": {"Edema": POSITIVE},
    "b.png": {"Edema": NEGATIVE, "Hernia": UNCERTAIN},
    "c.png": {},
}
MAIN = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
RELATIONS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"


def write_images(folder, image_file):
    for seed, (image, *_) in enumerate(ROWS):
        (folder / image).write_bytes(image_file(seed))


def write_csv_layout(folder, image_file):
    write_images(folder, image_file)
    (folder / "train.csv").write_text("\n".join(map(",".join, (COLUMNS, *ROWS))) + "\n")
    return folder


def cell(reference, value, shared):
    """A cell of a sheet: a number, a shared string, or one in the sheet."""
    if value.lstrip("-").isdigit():
        return (
            f'<c r="{reference}"><v>{value}.0</v></c>' if value != "0" else f'<c r="{reference}"><v>0</v></c>'
        )
    if value in shared:
        return f'<c r="{reference}" t="s"><v>{shared.index(value)}</v></c>'
    return f'<c r="{reference}" t="inlineStr"><is><r><t>{value[:1]}</t></r><r><t>{value[1:]}</t></r></is></c>'


def write_workbook(path, rows, shared=("p1", "Edema")):
    """What Excel writes of a first sheet, with a second one before it in the archive."""
    lines = [
        f'<row r="{number}">'
        + "".join(cell(f"{chr(65 + k)}{number}", v, shared) for k, v in enumerate(row) if v)
        # a cell with a format and without a value
        + f'<c r="AB{number}" s="1"/></row>'
        for number, row in enumerate(rows, 2)
    ]
    with zipfile.ZipFile(path, "w") as book:
        book.writestr("xl/worksheets/sheet1.xml", f"<worksheet {MAIN}><sheetData/></worksheet>")
        book.writestr(
            "xl/workbook.xml",
            f'<workbook {MAIN} xmlns:r="{RELATIONS}"><sheets><sheet name="all" r:id="rId7"/>'
            '<sheet name="empty" r:id="rId1"/></sheets></workbook>',
        )
        book.writestr(
            "xl/_rels/workbook.xml.rels",
            '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
            '<Relationship Id="rId1" Target="worksheets/sheet1.xml"/>'
            '<Relationship Id="rId7" Target="worksheets/sheet2.xml"/></Relationships>',
        )
        strings = "".join(f"<si><t>{text}</t></si>" for text in shared)
        book.writestr("xl/sharedStrings.xml", f"<sst {MAIN}>{strings}</sst>")
        sheet = f"<worksheet {MAIN}><sheetData>{''.join(lines)}</sheetData></worksheet>"
        book.writestr("xl/worksheets/sheet2.xml", sheet)


@pytest.fixture(params=["csv", "tsv", "xlsx", "parquet"])
def file(request, tmp_path, image_file):
    """The same table in every form."""
    write_images(tmp_path, image_file)
    path = tmp_path / f"mine.{request.param}"
    if request.param == "xlsx":
        write_workbook(path, (COLUMNS, *ROWS))
    elif request.param == "parquet":
        columns = dict(zip(COLUMNS, map(list, zip(*ROWS, strict=True)), strict=True))
        for name in ("Edema", "Hernia"):  # numbers, as pandas has them
            columns[name] = [float(code) if code else None for code in columns[name]]
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
    else:
        path.write_text(
            "\n".join(map({"csv": ",", "tsv": "\t"}[request.param].join, (COLUMNS, *ROWS))) + "\n"
        )
    return path


SECRETS = ("p1", "edema.")
DAMAGED = {
    write_csv_layout: [
        (
            "train.csv",
            lambda t: t.replace("subject_id", "person"),
            "`patient_id` must be a column of .*train.csv",
        ),
        ("train.csv", lambda t: t.replace("image_path", "picture"), "`path` must be a column of .*train.csv"),
        (
            "train.csv",
            lambda t: t.replace("note", "Patient"),
            "`column` must be one that stands for patient_id",
        ),
        ("train.csv", lambda t: t.replace("-1", "7"), "`Hernia` must be 1, 0, -1 or blank.*'7'"),
        ("train.csv", lambda t: t.replace("note", "hernia"), "`column` must be"),
        ("train.csv", lambda t: t.replace("p2", ""), "`patient_id` must be filled.*row 2 of"),
        ("train.csv", None, "`input` must be a folder of one kind of .parquet, .csv, .tsv, .xlsx"),
        ("more.tsv", lambda t: "image\tpatient\n", r"`input` must be a folder of one kind .*'.csv', '.tsv'"),
    ]
}


def test_every_form_gives_the_same_rows(file, decoded):
    rows = list(table.image_rows(file))
    assert [(row.image_id, row.patient_id, row.view, row.split) for row in rows] == [
        ("a.png", "p1", "frontal", ""),
        ("b.png", "p2", "lateral", ""),
        ("c.png", "p3", "", ""),
    ]
    assert decoded(table, file) == LABELS
    reports = list(table.report_rows(file))
    texts = [[(s.name, s.text) for s in table.read_report(row)] for row in reports]
    assert texts == [[("findings", "Mild edema.")], [("impression", "No edema.")]]
    assert table.unused_columns(file, ["Edema", "Hernia"]) == {"note": 1}


def png(seed):
    content = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 28), np.uint8)
    PIL.Image.fromarray(pixels).save(content, "png")
    return content.getvalue()


def write_parts(folder):
    """What `datasets` writes: parts of two splits, images in or beside them, classes as numbers."""
    features = {
        "image": {"_type": "Image"},
        "view": {"_type": "ClassLabel", "names": ["AP", "PA", "lateral"]},
        "Edema": {"_type": "ClassLabel", "names": ["unlabeled", "uncertain", "absent", "present"]},
    }
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    image = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    (folder / "data").mkdir()
    (folder / "data" / "beside.png").write_bytes(png(8))
    parts = {
        "train-00000-of-00002": ([png(0), png(1), None], ["p1", "p1", "p2"], [0, 1, 2], [3, 2, 0]),
        "train-00001-of-00002": ([png(2), b""], ["p3", "p3"], [1, 1], [1, 3]),
        "test-00000-of-00001": ([png(3)], ["p4"], [1], [3]),
    }
    for name, (contents, patients, views, codes) in parts.items():
        values = [{"bytes": c, "path": "beside.png" if c is None else "x.png"} for c in contents]
        columns = {"image": pyarrow.array(values, image), "patient": patients, "view": views, "Edema": codes}
        written = pyarrow.table(columns).replace_schema_metadata(metadata)
        pyarrow.parquet.write_table(written, folder / "data" / f"{name}.parquet", row_group_size=2)
    return folder


def test_images_inside_of_a_table_are_read(tmp_path, decoded):
    rows = list(table.image_rows(write_parts(tmp_path)))
    assert [(row.patient_id, row.split, row.view) for row in rows] == [
        ("p4", "test", "frontal"),
        ("p1", "train", "frontal"),
        ("p1", "train", "frontal"),
        ("p2", "train", "lateral"),
        ("p3", "train", "frontal"),
        ("p3", "train", "frontal"),
    ]
    assert [table.read_image(row) for row in rows[:5]] == [png(seed) for seed in (3, 0, 1, 8, 2)]
    with pytest.raises(BadRowError, match="the row of the table has no image"):
        table.read_image(rows[5])
    assert len({row.image_id for row in rows}) == len({row.study_id for row in rows}) == 6
    assert list(decoded(table, tmp_path).values()) == [
        {"Edema": POSITIVE},
        {"Edema": POSITIVE},
        {"Edema": NEGATIVE},
        {},
        {"Edema": UNCERTAIN},
        "the row of the table has no image",
    ]


def write_binary(path, **columns):
    values = {name: pyarrow.array(of, pyarrow.binary()) for name, of in columns.items()}
    pyarrow.parquet.write_table(pyarrow.table(values), path)
    return path


def test_texts_that_are_not_marked_as_such_are_texts(tmp_path):
    columns = {"image": [None, png(1)], "patient_id": [b"p1", b"p1"], "study_id": [b"s1", b"s2"]}
    reports = {"report": [None, "FINDINGS: Ödem.".encode()]}
    path = write_binary(tmp_path / "own.parquet", **columns, **reports)
    (row,) = list(table.report_rows(path))
    assert (row.patient_id, row.study_id) == ("p1", "p1/s2")
    assert row.content.decode() == "FINDINGS: Ödem."
    images = list(table.image_rows(path))
    assert [row.patient_id for row in images] == ["p1", "p1"]
    assert table.read_image(images[1]) == png(1)


def test_a_parquet_table_is_read_from_a_bucket(tmp_path, like_a_bucket, image_file):
    images = [{"bytes": image_file(0), "path": None}, {"bytes": b"two", "path": None}]
    cells = {"image": images, "patient_id": ["p", "q"]}
    pyarrow.parquet.write_table(pyarrow.table(cells), tmp_path / "t.parquet")
    rows = list(table.image_rows(tmp_path / "t.parquet"))
    assert [row.patient_id for row in rows] == ["p", "q"]
    assert [table.read_image(row) for row in rows] == [image_file(0), b"two"]


def test_parts_of_a_report_are_found_in_any_case_and_hidden_folders_are_not_read(tmp_path):
    (tmp_path / "t.csv").write_text("patient_id,Impression,Find_ings\np,Normal.,Clear.\n")
    (tmp_path / ".checkpoints").mkdir()
    (tmp_path / ".checkpoints" / "t.csv").write_text("patient_id,report\np,Old.\n")
    assert [row.content for row in table.report_rows(tmp_path)] == [b"FINDINGS: Clear.\nIMPRESSION: Normal."]


def test_accession_numbers_are_identifiers(tmp_path):
    path, rows = tmp_path / "t.tsv", "path\tpatient_id\tAccession Number\n1.png\tp\t70.0\n2.png\tp\t70\n"
    path.write_text(rows)
    assert {row.study_id for row in table.image_rows(path)} == {"p/70"}
    path.write_text(rows.replace("70.0", "1.2E+11"))
    with pytest.raises(ValueError, match="`Accession Number` must be written with all of its digits"):
        list(table.image_rows(path))


def test_binary_values_are_refused_where_texts_are_meant(tmp_path):
    keys = write_binary(tmp_path / "keys.parquet", image=[png(1)], patient_id=[b"\xff\xfe\0\1"])
    with pytest.raises(ValueError, match="`patient_id` must be a column of text or numbers"):
        list(table.image_rows(keys))
    mixed = write_binary(tmp_path / "mixed.parquet", image=[png(1)] * 2, patient_id=[b"p1", b"\xff"])
    with pytest.raises(ValueError, match="texts in UTF-8, in 'patient_id'"):
        list(table.image_rows(mixed))


def test_line_ends_that_excel_escapes_are_line_ends(tmp_path):
    rows = [("patient_id", "report"), ("p2", "FINDINGS: Clear._x000D_\nNo _x005F_x000D_ effusion._x000D_")]
    write_workbook(tmp_path / "own.xlsx", rows)
    (row,) = list(table.report_rows(tmp_path / "own.xlsx"))
    assert row.content.decode() == "FINDINGS: Clear.\r\nNo _x000D_ effusion."


def test_a_part_is_read_as_a_file_of_its_own(tmp_path):
    rows = list(table.image_rows(write_parts(tmp_path) / "data" / "train-00001-of-00002.parquet"))
    assert [row.split for row in rows] == ["train", "train"]
    assert table.read_image(rows[0]) == png(2)


def test_reports_of_several_parts_have_identifiers_of_their_own(tmp_path):
    for part in ("train-0.csv", "train-1.csv"):
        (tmp_path / part).write_text(f"patient,text\np1,Clear {part}.\np2,Clear.\n")
    reports = list(table.report_rows(tmp_path))
    assert len({row.report_id for row in reports}) == 4
    assert {row.split for row in reports} == {"train"}


@pytest.mark.parametrize("name", ["t.parquet", "t.xlsx"])
@pytest.mark.parametrize("content", [b"", b"PAR1 and PK\3\4 and no more"])
def test_damaged_files_are_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=r"`input` must be (a whole Parquet table|an Excel workbook)"):
        next(table.image_rows(tmp_path / name))


def test_the_own_table_of_csv_may_be_a_workbook_too(tmp_path, image_file):
    write_images(tmp_path, image_file)
    write_workbook(tmp_path / "t.xlsx", [("path", "patient_id"), ("a.png", "7"), ("b.png", "50414267")])
    assert [row.patient_id for row in csv.image_rows(tmp_path / "t.xlsx")] == ["7", "50414267"]
    assert spreadsheets._position("AB") == 27
