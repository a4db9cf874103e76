import ast
import functools
import importlib
import os
import pathlib
import types

import pytest

import medclip_keras
from beam_jobs.dataset import inputs
from beam_jobs.dataset.inputs import input_sha256
from beam_jobs.dataset.job import describe_making
from beam_jobs.decode_images import DecodeOptions, make_job
from medclip_keras import sources
from medclip_keras.knowledge import label_names
from medclip_keras.provenance import bare_code, code_sha256, modules_behind, versions
from medclip_keras.sources import table


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "a [folder]"  # brackets are patterns to Beam's file systems
    (folder / "below").mkdir(parents=True)
    (folder / "below" / "one.txt").write_text("one")
    (folder / "two.txt").write_text("two")
    return folder


def test_folder_fingerprint_stays_while_nothing_changes(folder):
    assert input_sha256(str(folder), ()) == input_sha256(f"{folder}/", ())


def test_folder_fingerprint_does_not_depend_on_where_the_folder_is(folder, tmp_path):
    before = input_sha256(str(folder), ())
    folder.rename(tmp_path / "moved")
    assert input_sha256(str(tmp_path / "moved"), ()) == before


def test_folder_fingerprint_sees_the_files_outside_of_it_that_its_tables_name(folder, tmp_path, monkeypatch):
    inside, outside = folder / "two.txt", tmp_path / "image.png"
    outside.write_text("1")
    before = input_sha256(str(folder), [str(inside), str(outside)])
    assert before == input_sha256(f"{folder}/", [str(outside)])
    monkeypatch.chdir(folder)
    assert before == input_sha256(".", ["./two.txt", str(inside), str(outside)])
    os.utime(outside, ns=(1, 1))
    assert before != input_sha256(str(folder), [str(inside), str(outside)])


@pytest.mark.parametrize("source", ["table", "csv"])
def test_images_of_tables_are_part_of_the_input_wherever_they_lie(source, tmp_path):
    table_file, image = tmp_path / "tables" / "t.csv", tmp_path / "1.png"
    table_file.parent.mkdir()
    table_file.write_text("path,patient_id\n../1.png,p\n")
    given = str(table_file.parent if source == "table" else table_file)
    options = DecodeOptions(source=source, input=given, output=str(tmp_path / "out"), key_salt="salt")
    found = set()
    for content in (None, "", "1"):
        if content is not None:
            image.write_text(content)
        found.add(describe_making(make_job(options))["input_sha256"])
    assert len(found) == 3


def test_a_file_that_a_bucket_lacks_has_no_size(monkeypatch):
    lists = {
        "gs://b/1.png": [
            types.SimpleNamespace(path="gs://b/1.png", size_in_bytes=5, last_updated_in_seconds=7)
        ]
    }
    lists["gs://b/[1].png"] = lists["gs://b/1.png"]  # as a pattern it means the other one

    def match(patterns):
        return [types.SimpleNamespace(metadata_list=lists.get(pattern, [])) for pattern in patterns]

    monkeypatch.setattr(inputs.FileSystems, "match", match)
    assert inputs.describe("gs://b/1.png") == ("gs://b/1.png", 5, 7)
    assert [inputs.describe(name)[1] for name in ("gs://b/[1].png", "gs://b/2.png")] == [-1, -1]


CHANGES = {
    "content": lambda file: file.write_text("longer"),
    "touch": lambda file: os.utime(file, ns=(1, file.stat().st_mtime_ns + 1)),
    "new": lambda file: file.with_name("three.txt").write_text(""),
    "gone": lambda file: file.unlink(),
    "renamed": lambda file: file.rename(file.with_name("1.txt")),
}


@pytest.mark.parametrize("change", CHANGES)
def test_folder_fingerprint_sees_a_change(folder, change):
    before = input_sha256(str(folder), ())
    CHANGES[change](folder / "below" / "one.txt")
    assert input_sha256(str(folder), ()) != before


def test_table_fingerprint_sees_the_files_that_it_names(folder):
    table, image = str(folder / "two.txt"), folder / "below" / "one.txt"
    before = input_sha256(table, [str(image)])
    assert input_sha256(table, [str(image)]) == before
    os.utime(image, ns=(1, 1))
    changed = input_sha256(table, [str(image)])
    assert changed != before
    image.unlink()
    assert input_sha256(table, [str(image)]) not in (before, changed)


@pytest.mark.parametrize("name", ["part.py", "tables/words.txt"])
def test_code_fingerprint_covers_code_and_data_files_of_a_package(name, tmp_path):
    package, part, compiled = types.ModuleType("package"), tmp_path / name, tmp_path / "__pycache__/part.pyc"
    package.__file__ = str(tmp_path / "__init__.py")
    for file in (tmp_path / "__init__.py", part, compiled):
        file.parent.mkdir(exist_ok=True)
        file.write_text("x = 1")
    before = code_sha256([package])
    compiled.write_text("x = 2")
    assert code_sha256([package]) == before
    part.write_text("x = 2")
    assert code_sha256([package]) != before


CODE = """import os  # of the system


class A:
    '''What it is.

    More.
    '''

    # the first
    TEXT = '''a

#  b '''

    def f(self):
        "Of a line."
        return "#" + os.sep
"""


def test_bare_code_is_the_code_without_what_explains_it():
    lines = ["import os", "class A:", "    TEXT = '''a", "", "#  b '''"]
    assert bare_code(CODE) == "\n".join([*lines, "    def f(self):", '        return "#" + os.sep'])
    assert ast.dump(ast.parse(bare_code(CODE))) == ast.dump(ast.parse(bare_code(bare_code(CODE))))


@pytest.mark.parametrize(
    ("old", "new"), [("What it is", "Explained"), ("# the first", ""), ("  # of", "# of"), ("\n\n\n", "\n")]
)
def test_explanations_do_not_change_the_fingerprint_of_code(old, new):
    assert CODE.count(old) == 1
    assert bare_code(CODE.replace(old, new)) == bare_code(CODE)


@pytest.mark.parametrize(
    ("old", "new"), [("a\n\n", "a\n"), ("a\n\n", "a\n \n"), ("#  b", "# b"), ('"#"', '"/"'), ("os.sep", "os")]
)
def test_code_and_its_texts_change_the_fingerprint(old, new):
    assert CODE.count(old) == 1
    assert bare_code(CODE.replace(old, new)) != bare_code(CODE)


def test_bare_code_of_the_modules_lacks_their_docstrings():
    documented = 0
    for path in pathlib.Path(medclip_keras.__file__).parent.rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        first = (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]
        documented += bool(first)
        assert not first or first not in bare_code(source), path
    assert documented > 100


def test_modules_behind_a_source_are_those_that_decide_its_rows():
    found = {module.__name__.rpartition(".")[2] for module in modules_behind(table, sources.__name__)}
    assert {"table", "csv", "tables", "parquet_files", "spreadsheets", "files", "rows", "dicom"} <= found
    assert not {"fhir", "openi", "mimic_cxr"} & found


@pytest.mark.parametrize("module", ["parquet_files", "dicom_jpeg"])
def test_records_of_a_table_are_of_another_making_after_a_change_of_what_reads_it(
    module, tmp_path, monkeypatch
):
    (tmp_path / "t.csv").write_text("path,patient_id\n1.png,p\n")
    places = {"input": str(tmp_path / "t.csv"), "output": str(tmp_path / "out")}
    options = DecodeOptions(source="table", key_salt="salt", **places)
    before = describe_making(make_job(options))
    changed = importlib.import_module(f"{sources.__name__}.{module}")
    copy = tmp_path / f"{module}.py"
    copy.write_text(pathlib.Path(changed.__file__).read_text() + "\nNEW = 1\n")
    monkeypatch.setattr(changed, "__file__", str(copy))
    after = describe_making(make_job(options))
    assert {name for name in before if before[name] != after[name]} == {"code_sha256", "fingerprint"}


@pytest.mark.parametrize(
    ("dataset", "is_other"), [("chexpert", True), ("nih_chestxray14", True), ("rsna", False)]
)
def test_label_names_of_a_source_are_part_of_what_decides_its_records(
    dataset, is_other, tmp_path, monkeypatch
):
    (tmp_path / "t.csv").write_text("path,patient_id\n1.png,p\n")
    places = {"input": str(tmp_path / "t.csv"), "output": str(tmp_path / "out")}
    job = make_job(DecodeOptions(source="csv", key_salt="salt", **places))
    before = describe_making(job)["labels_sha256"]
    table_of = label_names._table()
    monkeypatch.setattr(label_names, "_table", lambda: {**table_of, dataset: {"New": "Edema"}})
    assert (describe_making(job)["labels_sha256"] != before) == is_other


def test_versions_name_the_packages():
    assert {"apache-beam", "tensorflow", "spacy"} <= versions().keys()


def test_folder_fingerprint_does_not_depend_on_the_order_of_listing(folder, monkeypatch):
    for name in ("above/three.txt", "four.txt", "below/five.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(name)
    walk, found = os.walk, set()

    def walk_in_order(path, backwards, **options):
        for parent, folders, names in walk(path, **options):
            folders.sort(reverse=backwards)
            yield parent, folders, sorted(names, reverse=backwards)

    for backwards in (False, True):
        monkeypatch.setattr(os, "walk", functools.partial(walk_in_order, backwards=backwards))
        found.add(input_sha256(str(folder), ()))
    assert len(found) == 1
