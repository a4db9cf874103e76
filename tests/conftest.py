"""What tests share: the real data, where there is any."""

import dataclasses
import os
import pathlib
import subprocess
import sys

import pytest


def pytest_configure(config):
    config.option.loadscopereorder = False  # xdist takes groups in their order, not by their number of tests


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items):
    """Group tests by file, all users of the fitted run in one group; groups with slow tests come first."""
    fitted_files = {item.path for item in items if "fitted" in getattr(item, "fixturenames", ())}
    groups = {item: "fitted" if item.path in fitted_files else str(item.path) for item in items}
    for item, group in groups.items():
        item.add_marker(pytest.mark.xdist_group(group))
    slow = {"fitted"} | {group for item, group in groups.items() if item.get_closest_marker("slow")}
    items.sort(key=lambda item: groups[item] not in slow)


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
