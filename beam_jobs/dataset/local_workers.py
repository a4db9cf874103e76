"""Several processes on one machine: the option that asks for them, and that none outlives its job."""

import contextlib
import functools
import os
import threading
import time
from collections.abc import Iterator

from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions

from medclip_keras.errors import require

LOCAL_RUNNER = "FnApiRunner"
_JOB = "MEDCLIP_KERAS_JOB"  # in the environment of local workers: the process that started them
_SECONDS_BETWEEN_LOOKS = 0.5


class LocalOptions(PipelineOptions):
    """`--workers`, among Beam's own options wherever these go."""

    @classmethod
    def _add_argparse_args(cls, parser):
        parser.add_argument("--workers", type=int, default=1, help="processes of the local runner")


def ask_for_workers(options: PipelineOptions) -> None:
    """Says in Beam's words what `--workers` asks for.

    Raises:
        ValueError: less than one worker, or several on another runner than the local one.
    """
    workers = options.view_as(LocalOptions).workers
    require(workers >= 1, "workers", "at least 1", workers)
    if workers == 1:
        return
    runner, direct = options.view_as(StandardOptions).runner, options.view_as(DirectOptions)
    advice = "Other runners have options of their own, such as --num_workers of Dataflow."
    require(runner == LOCAL_RUNNER, "workers", f"1 where the runner is not {LOCAL_RUNNER}", workers, advice)
    direct.direct_num_workers, direct.direct_running_mode = workers, "multi_processing"


@contextlib.contextmanager
def tied_workers() -> Iterator[None]:
    """Local worker processes that start inside end soon after this process, however it ends."""
    os.environ[_JOB] = str(os.getpid())
    try:
        yield
    finally:
        del os.environ[_JOB]


@functools.cache
def end_with_job() -> None:
    """Ties a local worker to its job; nothing happens in the job's own process, or on another machine.

    Beam's workers notice after some twenty seconds that a killed job is gone, and write until then.
    """
    job = int(os.environ.get(_JOB, os.getpid()))
    if job != os.getpid():
        threading.Thread(target=_end_after, args=(job,), daemon=True).start()


def _end_after(job: int) -> None:
    while True:
        try:
            os.kill(job, 0)
        except ProcessLookupError:
            os._exit(1)
        time.sleep(_SECONDS_BETWEEN_LOOKS)
