"""The lock on an output."""

import subprocess
import sys

import pytest

from medclip_keras.locks import sole_writer

HOLD = """
import sys
from medclip_keras.locks import sole_writer
with sole_writer(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_an_output_has_one_writer_until_its_process_ends(tmp_path):
    output = tmp_path / "run [1]" / "records"
    command = [sys.executable, "-c", HOLD, str(output)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        refused = pytest.raises(ValueError, match="`output` must be one that no other process is writing")
        with refused, sole_writer(output):
            pass
        with sole_writer(tmp_path / "run [1]" / "others"):
            pass
        other.kill()
    with sole_writer(output):  # the lock of a killed process is free
        pass
    assert list((tmp_path / "run [1]").iterdir()) == []
