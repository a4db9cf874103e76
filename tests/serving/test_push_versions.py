"""MODELS_DIR: versions appear and vanish whole, whatever else is in the folder and whoever is killed."""

import errno
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
import tensorflow as tf
from etils import epath
from etils.epath import backend

from medclip_keras.serving import versions
from medclip_keras.serving.layout import EXTRA, MANIFEST_FILE, SAVED_MODEL
from medclip_keras.serving.manifest import check_manifest, read_manifest, write_manifest
from medclip_keras.serving.versions import (
    next_number,
    numbered,
    push,
    remove_older,
    roll_back,
    served,
    staging,
)

NAMES = ("model", "tokens_only")


def write_version(folder, content="weights"):
    folder = epath.Path(folder)
    for name, text in ((SAVED_MODEL, "graph"), ("variables/data", content), (f"{EXTRA}/run.json", "{}")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    write_manifest(folder, {"step": 3})


def push_one(models, content="weights"):
    with staging(models) as staged:
        for name in NAMES:
            write_version(staged / name, content)
        return push(staged, models)


def entries(folder):
    return sorted(path.name for path in pathlib.Path(folder).iterdir())


def test_versions_count_up_and_leave_no_other_entry(tmp_path):
    models = tmp_path / "a" / "models"
    assert [push_one(models).name for _ in range(3)] == ["1", "2", "3"]
    assert entries(models) == ["1", "2", "3", "tokens_only"]
    assert entries(models / "tokens_only") == ["1", "2", "3"]
    for place in (models, models / "tokens_only"):
        check_manifest(place / "3")


def test_odd_names_are_read_as_a_server_reads_them(tmp_path):
    """ParseVersionNumber takes signs, zeros and spaces, of files too; neither 64 bits nor other digits."""
    models = tmp_path / "models"
    write_version(models / "00012")
    write_version(models / "1.bak")
    write_version(models / "²")
    write_version(models / str(2**63))
    (models / "+15").write_text("a file")
    (models / "latest").symlink_to("00012")
    assert {n: p.name for n, p in numbered(models).items()} == {12: "00012", 15: "+15"}
    assert served(models).name == "00012"
    assert next_number(models) == 16
    (models / str(2**63 - 1)).mkdir()
    with pytest.raises(ValueError, match=r"`output` must be a folder with a free version number"):
        next_number(models)


def test_no_number_is_used_twice(tmp_path):
    for place, number in (("", 3), ("tokens_only", 6), ("rolled_back", 8), ("rolled_back/tokens_only", 9)):
        (tmp_path / place / str(number)).mkdir(parents=True)
        assert next_number(tmp_path) == number + 1


def test_a_file_that_changes_before_the_rename_is_noticed(tmp_path):
    models = tmp_path / "models"
    for number, damage in enumerate(
        (
            lambda folder: (folder / "variables" / "data").write_text("Weights"),
            lambda folder: (folder / "variables" / "data").unlink(),
            lambda folder: (folder / "variables" / "more").write_text(""),
            lambda folder: (folder / EXTRA / MANIFEST_FILE).unlink(),
            lambda folder: (folder / EXTRA / MANIFEST_FILE).write_text("{"),
        )
    ):
        said = (
            "Changed: variables/data",
            "Missing: variables/data",
            "Not listed: variables/more",
            "No assets.extra/manifest",
        )
        with staging(models) as staged:
            for name in NAMES:
                write_version(staged / name)
            damage(staged / NAMES[number % 2])
            with pytest.raises(ValueError, match=(*said, "is damaged")[number]):
                push(staged, models)
    assert entries(models) == []


def test_files_and_folders_are_on_the_disk_before_the_name_and_the_name_after_it(tmp_path, monkeypatch):
    done = []
    fsync, rename = os.fsync, os.rename
    monkeypatch.setattr(
        os, "fsync", lambda fd: (done.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))), fsync(fd))
    )
    monkeypatch.setattr(os, "rename", lambda a, b: (done.append(f"-> {os.path.basename(b)}"), rename(a, b)))
    push_one(tmp_path / "models")
    renamed = [n for n, what in enumerate(done) if what == "-> 1"]
    assert len(renamed) == 2
    assert {SAVED_MODEL, "data", "run.json", MANIFEST_FILE, "variables", EXTRA, *NAMES} <= {
        *done[: renamed[0]]
    }
    assert {"models", "tokens_only"} <= {*done[renamed[1] :]}


def test_a_concurrent_version_is_not_overwritten(tmp_path, monkeypatch):
    models = tmp_path / "models"
    push_one(models, "theirs")
    numbers = iter([1, 2])
    monkeypatch.setattr(versions, "next_number", lambda _: next(numbers))
    assert push_one(models, "ours").name == "2"
    for place in (models, models / "tokens_only"):
        assert (place / "1" / "variables" / "data").read_text() == "theirs"
    (models / "3" / "someone").mkdir(parents=True)  # without a twin
    numbers = iter([3, 4])
    assert push_one(models, "ours").name == "4"
    assert entries(models / "tokens_only") == ["1", "2", "4"]


def test_roll_back_serves_the_version_before(tmp_path):
    models = tmp_path / "models"
    for content in "abc":
        push_one(models, content)
    aside, now = roll_back(models)
    assert (aside, now) == (models / "rolled_back" / "3", models / "2")
    assert served(models) == models / "2"
    assert entries(models / "tokens_only") == ["1", "2"]
    for place in ("rolled_back", "rolled_back/tokens_only"):
        assert (models / place / "3" / "variables" / "data").read_text() == "c"
    assert roll_back(models)[1].name == "1"
    with pytest.raises(
        ValueError, match=r"at least two versions\. .* Nothing to roll back to\. Versions: 1\."
    ):
        roll_back(models)
    assert push_one(models, "d").name == "4"


def test_roll_back_refuses_what_a_server_would_not_serve(tmp_path):
    models = tmp_path / "models"
    with pytest.raises(ValueError, match=r"`output` must be a folder of at least two versions"):
        roll_back(models)
    for _ in range(2):
        push_one(models)
    (models / "07").write_text("")
    with pytest.raises(
        ValueError, match=r"whose numbers are versions\. Received: '.*/07'\. A server would try"
    ):
        roll_back(models)
    (models / "07").unlink()
    (models / "tokens_only" / "1" / "variables" / "data").write_text("rotten")
    with pytest.raises(ValueError, match="Changed: variables/data"):
        roll_back(models)
    assert entries(models) == ["1", "2", "tokens_only"]


def test_old_versions_without_a_manifest_or_a_twin_are_rolled_back_to(tmp_path):
    models = tmp_path / "models"
    write_version(models / "1")
    (models / "1" / EXTRA / MANIFEST_FILE).unlink()
    push_one(models)
    assert roll_back(models)[1] == models / "1"


def test_keep_spares_the_version_that_was_served_and_what_is_not_ours(tmp_path):
    models = tmp_path / "models"
    for _ in range(5):
        push_one(models)
    write_version(models / "00002")
    write_version(tmp_path / "elsewhere")
    (models / "0").symlink_to(tmp_path / "elsewhere")
    (models / "rolled_back" / "9").mkdir(parents=True)
    assert remove_older(models, 2, models / "2") == [1, 3]
    assert entries(models) == ["0", "00002", "2", "4", "5", "rolled_back", "tokens_only"]
    assert entries(models / "tokens_only") == ["2", "4", "5"]
    assert (tmp_path / "elsewhere" / SAVED_MODEL).exists()


def test_a_version_loses_its_name_before_its_files(tmp_path, monkeypatch):
    models, seen = tmp_path / "models", []
    for _ in range(2):
        push_one(models)
    rmtree = shutil.rmtree

    def watch(path, **options):
        seen.append(entries(models))
        rmtree(path, **options)

    monkeypatch.setattr(shutil, "rmtree", watch)
    remove_older(models, 1, None)
    assert all("1" not in names and "2" in names for names in seen)
    assert len(seen) == 2


def test_leftovers_of_the_killed_are_removed_and_the_living_are_not_touched(tmp_path):
    models = tmp_path / "models"
    push_one(models)
    push_one(models)
    for name in (".exporting-killed/model", ".removing-killed/7"):
        write_version(models / name)
    write_version(models / "tokens_only" / "3")  # a push was killed between its renames
    shutil.copytree(models / "2", models / "rolled_back" / "2")  # as was this rollback
    shutil.rmtree(models / "2")
    (models / "tokens_only" / "8").mkdir()  # nobody's
    with staging(models) as living:
        write_version(living / "model")
        push_one(models)
        assert (living / "model" / SAVED_MODEL).exists()
    assert entries(models) == ["1", "9", "rolled_back", "tokens_only"]
    assert entries(models / "tokens_only") == ["1", "8", "9"]
    assert entries(models / "rolled_back" / "tokens_only") == ["2"]


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_folder_that_cannot_be_written_is_refused_at_once(tmp_path, monkeypatch, number):
    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(versions.tempfile, "mkdtemp", fail)
    sentence = f"`output` must be a folder that can be written.*{os.strerror(number)}"
    with pytest.raises(ValueError, match=sentence), staging(tmp_path / "models"):
        pytest.fail("not reached")
    (tmp_path / "file").write_text("")
    sentence = "`output` must be a folder that can be written"
    with pytest.raises(ValueError, match=sentence), staging(tmp_path / "file"):
        pytest.fail("not reached")


CHILD = """
import itertools, pathlib, sys
sys.path.insert(0, {here!r})
import medclip_keras.serving.versions as versions
from medclip_keras.serving.manifest import write_manifest
models = pathlib.Path({models!r})
print("ready", flush=True)
for n in itertools.count():
    with versions.staging(models) as staged:
        for name in ("model", "tokens_only"):
            for file in ("variables/data", "assets.extra/run.json", "saved_model.pb"):
                (staged / name / file).parent.mkdir(parents=True, exist_ok=True)
                (staged / name / file).write_text(str(n) * 10_000)
            write_manifest(staged / name, {{}})
        before = versions.served(models)
        versions.push(staged, models)
    versions.remove_older(models, 2, before)
    if n % 3 == 2:
        versions.roll_back(models)
"""


def look(models):
    """Check each version that a reader finds; one that vanishes while it is read is not checked."""
    checked = 0
    for place in (models, models / "tokens_only"):
        for name in sorted(os.listdir(place), key=len) if place.exists() else ():
            if not name.isdigit():
                continue
            try:
                assert place != models or (models / "tokens_only" / name).exists()
                check_manifest(place / name)
            except (AssertionError, ValueError, FileNotFoundError):
                if (place / name).exists():
                    raise
            checked += 1
    return checked


def test_a_reader_sees_whole_versions_while_pushes_are_killed(tmp_path):
    """Pushes, removals and rollbacks of small versions; the benchmark push_kills kills the command itself."""
    models, rng, checked = tmp_path / "models", random.Random(0), 0
    root = str(pathlib.Path(versions.__file__).parents[2])
    code = CHILD.format(here=root, models=str(models))
    for _ in range(8):
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert child.stdout.readline() == "ready\n"
        until = time.monotonic() + rng.uniform(0, 0.4)
        while time.monotonic() < until:
            checked += look(models)
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
        child.stdout.close()
        checked += look(models)
    assert checked > 50
    push_one(models)
    twins = {n for n in entries(models / "tokens_only") if n.isdigit()}
    assert twins == {n for n in entries(models) if n.isdigit()}
    assert not [name for name in entries(models) if name.startswith(".")]


@pytest.fixture
def bucket(monkeypatch):
    """A folder gs://… in TensorFlow's file system in memory, and the log of what was done in it."""
    log = []

    class Memory:
        def __getattr__(self, name):
            def call(*arguments, **options):
                log.append((name, *map(str, arguments)))
                inside = [str(a).replace("gs://", "ram://") if "://" in str(a) else a for a in arguments]
                found = getattr(tf.io.gfile, name)(*inside, **options)
                if name == "walk":
                    return [(root.replace("ram://", "gs://"), *rest) for root, *rest in found]
                return found

            return call

    monkeypatch.setattr(type(backend.tf_backend), "gfile", property(lambda _: Memory()))
    folder = epath.Path("gs://bucket/models")
    yield folder, log
    folder.rmtree(missing_ok=True)


def renamed_to(log, version):
    targets = (str(call[2]) for call in log if call[0] == "rename")
    return [path.partition(f"{version}/")[2] for path in targets if path.startswith(f"{version}/")]


def test_in_a_bucket_the_file_that_makes_a_version_loadable_appears_last_and_vanishes_first(bucket):
    models, log = bucket
    for content in "ab":
        version = push_one(models, content)
    assert str(version) == "gs://bucket/models/2"
    files = [f"{EXTRA}/{MANIFEST_FILE}", f"{EXTRA}/run.json", "variables/data", SAVED_MODEL]
    assert renamed_to(log, version) == files
    assert renamed_to(log, models / "tokens_only" / "2") == files
    check_manifest(version)
    assert sorted(path.name for path in models.iterdir()) == ["1", "2", "tokens_only"]
    aside, now = roll_back(models)
    assert (str(aside), str(now)) == ("gs://bucket/models/rolled_back/2", "gs://bucket/models/1")
    assert renamed_to(log, aside)[0] == SAVED_MODEL
    assert (aside / "variables" / "data").read_text() == "b"
    assert sorted(path.name for path in models.iterdir()) == ["1", "rolled_back", "tokens_only"]
    assert push_one(models).name == "3"
    log.clear()
    assert remove_older(models, 1, None) == [1]
    removed = [call[1] for call in log if call[0] in ("remove", "rmtree")]
    assert removed[:2] == ["gs://bucket/models/1/saved_model.pb", "gs://bucket/models/1"]
    assert served(models) == models / "3"


def test_an_upload_is_read_again_and_old_ones_are_removed(bucket, monkeypatch):
    models, _ = bucket
    write_version(models / ".exporting-20200101T000000-killed" / "model")
    write_version(models / f".exporting-{versions._now():%Y%m%dT%H%M%S}-living" / "model")
    copy = versions._copy

    def lossy(source, destination):
        copy(source, destination)
        (destination / "model" / "variables" / "data").write_text("other")

    monkeypatch.setattr(versions, "_copy", lossy)
    with pytest.raises(ValueError, match="Changed: variables/data"):
        push_one(models)
    (left,) = (path.name for path in models.iterdir())
    assert left.endswith("-living")


def test_the_manifest_lists_size_and_sha256(tmp_path):
    write_version(tmp_path / "1")
    assert read_manifest(tmp_path / "1")["files"]["variables/data"] == {
        "bytes": 7,  # printf weights | sha256sum
        "sha256": "9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c",
    }
