"""Jobs that are killed: their half output is no dataset, and the next attempt ends as an unbroken one."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest
import tensorflow_datasets as tfds
from etils import epath

from beam_jobs import decode_images, label_reports
from beam_jobs.dataset.writing import publish, require_replaceable, start_workplace
from medclip_keras import fit
from medclip_keras.records.manifest import MANIFEST_NAME, read_manifest, verify
from medclip_keras.records.shards import shard_of_file

pytestmark = pytest.mark.slow

NUM_ROWS = 600
ROWS_PER_SHARD = 6


@pytest.fixture(scope="module")
def told(tmp_path_factory, concepts):
    """Options of both jobs on a generated MIMIC-CXR tree; shards so small that there are a hundred."""
    tree = tmp_path_factory.mktemp("mimic") / "tree"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(pathlib.Path(__file__).parents[1] / "benchmarks"))
        from mimic_tree import write_tree
    write_tree(tree, NUM_ROWS)
    return {
        "source": "mimic_cxr",
        "input": str(tree),
        "concepts": concepts,
        "records_per_shard": ROWS_PER_SHARD,
    }


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, told):
    """What unbroken runs write: reports, mentions, images."""
    root = tmp_path_factory.mktemp("unbroken")
    label_reports.run(output=str(root / "reports"), mentions=str(root / "mentions"), **told)
    decode_images.run(output=str(root / "images"), reports=str(root / "reports"), image_size=32, **told)
    return root


def start(job, told, stderr=subprocess.DEVNULL, **more):
    """Start a job as a user does, in a process group of its own."""
    arguments = [f"--{name}={value}" for name, value in {**told, **more}.items()]
    command = [sys.executable, "-m", f"beam_jobs.{job}", *arguments]
    return subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's `&` ignores it
    )


def finished_shards(folder):
    return [path for path in folder.glob("*.incomplete-*/dataset/*") if shard_of_file(path.name)]


def stop_in_the_middle(process, folder, whole):
    """Halts all processes of a job when some of the shards of the `whole` dataset are written, not all."""
    deadline = time.monotonic() + 300
    while len(finished_shards(folder)) < 5:
        assert process.poll() is None, "the job ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGSTOP)
    finished = len(finished_shards(folder))
    if finished >= read_manifest(whole).num_records / ROWS_PER_SHARD:
        os.killpg(process.pid, signal.SIGKILL)
        pytest.fail(f"the job was halted too late, after {finished} shards")


def processes_of(group):
    """The processes of a group that run."""
    found = subprocess.run(["ps", "-eo", "pgid=,stat="], capture_output=True, text=True, check=True)
    lines = (line.split() for line in found.stdout.splitlines())
    return [state for pgid, state in lines if int(pgid) == group and not state.startswith("Z")]


def assert_no_dataset(folder, tmp_path, capsys):
    with pytest.raises(ValueError, match=r"must be a folder of records with a manifest.json.*did not finish"):
        read_manifest(folder)
    with pytest.raises(Exception, match=r"Could not (read|load) dataset info"):
        tfds.builder_from_directory(folder)
    capsys.readouterr()
    assert fit.main([f"--images={folder}", f"--workdir={tmp_path / 'fit'}"]) == 1
    assert "must be a folder of records with a manifest.json" in capsys.readouterr().err


def test_labelling_whose_first_process_is_killed_ends_as_an_unbroken_one(
    told, unbroken, contents, tmp_path, capsys
):
    out = tmp_path / "out"
    more = {"output": out / "records", "mentions": tmp_path / "mentions", "workers": 2}
    process = start("label_reports", told, **more)
    stop_in_the_middle(process, out, unbroken / "reports")
    assert len(processes_of(process.pid)) >= 3
    process.kill()  # and not its workers, who are to notice
    os.killpg(process.pid, signal.SIGCONT)
    process.wait()
    killed = time.monotonic()
    while processes_of(process.pid):
        assert time.monotonic() < killed + 15, "workers outlive their job"
        time.sleep(0.1)
    assert len(finished_shards(out)) >= 5
    assert not (out / "records").exists()
    assert not (tmp_path / "mentions").exists()
    (left,) = (path for path in out.iterdir() if path.name != "records.lock")
    for folder in (out / "records", left, left / "dataset"):
        assert_no_dataset(folder, tmp_path, capsys)
    assert start("label_reports", told, **more).wait() == 0
    assert [path.name for path in out.iterdir()] == ["records"]
    assert contents(out / "records") == contents(unbroken / "reports")
    assert contents(tmp_path / "mentions") == contents(unbroken / "mentions")


def test_decoding_that_is_killed_leaves_an_older_dataset_whole_and_ends_as_an_unbroken_one(
    told, unbroken, contents, tmp_path, capsys
):
    out = tmp_path / "out"
    decode_images.run(output=str(out / "records"), image_size=16, **told)
    before = contents(out / "records")
    more = {"output": out / "records", "reports": unbroken / "reports", "image_size": 32}
    process = start("decode_images", told, **more)
    stop_in_the_middle(process, out, unbroken / "images")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert 5 <= len(finished_shards(out)) < NUM_ROWS / ROWS_PER_SHARD
    assert contents(out / "records") == before
    verify(out / "records")
    (left,) = (path for path in out.iterdir() if path.name not in ("records", "records.lock"))
    for folder in (left, left / "dataset"):
        assert_no_dataset(folder, tmp_path, capsys)
    assert start("decode_images", told, **more).wait() == 0
    assert [path.name for path in out.iterdir()] == ["records"]
    assert contents(out / "records") == contents(unbroken / "images")


@pytest.mark.parametrize("workers", [1, 2])
def test_interrupted_job_ends_with_one_line_and_leaves_nothing(told, unbroken, tmp_path, workers):
    with (tmp_path / "log").open("w+") as log:
        out = tmp_path / "out"
        process = start("label_reports", told, output=out / "records", workers=workers, stderr=log)
        stop_in_the_middle(process, out, unbroken / "reports")
        os.killpg(process.pid, signal.SIGINT)  # Ctrl-C reaches all processes of a terminal
        os.killpg(process.pid, signal.SIGCONT)
        assert process.wait(timeout=60) == 130
        log.seek(0)
        lines = log.read().splitlines()
    assert lines[-1] == "beam_jobs.label_reports: interrupted. The same command resumes the work."
    if workers == 1:  # the threads of Beam that look after workers print tracebacks
        assert "Traceback" not in "".join(lines)
    assert list(out.iterdir()) == []


class KilledError(BaseException):
    pass


@pytest.mark.parametrize("older", [False, True], ids=["new output", "older output"])
def test_publishing_that_is_killed_at_any_file_leaves_a_whole_dataset_or_none(
    told, tmp_path, monkeypatch, older
):
    for name, concepts, size in (("old", "chexpert14", 300), ("new", told["concepts"], NUM_ROWS)):
        few = {**told, "concepts": concepts, "records_per_shard": size}
        label_reports.run(output=str(tmp_path / name), **few)
    output, path_type = tmp_path / "out" / "records", type(epath.Path(tmp_path))
    methods = {name: getattr(path_type, name) for name in ("replace", "unlink")}
    seen = set()
    for allowed in range(100):
        shutil.rmtree(output, ignore_errors=True)
        if older:
            shutil.copytree(tmp_path / "old", output)
        workplace = finished_work(output, tmp_path / "new")
        left = iter(range(allowed))

        def step(name, *arguments, left=left, **options):
            if next(left, None) is None:
                raise KilledError
            return methods[name](*arguments, **options)

        with monkeypatch.context() as patch:
            for name in methods:
                patch.setattr(path_type, name, lambda *a, name=name, **k: step(name, *a, **k))
            try:
                publish(workplace, output, "")
                finished = True
            except KilledError:
                finished = False
        seen.add(whose(output, tmp_path))
        if finished:
            assert seen == {"none", "new"} | ({"old"} if older else set())
        else:
            assert whose(output, tmp_path) == ("none" if allowed or not older else "old")
            require_replaceable(output)
            publish(finished_work(output, tmp_path / "new"), output, "")  # the next attempt
        assert whose(output, tmp_path) == "new"
        assert {p.name for p in output.iterdir()} == {p.name for p in (tmp_path / "new").iterdir()}
        assert [path.name for path in output.parent.iterdir()] == ["records"]
        if finished:
            return
    pytest.fail("publish never finished")


def finished_work(output, dataset):
    """A workplace with a dataset, and with a shard of a step that was repeated."""
    workplace = start_workplace(output)
    shutil.copytree(dataset, workplace / "dataset", dirs_exist_ok=True)
    (workplace / "dataset" / f"{read_manifest(dataset).shard_names[0]}.0123abcd").write_text("repeated")
    return workplace


def whose(output, tmp_path):
    """Name the dataset in a folder by its manifest; it must be whole."""
    try:
        manifest = read_manifest(output)
    except ValueError:
        assert not (output / MANIFEST_NAME).exists()
        return "none"
    verify(output)
    rows = sum(builder.num_examples for builder in tfds.builder_from_directory(output).info.splits.values())
    assert rows == manifest.num_records
    return next(n for n in ("old", "new") if read_manifest(tmp_path / n).fingerprint == manifest.fingerprint)
