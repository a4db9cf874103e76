"""The small model of the serving tests."""

import importlib.util
import pathlib

_FILE = pathlib.Path(__file__).parents[1] / "serving" / "conftest.py"
_SPEC = importlib.util.spec_from_file_location("serving_conftest", _FILE)
_SERVING = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_SERVING)

tiny = _SERVING.tiny
