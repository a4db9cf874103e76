"""Progress of a job: finished shards in its workplace, whatever the runner."""

import threading
import time

from etils import epath

from medclip_keras.records.shards import shard_of_file


class Progress:
    """A context manager that prints a line now and then while a job runs.

    `shards` is the folder of the attempt's finished shards.
    """

    SECONDS_BETWEEN_LINES = 15

    def __init__(self, name: str, shards: epath.Path):
        self._name, self._shards = name, shards
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._started = time.monotonic()
        self._first: tuple[float, int] | None = None  # time and number of shards when some were first seen

    def __enter__(self) -> "Progress":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(self.SECONDS_BETWEEN_LINES):
            try:
                print(f"{self._name}: {self.line(time.monotonic())}", flush=True)
            except OSError:  # a bucket that does not answer; the next look may succeed
                continue

    def counts(self) -> tuple[int, int]:
        """Finished shards, and all, or 0 as long as their number is not known."""
        shards = [shard for path in self._shards.iterdir() if (shard := shard_of_file(path.name))]
        return len(shards), sum({shard.split: shard.num_shards for shard in shards}.values())

    def line(self, now: float) -> str:
        """The line for a time of `time.monotonic`; file names say how many shards a split has."""
        done, total = self.counts()
        if not total:
            return f"listing the archive, {now - self._started:.0f} s"
        self._first = self._first or (now, done)
        since, before = self._first
        line = f"{done:,} of {total:,} shards"
        if done == before:
            return line
        return f"{line}, {_duration((total - done) * (now - since) / (done - before))} left"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
