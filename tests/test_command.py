"""The frame of the commands: exit status, errors as one line, and a Ctrl-C that cannot get lost."""

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
