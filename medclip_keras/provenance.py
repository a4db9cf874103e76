"""Provenance of an artifact: package versions, the commit of the code, fingerprints of values and code."""

import hashlib
import importlib.metadata
import json
import pathlib
import platform
import subprocess
from collections.abc import Iterable
from types import ModuleType
from typing import Any

from etils import epath

_READ_BYTES = 1 << 22
PACKAGES = (
    "medclip_keras",
    "tensorflow",
    "keras",
    "keras-hub",
    "tensorflow-text",
    "tensorflow-datasets",
    "apache-beam",
    "spacy",
    "numpy",
)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that decide a result, and the commit of the code."""
    found = {"python": platform.python_version()}
    found |= {name: importlib.metadata.version(name) for name in PACKAGES}
    try:
        commit = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=pathlib.Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = "unknown"
    return {**found, "commit": commit}


def sha256_of(value: Any) -> str:
    """SHA-256 of a value of JSON types."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def file_sha256(path: epath.PathLike) -> str:
    """SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with epath.Path(path).open("rb") as file:
        while piece := file.read(_READ_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def code_sha256(modules: Iterable[ModuleType]) -> str:
    """SHA-256 of the source files of modules, and of all files of packages, their data files included."""
    digest = hashlib.sha256()
    for module in modules:
        file = pathlib.Path(module.__file__ or "")
        for path in sorted(file.parent.rglob("*")) if file.name == "__init__.py" else [file]:
            if path.is_file() and path.suffix != ".pyc":
                digest.update(path.read_bytes())
    return digest.hexdigest()
