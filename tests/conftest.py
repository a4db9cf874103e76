"""What tests share: the real data, where there is any."""

import dataclasses
import gc
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys

import pytest


def pytest_configure():
    """Take Ctrl-C as on a terminal, and collect garbage seldom."""
    # A shell starts commands in the background, and all below, without Ctrl-C.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.set_threshold(20_000, 10, 3)  # else up to 2.5 of the 36 s of a short training


def pytest_collection_modifyitems(items):
    """Run files with slow tests, and those that use the fitted run, first."""
    slow = {
        i.path for i in items if i.get_closest_marker("slow") or "fitted" in getattr(i, "fixturenames", ())
    }
    items.sort(key=lambda item: item.path not in slow)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Give the tests of a file to one process, and all files that use the fitted run to the same one.

    Marks of groups are lost: xdist 3.8 writes them into `Item._nodeid`, which pytest 9.2 does not have.
    """
    from xdist.scheduler import LoadFileScheduling

    here = pathlib.Path(__file__).parent
    fitted = {p.name for p in here.glob("test_*.py") if re.search(r"\bfitted\b", p.read_text())}

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid):
            file = super()._split_scope(nodeid)
            return "fitted" if file in {f"{here.name}/{name}" for name in fitted} else file

    config.option.loadscopereorder = False  # in the order of collection, not by the number of tests
    return Scheduling(config, log)


@pytest.fixture(scope="session")
def medclip_data() -> pathlib.Path:
    """The folder of real data; under MEDCLIP_REQUIRE_DATA=1 its absence is a failure, not a skip."""
    path = os.environ.get("MEDCLIP_DATA", "")
    if path and pathlib.Path(path).is_dir():
        return pathlib.Path(path)
    if os.environ.get("MEDCLIP_REQUIRE_DATA") == "1":
        pytest.fail(f"`MEDCLIP_DATA` must be a folder of real data. Received: {path!r}.")
    pytest.skip("MEDCLIP_DATA is not set: the tests on real reports and images do not run.")


@dataclasses.dataclass(frozen=True)
class FittedRun:
    """The one run that the tests train: `python -m medclip_keras.fit`, cut short."""

    workdir: pathlib.Path
    output: str
    arguments: tuple[str, ...]


@pytest.fixture(scope="session")
def fitted(tmp_path_factory) -> FittedRun:
    """The default run with fewer phantoms and steps, in a process of its own, as a user starts it."""
    workdir = tmp_path_factory.mktemp("fitted") / "run"
    arguments = (
        "--workdir", str(workdir), "--set", "train.steps=400", "train.validate_every=200",
        "train.checkpoint_every=200", "data.phantom.num_paired=700", "data.phantom.num_image_only=150",
        "data.phantom.num_text_only=150", "evaluation.bootstrap=200",
    )  # fmt: skip
    process = subprocess.run(
        [sys.executable, "-m", "medclip_keras.fit", *arguments], capture_output=True, text=True, timeout=900
    )
    assert process.returncode == 0, process.stderr[-4000:]
    return FittedRun(workdir, process.stdout, arguments)


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of Chromium; under MEDCLIP_REQUIRE_BROWSER=1 its absence is a failure, not a skip."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), "")
    if found:
        return found
    if os.environ.get("MEDCLIP_REQUIRE_BROWSER") == "1":
        pytest.fail("Chromium must be installed, such as by `apt-get install chromium`.")
    pytest.skip("No Chromium is installed: the page of the demo is not tried in a browser.")
