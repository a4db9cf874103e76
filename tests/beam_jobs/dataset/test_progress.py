import json
import time

import pytest
from etils import epath

from beam_jobs.dataset.progress import NUM_ROWS_NAME, Progress


@pytest.fixture
def workplace(tmp_path):
    (tmp_path / "dataset").mkdir()
    return epath.Path(tmp_path)


def finish(workplace, *names):
    for name in names:
        (workplace / "dataset" / name).write_text("")


def test_progress_counts_the_rows_of_finished_shards(workplace):
    with Progress("job", workplace) as progress:  # its own thread does not come to a line
        began = progress._started
        assert progress.look(began + 7) == "listing the archive, 7 s"
        (workplace / NUM_ROWS_NAME).write_text(json.dumps({"train": 9000, "test": 1001}))
        assert progress.look(began + 20) == "0 of 10,001 rows"
        finish(workplace, "a_b-train.tfrecord-00000-of-00005.0123abcd")  # not finished
        assert progress.look(began + 25) == "0 of 10,001 rows"
        finish(workplace, "a_b-train.tfrecord-00000-of-00005", "a_b-train.tfrecord-00003-of-00005")
        # 2 of 5 shards of 9,000 rows in the 30 s since the rows were known: 120 a second; 6,401 are left.
        assert progress.look(began + 50) == "3,600 of 10,001 rows, 120 rows/s, 53 s left"
        # In 720 s five a second, and 21 minutes.
        assert progress.look(began + 740) == "3,600 of 10,001 rows, 5 rows/s, 21 min left"
        finish(workplace, *(f"a_b-train.tfrecord-0000{k}-of-00005" for k in range(5)))
        finish(workplace, "a_b-test.tfrecord-00000-of-00001")
        assert progress.look(began + 1020) == "10,001 of 10,001 rows, 10 rows/s, 0 s left"


def test_progress_does_not_count_what_was_there_before_its_first_look(workplace):
    (workplace / NUM_ROWS_NAME).write_text(json.dumps({"train": 100}))
    finish(workplace, "a-train.tfrecord-00000-of-00004")
    progress = Progress("job", workplace)
    assert progress.look(10) == "25 of 100 rows"
    finish(workplace, "a-train.tfrecord-00001-of-00004")
    assert progress.look(20) == "50 of 100 rows, 2 rows/s, 20 s left"  # 25 in 10 s


def test_progress_prints_while_the_job_runs_and_not_after_it(workplace, monkeypatch, capsys):
    monkeypatch.setattr(Progress, "SECONDS_BETWEEN_LINES", 0.02)
    with Progress("job", workplace):
        time.sleep(0.5)
        (workplace / NUM_ROWS_NAME).write_text('{"trai')  # seen half written: no line, no end
        time.sleep(0.1)
        (workplace / NUM_ROWS_NAME).write_text('{"train": 8}')
        time.sleep(0.5)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "job: listing the archive, 0 s"
    assert lines[-1] == "job: 0 of 8 rows"
    time.sleep(0.1)
    assert capsys.readouterr().out == ""
