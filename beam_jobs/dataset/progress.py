"""How far a job is, and how long the rest will take, from what lies in its workplace: no runner is asked."""

import json
import threading
import time
from collections.abc import Mapping

from etils import epath

from medclip_keras.records.shards import shard_of_file

NUM_ROWS_NAME = "num_rows.json"  # in the workplace, written by the pipeline: rows of each split


class Progress:
    """Prints a line now and then while a job runs; a context manager.

    Args:
        name: of the job.
        workplace: folder of the attempt: `NUM_ROWS_NAME`, and in `dataset` the finished shards.
    """

    SECONDS_BETWEEN_LINES = 15

    def __init__(self, name: str, workplace: epath.Path):
        self._name, self._workplace = name, workplace
        self._ended = threading.Event()
        self._num_rows: Mapping[str, int] | None = None
        self._started, self._done_before = 0.0, 0.0

    def __enter__(self):
        self._started = time.monotonic()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(self.SECONDS_BETWEEN_LINES):
            try:
                print(f"{self._name}: {self.look(time.monotonic())}", flush=True)
            except (OSError, ValueError):  # a look at a bucket that fails; the next one may not
                continue

    def look(self, now: float) -> str:
        """What there is to say at a time of `time.monotonic`."""
        if self._num_rows is None:
            if not (self._workplace / NUM_ROWS_NAME).exists():
                return f"listing the archive, {now - self._started:.0f} s"
            self._num_rows = json.loads((self._workplace / NUM_ROWS_NAME).read_text())
            self._started, self._done_before = now, self._rows_done()
        done, total = self._rows_done(), sum(self._num_rows.values())
        said = f"{done:,.0f} of {total:,} rows"
        if done == self._done_before:
            return said
        rate = (done - self._done_before) / (now - self._started)
        return f"{said}, {rate:,.0f} rows/s, {_duration((total - done) / rate)} left"

    def _rows_done(self) -> float:
        """Rows in finished shards; all shards of a split count as many."""
        files = (path.name for path in (self._workplace / "dataset").iterdir())
        shards = filter(None, map(shard_of_file, files))
        return sum(self._num_rows[shard.split] / shard.num_shards for shard in shards)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
