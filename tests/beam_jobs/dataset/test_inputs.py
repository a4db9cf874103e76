import functools
import os
import types

import pytest

from beam_jobs.dataset.inputs import input_sha256
from medclip_keras.provenance import code_sha256, versions


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
