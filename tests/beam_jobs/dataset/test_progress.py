import time

import pytest
from etils import epath

from beam_jobs.dataset.progress import Progress


@pytest.fixture
def shards(tmp_path):
    return epath.Path(tmp_path)


def finish(shards, *names):
    for name in names:
        (shards / name).write_text("")


def test_progress_counts_finished_shards(shards):
    with Progress("job", shards) as progress:  # its own thread does not come to a line
        began = progress._started
        assert progress.line(began + 7) == "listing the archive, 7 s"
        finish(shards, "a_b-train.tfrecord-00000-of-00005.0123abcd")  # not finished
        assert progress.line(began + 20) == "listing the archive, 20 s"
        finish(shards, "a_b-train.tfrecord-00000-of-00005")
        assert progress.line(began + 25) == "1 of 5 shards"
        assert progress.line(began + 30) == "1 of 5 shards"
        finish(shards, "a_b-train.tfrecord-00003-of-00005", "a_b-test.tfrecord-00000-of-00001")
        # Two shards in the 60 s since the first was seen; 3 of 6 are left.
        assert progress.line(began + 85) == "3 of 6 shards, 90 s left"
        # In 720 s two shards; three more take 1,080 s.
        assert progress.line(began + 745) == "3 of 6 shards, 18 min left"
        finish(shards, *(f"a_b-train.tfrecord-0000{k}-of-00005" for k in range(5)))
        assert progress.line(began + 1025) == "6 of 6 shards, 0 s left"


def test_progress_does_not_rate_the_shards_of_its_first_look(shards):
    finish(shards, *(f"a-train.tfrecord-0000{k}-of-00008" for k in range(2)))
    progress = Progress("job", shards)
    assert progress.line(10) == "2 of 8 shards"
    finish(shards, "a-train.tfrecord-00002-of-00008")
    assert progress.line(20) == "3 of 8 shards, 50 s left"  # one in 10 s, five are left


def test_progress_prints_while_the_job_runs_and_not_after_it(shards, monkeypatch, capsys):
    monkeypatch.setattr(Progress, "SECONDS_BETWEEN_LINES", 0.02)
    with Progress("job", shards):
        time.sleep(0.5)
        finish(shards, "a-train.tfrecord-00000-of-00004")
        time.sleep(0.5)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "job: listing the archive, 0 s"
    assert lines[-1] == "job: 1 of 4 shards"
    time.sleep(0.1)
    assert capsys.readouterr().out == ""
