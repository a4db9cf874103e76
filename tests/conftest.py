"""What tests share: the real data, where there is any."""

import os
import pathlib

import pytest


@pytest.fixture(scope="session")
def medclip_data() -> pathlib.Path:
    """The folder of real data; under MEDCLIP_REQUIRE_DATA=1 its absence is a failure, not a skip."""
    path = os.environ.get("MEDCLIP_DATA", "")
    if path and pathlib.Path(path).is_dir():
        return pathlib.Path(path)
    if os.environ.get("MEDCLIP_REQUIRE_DATA") == "1":
        pytest.fail(f"`MEDCLIP_DATA` must be a folder of real data. Received: {path!r}.")
    pytest.skip("MEDCLIP_DATA is not set: the tests on real reports and images do not run.")
