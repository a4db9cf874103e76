import dataclasses
import gzip
import hashlib
import json
import pathlib

import numpy as np
import pytest

from medclip_keras.evaluation.image_manifest import embed_files, read_image_manifest


@pytest.fixture
def folder(tmp_path):
    for n in range(3):
        (tmp_path / f"{n}.png").write_bytes(bytes([n]))
    (tmp_path / "prompts.json").write_text(json.dumps({"covid": ["covid"], "normal": ["normal", "healthy"]}))
    return tmp_path


def read(folder, table, prompts="prompts.json", classes=()):
    (folder / "images.csv").write_text(table)
    prompts = str(folder / prompts) if prompts else ""
    return read_image_manifest(str(folder / "images.csv"), prompts, classes)


def test_one_class_an_image_makes_a_single_finding_task(folder):
    manifest = read(folder, "path,covid,normal\n0.png,1,0\n1.png,0,1\n2.png,0,1\n")
    assert manifest.name == "images"
    assert manifest.task.name == "single_finding"
    assert manifest.task.classes == ("covid", "normal")
    assert manifest.task.class_index.tolist() == [0, 1, 1]
    assert len(set(manifest.task.patient_ids)) == 3
    assert dict(manifest.prompts) == {"covid": ("covid",), "normal": ("normal", "healthy")}


@pytest.mark.parametrize(
    "table", ["path,covid,normal\n0.png,1,1\n1.png,0,1\n", "path,covid,normal\n0.png,0,0\n1.png,0,1\n"]
)
def test_several_or_no_classes_make_a_multi_label_task(folder, table):
    assert read(folder, table).task.name == "multi_label"


def test_patients_are_read_where_there_are_any(folder):
    manifest = read(folder, "path,patient_id,covid,normal\n0.png,a,1,0\n1.png,a,0,1\n2.png,b,0,1\n")
    assert manifest.task.patient_ids.tolist() == ["a", "a", "b"]
    assert manifest.task.classes == ("covid", "normal")


def test_a_table_reads_as_a_spreadsheet_saves_it(folder):
    saved = "\ufeffcovid;normal;patient_id;path\r\n1;0; a ;0.png\r\n;1;a;.\\1.png\r\n;;;\r\n0;;b;2.png\r\n"
    manifest = read(folder, saved)
    assert [pathlib.Path(path) for path in manifest.paths] == [folder / f"{n}.png" for n in range(3)]
    assert manifest.numbers == (1, 2, 4)
    assert (manifest.task.name, manifest.task.classes) == ("multi_label", ("covid", "normal"))
    assert manifest.task.patient_ids.tolist() == ["a", "a", "b"]
    known = [[1, 0], [np.nan, 1], [0, np.nan]]
    np.testing.assert_array_equal(manifest.task.labels, known)


def test_named_classes_leave_further_columns_alone(folder):
    table = "age,path,covid,site,normal\n61,0.png,1,A,0\n48,1.png,0,B,1\n"
    manifest = read(folder, table, classes=("normal", "covid"))
    assert manifest.task.classes == ("normal", "covid")
    assert manifest.task.labels.tolist() == [[0, 1], [1, 0]]
    assert manifest.task.names.tolist() == ["0.png", "1.png"]
    with pytest.raises(ValueError, match=r"unless --classes names other columns\. Received: '61'"):
        read(folder, table)
    with pytest.raises(ValueError, match=r"`--classes` must be columns .* Near names: covid"):
        read(folder, table, classes=("covids",))


def test_shipped_prompts_serve_their_own_classes(folder):
    manifest = read(folder, "path,Pneumonia\n0.png,1\n1.png,0\n", prompts="")
    assert list(manifest.prompts) == ["Pneumonia", "No Finding"]
    assert len(manifest.prompts["Pneumonia"]) == 10


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ("file,covid,normal\n0.png,1,0\n", "`path` must be a column of"),
        ("path,covid,covid\n0.png,1,0\n", "`column` must be different from all other columns"),
        ("path,covid,normal\nD:\\0.png,1,0\n", "without a drive letter or a server's name"),
        ("path\n0.png\n", "at least one class column"),
        ("path,covid,normal\n", "at least one row"),
        (
            "path,covid,normal\n0.png,1,yes\n",
            "`normal` must be 1, 0, -1 or blank, unless --classes names other columns. Received: 'yes'",
        ),
        ("path,covid,normal\n,,\n0.png,1,0\nnone.png,1,0\n", "1 of 2 missing, the first in row 3"),
        ("path,covid,flu\n0.png,1,0\n", "`prompts` must be a file with the class 'flu'"),
        ("path,covid\n0.png,1\n1.png,0\n", "`prompts` must be a file of the manifest's classes"),
    ],
)
def test_bad_tables_are_refused(folder, table, sentence):
    with pytest.raises(ValueError, match="Received") as raised:
        read(folder, table)
    assert sentence in str(raised.value)


def test_missing_files_are_refused_without_their_names(folder):
    with pytest.raises(ValueError, match="missing") as raised:
        read(folder, "path,covid,normal\nsmith_john.png,1,0\n")
    assert "smith" not in str(raised.value)


def read_square(path):
    value = pathlib.Path(path).read_bytes()[0]
    if value == 1:
        raise ValueError("it is no picture")
    return np.full((2, 2, 1), value, np.uint8)


MEANS = {"trained": lambda images: images.mean((1, 2)), "untrained": lambda images: -images.mean((1, 2))}


def test_files_are_embedded_in_their_order(folder):
    embedded = embed_files(MEANS, read_square, read(folder, "path,covid,normal\n2.png,1,0\n0.png,0,1\n"))
    assert {who: values.tolist() for who, values in embedded.items()} == {
        "trained": [[2], [0]],
        "untrained": [[-2], [0]],
    }


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"path,covid,normal\n\n\n0.png,1,0\n\n1.png,2,0\n", r"`covid` must be .*row 2 of .*line 6"),
        (b'path,covid,normal\n0.png,1,"0\n1.png,1,0\n', r"closed quotation marks.*'row 1 of"),
        (
            b"path,patient_id,covid,normal\n0.png,M\xfcller,1,0\n",
            r"UTF-8\. Received: 'byte 0xfc in line 2 of",
        ),
        (b"path,covid,normal\n0.png,1,0,1\n", r"as long as its header\. Received: 'row 1 of"),
        (b"version https://git-lfs.github.com/spec/v1\n", "which is a Git LFS pointer"),
    ],
)
def test_a_damaged_table_is_refused_with_its_row(folder, content, sentence):
    (folder / "own.csv").write_bytes(content)
    with pytest.raises(ValueError, match=sentence):
        read_image_manifest(str(folder / "own.csv"))


@pytest.mark.parametrize(
    "content", ["\ufeffpath,{}\n0.png,{}\n", "path;{}\r\n 0.png ;{}\r\n", "path,{}\r0.png,{}\r"]
)
def test_a_table_with_a_byte_order_mark_or_other_line_ends_is_read(folder, content):
    names = "patient_id,Edema,Pleural Effusion", "7.0,1,0"
    delimiter = ";" if ";" in content else ","
    text = content.format(*(name.replace(",", delimiter) for name in names))
    (folder / "own.csv").write_bytes(text.encode())
    manifest = read_image_manifest(str(folder / "own.csv"))
    assert manifest.task.classes == ("Edema", "Pleural Effusion")
    assert manifest.task.labels.tolist() == [[1, 0]]


def test_a_broken_image_is_named_by_its_row(folder):
    manifest = read(folder, "path,covid,normal\n2.png,1,0\n,,\n1.png,0,1\n0.png,0,1\n")
    with pytest.raises(ValueError, match=r"cannot be read in row 3 \(it is no picture\)"):
        embed_files(MEANS, read_square, manifest)


def test_labels_as_programs_write_them_are_read(folder):
    """pandas writes 1.0 beside blanks, CheXpert -1 for uncertain; a no-break space is blank."""
    manifest = read(folder, "path,covid,normal\n0.png,1.0,0.0\n1.png,-1.0,\u00a0\n2.png,0,1\n")
    np.testing.assert_array_equal(manifest.task.labels, [[1, 0], [np.nan, np.nan], [0, 1]])


def test_a_manifest_named_like_another_data_set_gets_a_name_of_its_own(folder):
    manifest = read(folder, "path,covid,normal\n0.png,1,0\n")
    assert manifest.name_beside(["phantom"]) == "images"
    assert manifest.name_beside(["Images"]) == "images (manifest)"
    capitals = dataclasses.replace(manifest, name="IMAGES")
    assert capitals.name_beside(["images"]) == "IMAGES (manifest)"
    assert manifest.name_beside(["images", "images (manifest)"]) == "images (manifest 2)"


def test_a_manifest_says_what_it_was_read_from(folder):
    first = read(folder, "path,covid,normal\n0.png,1,0\n").made_from
    assert first["manifest"] == str(folder / "images.csv")
    assert (first["rows"], first["prompts"]) == (1, str(folder / "prompts.json"))
    assert first["sha256"] == hashlib.sha256((folder / "images.csv").read_bytes()).hexdigest()[:16]
    (folder / "prompts.json").write_text(json.dumps({"covid": ["covid?"], "normal": ["normal"]}))
    second = read(folder, "path,covid,normal\n0.png,0,1\n").made_from
    assert not {first[key] for key in ("sha256", "prompts_sha256")} & set(second.values())


@pytest.mark.parametrize(("file", "name"), [("a.b.csv", "a.b"), ("mine.csv.gz", "mine"), ("...csv", "..")])
def test_a_manifest_has_the_name_of_its_file(folder, file, name):
    content = b"path,Edema\n0.png,1\n"
    (folder / file).write_bytes(gzip.compress(content) if file.endswith("gz") else content)
    assert read_image_manifest(str(folder / file)).name == name
