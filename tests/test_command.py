"""The frame of the commands: exit status, errors as one line, and a Ctrl-C that cannot get lost."""

import errno
import os
import subprocess
import sys

import pytest

from medclip_keras.command import FAILED, run_command

SWALLOWED = """
import os, signal, sys, threading, time, weakref
from medclip_keras.command import run_command

def busy(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass

class Swallows:
    pass

def work():
    swallows = Swallows()
    reference = weakref.ref(swallows, lambda _: busy(1.0))
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    del swallows  # the callback runs, and Python drops the KeyboardInterrupt inside it
    try:
        busy(20.0)
        print("lost")
    finally:
        busy(1.2)  # twice the time after which the interrupt is raised again
        print("cleaned")

sys.exit(run_command("it", work))
"""


def test_ctrl_c_inside_a_weakref_callback_ends_the_command_after_its_cleanup():
    process = subprocess.run([sys.executable, "-c", SWALLOWED], capture_output=True, text=True, timeout=60)
    assert (process.returncode, process.stdout) == (130, "cleaned\n"), process.stderr
    assert process.stderr == "it: interrupted. The same command resumes the work.\n"


@pytest.mark.parametrize(
    "error", [ValueError("`a` must be b."), FloatingPointError("The loss must be finite.")]
)
def test_an_error_of_the_caller_is_one_line_and_status_one(error, capsys):
    def work():
        raise error

    assert run_command("it", work) == FAILED
    assert capsys.readouterr().err == f"it: {error}\n"
    assert run_command("it", lambda: None) == 0


class ResourceExhaustedError(Exception):
    """Like TensorFlow's."""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "a/b"),
            "No space left on device: 'a/b'. Make room, then start the same command again.",
        ),
        (
            ResourceExhaustedError("write failed; No space left on device\n[[{{node Save}}]]"),
            "No space left on device. Make room, then start the same command again.",
        ),
        (
            OSError(errno.EROFS, "Read-only file system", "a/b"),
            "Read-only file system: 'a/b'. Allow this user to read and write there, then start the same "
            "command again.",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "a/b"),
            "Permission denied: 'a/b'. Allow this user",
        ),
        (FileNotFoundError(errno.ENOENT, "No such file", "a/b"), "[Errno 2] No such file: 'a/b'"),
    ],
)
def test_an_error_of_the_system_is_one_line(error, said, capsys):
    def work():
        raise error

    assert run_command("it", work) == FAILED
    assert capsys.readouterr().err.startswith(f"it: {said}")
    with pytest.raises(OSError, match="not of the system"):
        run_command("it", lambda: (_ for _ in ()).throw(OSError("not of the system")))


@pytest.mark.parametrize("module", ["medclip_keras.evaluate", "beam_jobs.label_reports"])
def test_ctrl_c_during_the_imports_of_a_command_ends_it_without_a_traceback(module, tmp_path):
    package = {"medclip_keras.evaluate": "etils", "beam_jobs.label_reports": "apache_beam"}[module]
    (tmp_path / f"{package}.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(9)\n"
    )
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, "-m", module, "--help"]
    process = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    said = f"{module}: interrupted. The same command resumes the work.\n"
    assert (process.returncode, process.stdout, process.stderr) == (130, "", said)


def test_importing_the_package_leaves_ctrl_c_to_the_program_that_imports_it():
    code = "import signal, medclip_keras; print(signal.getsignal(2) is signal.default_int_handler)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "True\n"


HELP = """
import runpy, sys
module, *sys.argv[1:] = sys.argv[1:]
try:
    runpy.run_module(module, run_name="__main__")
except SystemExit:
    print(sorted({"tensorflow", "keras", "apache_beam", "spacy"} & set(sys.modules)))
"""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["medclip_keras.fit", "--help"], "python -m medclip_keras.runs NAME"),
        (["medclip_keras.evaluate", "--help"], "a trained model or an exported one"),
        (["medclip_keras.evaluate", "--workdir", "nowhere"], "`workdir` must be a folder in which a run"),
        (["medclip_keras.export", "--help"], "A version is blessed"),
        (["medclip_keras.export", "--workdir", "nowhere", "--output", "m"], "`workdir` must be a folder in"),
        (["medclip_keras.export", "--rollback", "--output", "nowhere"], "`output` must be a folder of at"),
    ],
)
def test_a_help_text_and_a_refusal_import_no_framework(arguments, said, tmp_path):
    command = [sys.executable, "-c", HELP, *arguments]
    process = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert process.stdout.endswith("[]\n"), process.stdout[-200:]
    assert said in " ".join((process.stdout + process.stderr).split())


def test_log_lines_of_tensorflow_stay_out_of_the_output():
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    of_model = ["--saved_model", "/nowhere", "--records", "/nowhere"]  # TensorFlow is imported
    command = [sys.executable, "-m", "medclip_keras.evaluate", *of_model]
    process = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert process.returncode == 1
    assert process.stderr.startswith("medclip_keras.evaluate: `directory` must be"), process.stderr
    assert process.stderr.count("\n") == 1, process.stderr


@pytest.mark.parametrize("module", ["beam_jobs.label_reports", "medclip_keras.fit"])
def test_a_help_text_comes_alone(module):
    process = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, text=True)
    assert (process.returncode, process.stderr) == (0, "")
    assert process.stdout.startswith(f"usage: python -m {module}")
