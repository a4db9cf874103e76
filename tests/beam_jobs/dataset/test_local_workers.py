import os
import subprocess
import sys
import textwrap

import pytest
from apache_beam.options.pipeline_options import DirectOptions

from beam_jobs.dataset.local_workers import end_with_job, tied_workers
from beam_jobs.dataset.options import JobOptions, pipeline_options


def test_workers_are_processes_of_the_local_runner():
    direct = pipeline_options(("--workers=3",)).view_as(DirectOptions)
    assert (direct.direct_num_workers, direct.direct_running_mode) == (3, "multi_processing")
    assert pipeline_options(()).view_as(DirectOptions).direct_running_mode == "in_memory"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--workers=0",), "`workers` must be at least 1. Received: 0"),
        (("--workers=2", "--runner=DataflowRunner"), "`workers` must be 1 unless the runner is FnApiRunner"),
    ],
)
def test_workers_that_the_runner_does_not_have_are_refused(tmp_path, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        JobOptions(source="csv", input=str(tmp_path), output=f"{tmp_path}-out", beam_options=options)


def test_job_itself_does_not_wait_for_its_end():
    end_with_job.cache_clear()
    with tied_workers():
        end_with_job()  # of the process that runs the test
    assert "MEDCLIP_KERAS_JOB" not in os.environ


def test_worker_ends_when_its_job_is_gone():
    job = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    code = """
        import sys, time
        from beam_jobs.dataset.local_workers import end_with_job
        end_with_job()
        print("ready", flush=True)
        time.sleep(100)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    environment = {**os.environ, "MEDCLIP_KERAS_JOB": str(job.pid)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as worker:
        assert worker.stdout.readline() == b"ready\n"
        assert worker.poll() is None
        job.kill()
        job.wait()
        assert worker.wait(timeout=30) == 1
