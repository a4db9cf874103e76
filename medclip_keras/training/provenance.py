"""What an artifact was made with: package versions and the commit of the code."""

import importlib.metadata
import pathlib
import subprocess

PACKAGES = ("tensorflow", "keras", "keras-hub", "tensorflow-text", "apache-beam", "spacy", "numpy")


def versions() -> dict[str, str]:
    """Versions of the packages that decide a result, and the commit where there is a git checkout."""
    found = {name: importlib.metadata.version(name) for name in PACKAGES}
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
