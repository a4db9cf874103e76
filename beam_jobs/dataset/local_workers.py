"""Local worker processes: the option that requests them, and their end with their job."""

import contextlib
import ctypes
import functools
import os
import signal
import threading
import time
from collections.abc import Iterator

from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions

from medclip_keras.errors import require

LOCAL_RUNNER = "FnApiRunner"
_JOB = "MEDCLIP_KERAS_JOB"  # environment variable of local workers: process id of their job
_POLLING_SECONDS = 0.5


class LocalOptions(PipelineOptions):
    """`--workers`, one of Beam's options."""

    @classmethod
    def _add_argparse_args(cls, parser):
        parser.add_argument("--workers", type=int, default=1, help="processes of the local runner")


def request_workers(options: PipelineOptions) -> None:
    """Translate `--workers` into Beam's own options.

    Raises:
        ValueError: less than one worker, or several on another runner than the local one.
    """
    workers = options.view_as(LocalOptions).workers
    require(workers >= 1, "workers", "at least 1", workers)
    if workers == 1:
        return
    runner, direct = options.view_as(StandardOptions).runner, options.view_as(DirectOptions)
    advice = "Other runners have their own options, such as --num_workers of Dataflow."
    require(runner == LOCAL_RUNNER, "workers", f"1 unless the runner is {LOCAL_RUNNER}", workers, advice)
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
    """Tie a local worker to its job; no effect in the job's own process, or on another machine.

    Beam's own workers notice the end of a killed job after twenty seconds, and write until then. Ctrl-C is
    left to the job; `signal.signal` cannot do that here, as Beam's code holds the main thread.
    """
    job = int(os.environ.get(_JOB, os.getpid()))
    if job != os.getpid():
        ctypes.pythonapi.PyOS_setsig(signal.SIGINT, signal.SIG_IGN)
        threading.Thread(target=_end_after, args=(job,), daemon=True).start()


def _end_after(job: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        while True:
            os.kill(job, 0)
            time.sleep(_POLLING_SECONDS)
    os._exit(1)
