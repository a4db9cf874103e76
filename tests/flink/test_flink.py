"""The jobs on a Flink cluster of two task managers give the local runner's datasets, byte for byte.

`make test-flink` runs this; `make test` does not, as it needs Java and Maven and fetches 150 MB.
"""

import itertools
import signal
import subprocess
import sys
import time

import pytest

from beam_jobs import decode_images, label_reports
from medclip_keras.records.manifest import read_manifest
from medclip_keras.sources import phantom

from . import cluster as flink

pytestmark = pytest.mark.timeout(1800)  # the first use of a fixture waits for it

NUM_PAIRED, NUM_IMAGE_ONLY, NUM_TEXT_ONLY = 180, 60, 60
NUM_ROWS = {"reports": NUM_PAIRED + NUM_TEXT_ONLY, "images": NUM_PAIRED + NUM_IMAGE_ONLY}
NUM_BAD = {"reports": 0, "images": 1}


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """300 studies, one of them with a file that is no image."""
    path = tmp_path_factory.mktemp("archive") / "phantoms"
    phantom.write_phantom(
        path,
        seed=3,
        num_paired=NUM_PAIRED,
        num_image_only=NUM_IMAGE_ONLY,
        num_text_only=NUM_TEXT_ONLY,
        image_size=48,
    )
    min((path / "images").iterdir()).write_bytes(b"no image")
    return path


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A running cluster; a request to end the test ends it too."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with flink.running_cluster(tmp_path_factory.mktemp("cluster")) as running:
            yield running
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="module")
def local(archive, tmp_path_factory):
    """Datasets of the local runner, by kind."""
    return run_jobs(archive, tmp_path_factory.mktemp("local"), ())


@pytest.fixture(scope="module")
def on_flink(archive, cluster, tmp_path_factory):
    """Datasets that the cluster made, by kind."""
    return run_jobs(archive, tmp_path_factory.mktemp("flink"), cluster.beam_options)


def run_jobs(archive, folder, beam_options):
    made = {kind: folder / kind for kind in NUM_ROWS}
    told = ["--source=phantom", f"--input={archive}", "--records_per_shard=20", *beam_options]
    mentions = f"--mentions={folder / 'mentions'}"
    assert label_reports.main([*told, f"--output={made['reports']}", mentions]) == 0
    with_reports = [f"--output={made['images']}", f"--reports={made['reports']}", "--image_size=64"]
    assert decode_images.main([*told, *with_reports]) == 0
    return made


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("kind", NUM_ROWS)
def test_every_file_of_the_dataset_is_the_local_runners(kind, local, on_flink):
    # The manifest too. Nothing needs sorting: a shard's records are in the order of their keys.
    assert contents(on_flink[kind]) == contents(local[kind])
    assert read_manifest(on_flink[kind]).num_records == NUM_ROWS[kind] - NUM_BAD[kind]


def test_mentions_are_the_local_runners(local, on_flink):
    mentions = [contents(made["reports"].parent / "mentions") for made in (on_flink, local)]
    assert mentions[0] == mentions[1]
    assert sum(file.count(b"\n") for file in mentions[0].values()) == NUM_ROWS["reports"]


def test_both_task_managers_made_shards(cluster, on_flink):
    jobs = sorted(cluster.get("jobs/overview")["jobs"], key=lambda job: job["start-time"])
    assert [job["state"] for job in jobs] == ["FINISHED", "FINISHED"]
    for job, kind in zip(jobs, ("reports", "images"), strict=True):
        made = cluster.records_read(job["jid"], "MakeShardFn")
        assert set(made) == set(flink.TASK_MANAGERS)
        assert min(made.values()) > 0
        assert sum(made.values()) == len(read_manifest(on_flink[kind]).shard_names)


def test_processes_and_their_children_end_with_the_block(tmp_path):
    starts_another = "import subprocess, time; print(subprocess.Popen(['sleep', '300']).pid, flush=True); "
    with pytest.raises(KeyboardInterrupt), flink.Processes(tmp_path) as processes:  # noqa: PT012
        processes.start("deaf", [sys.executable, "-c", starts_another + "time.sleep(300)"])
        started = int(processes.wait_for(lambda: processes.log("deaf"), "process"))
        assert alive(started)
        raise KeyboardInterrupt
    assert not alive(started)


def test_process_that_ends_early_is_named_with_its_output(tmp_path):
    with flink.Processes(tmp_path) as processes:
        processes.start("hasty", [sys.executable, "-c", "print('no port left')"])
        with pytest.raises(RuntimeError, match=r"hasty has ended: no port left"):
            processes.wait_for(lambda: False, "anything")


def alive(pid):
    """Whether a process runs; a dead one whose parent has not looked yet does not."""
    for _ in itertools.repeat(None, 50):
        status = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout
        if not status or status.startswith("Z"):
            return False
        time.sleep(0.02)
    return True
