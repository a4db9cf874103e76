"""Manifest of a version: size and SHA-256 of each file, and the version's provenance."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from etils import epath

from medclip_keras.errors import refusal, require
from medclip_keras.serving.layout import EXTRA, MANIFEST_FILE

_FORM = "a version whose files are those of its manifest"


def write_manifest(version: epath.PathLike, made_from: Mapping[str, Any]) -> None:
    """Write assets.extra/manifest.json: `made_from`, in JSON types, and the files that are there now."""
    path = epath.Path(version) / EXTRA / MANIFEST_FILE
    content = {**made_from, "files": _describe_files(epath.Path(version))}
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_manifest(version: epath.PathLike) -> dict[str, Any]:
    """The manifest's content; {} for a version of a release without manifests."""
    path = epath.Path(version) / EXTRA / MANIFEST_FILE
    try:
        content: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    except ValueError:
        raise refusal("version", _FORM, str(version), f"{path} is damaged.") from None
    return content


def check_manifest(version: epath.PathLike) -> None:
    """Read every file of a version and compare it with the manifest.

    Raises:
        ValueError: no manifest, or a file that is missing, changed or not listed.
    """
    listed = read_manifest(version).get("files", {})
    found = _describe_files(epath.Path(version))
    wrong = {
        "missing": sorted(listed.keys() - found.keys()),
        "not listed": sorted(found.keys() - listed.keys()),
        "changed": sorted(name for name in listed.keys() & found.keys() if listed[name] != found[name]),
    }
    named = "; ".join(f"{what}: {', '.join(names[:4])}" for what, names in wrong.items() if names)
    said = named if listed else f"no {EXTRA}/{MANIFEST_FILE}"
    require(bool(listed) and not named, "version", _FORM, str(version), f"{said.capitalize()}.")


def _describe_files(version: epath.Path) -> dict[str, dict[str, Any]]:
    """Path below the version → {"bytes", "sha256"} of each file but the manifest."""
    found = {}
    for name in files_of(version):
        if name != f"{EXTRA}/{MANIFEST_FILE}":
            with (version / name).open("rb") as file:
                found[name] = _describe(file)
    return found


def _describe(file: Any) -> dict[str, Any]:
    digest, size = hashlib.sha256(), 0
    while piece := file.read(1 << 22):
        digest.update(piece)
        size += len(piece)
    return {"bytes": size, "sha256": digest.hexdigest()}


def files_of(folder: epath.Path) -> list[str]:
    """Paths below a folder of all its files, sorted."""
    below = len(str(folder).rstrip("/")) + 1
    return sorted(f"{root}/{name}"[below:] for root, _, names in folder.walk() for name in names)
