"""The lock on an output."""

import errno
import os
import pathlib
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


@pytest.fixture
def read_only(monkeypatch):
    """Makes folders read-only, for the superuser too: files in them are not opened for writing."""

    def close(*folders: pathlib.Path) -> None:
        closed = [str(folder) for folder in folders]

        def access(path, mode, *, true=os.access):
            return true(path, mode) and not (mode & os.W_OK and str(path) in closed)

        def open_file(path, mode="r", *more, true=open, **options):
            if "w" in mode and str(pathlib.Path(path).parent) in closed:
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
            return true(path, mode, *more, **options)

        monkeypatch.setattr("os.access", access)
        monkeypatch.setattr("builtins.open", open_file)

    return close


def test_a_read_only_output_is_refused_before_the_work_and_keeps_no_lock(tmp_path, read_only):
    output = tmp_path / "run"
    output.mkdir()
    said = f"`--workdir` must be a path that this process can write. Received: '{output}'. "
    advice = ". Free disk space, make the folder writable, or name another one."
    for closed, reason in (
        ([output], "It is read-only"), ([output, tmp_path], "Read-only file system"),
    ):  # fmt: skip
        read_only(*closed)
        with pytest.raises(ValueError, match="must be a path") as caught, sole_writer(output, "--workdir"):
            pytest.fail("the work began")
        assert str(caught.value) == f"{said}{reason}{advice}"
        assert list(tmp_path.iterdir()) == [output]


def test_a_mounted_output_in_a_read_only_folder_is_locked_inside(tmp_path, read_only):
    output = tmp_path / "run"
    output.mkdir()
    read_only(tmp_path)
    with sole_writer(output):
        assert [path.name for path in output.iterdir()] == [".lock"]
        with pytest.raises(ValueError, match="no other process is writing"), sole_writer(output):
            pass
    assert list(output.iterdir()) == []


def test_a_full_disk_under_the_lock_is_said(tmp_path, monkeypatch):
    def refuse(path, *_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr("builtins.open", refuse)
    with (
        pytest.raises(ValueError, match=r"No space left on device\. Make room"),
        sole_writer(tmp_path / "run"),
    ):
        pass
