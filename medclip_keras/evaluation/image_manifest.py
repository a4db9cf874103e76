"""The user's own images: a CSV file of paths and 0/1 columns, and prompts for its classes."""

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from etils import epath

from medclip_keras.errors import near_names, refusal, require
from medclip_keras.evaluation.arrays import Floats
from medclip_keras.evaluation.prompts import Prompts, read_prompts, shipped_prompts
from medclip_keras.evaluation.tasks import Task
from medclip_keras.knowledge.concepts import NO_FINDING

_FILES_AT_ONCE = 32


@dataclass(frozen=True)
class ImageManifest:
    """Image files with labels, and the prompts of their classes."""

    name: str  # of the CSV file
    paths: tuple[str, ...]  # (num_images,)
    task: Task  # "single_finding" if every image has exactly one of several classes
    prompts: Prompts  # of the classes, and the normal prompts of "No Finding", if any


def read_image_manifest(path: str, prompts_path: str = "") -> ImageManifest:
    """Read a CSV file with the columns `path`, optionally `patient_id`, and one 0/1 column a class.

    Image paths are relative to the file's folder. `prompts_path` is a JSON file {class: [prompt, …]}; without
    it the classes' names select shipped prompts.

    Raises:
        ValueError: a missing file, column or prompt, a cell that is not 0 or 1; before any image is read.
    """
    file = epath.Path(path)
    require(file.is_file(), "manifest", "a CSV file", path, "Check the path.")
    with file.open("r") as stream:
        reader = csv.DictReader(stream, strict=True)
        classes = _classes(list(reader.fieldnames or ()))
        rows = list(reader)
    require(bool(rows), "manifest", "a CSV file with at least one row", f"{path} without rows")
    labels = np.array([[_label(row[name], name, n) for name in classes] for n, row in enumerate(rows, 2)])
    paths = tuple(str(file.parent / (row["path"] or "")) for row in rows)
    missing = [line for line, image in enumerate(paths, 2) if not epath.Path(image).is_file()]
    received = f"{len(missing)} of {len(paths)} missing, the first in line {min(missing, default=0)}"
    require(not missing, "manifest", "a table of existing files, relative to its own folder", received)
    # Without patient_id every image counts as a patient.
    patients = np.array([row.get("patient_id") or f"line {n}" for n, row in enumerate(rows, 2)], np.str_)
    one_each = len(classes) > 1 and bool((labels.sum(axis=1) == 1).all())
    name = "single_finding" if one_each else "multi_label"
    task = Task(name, classes, np.arange(len(rows)), labels, patients)
    return ImageManifest(file.stem, paths, task, _prompts(classes, prompts_path))


def embed_files(embed: Callable[[list[bytes]], Floats], manifest: ImageManifest) -> Floats:
    """Embed the images of a manifest in chunks.

    Args:
        embed: image files to embeddings (B, D); raises if one of them is not an image.

    Returns:
        float32 (num_images, D).

    Raises:
        ValueError: a file is not a JPEG or PNG image; its line is named.
    """
    embedded = []
    for start in range(0, len(manifest.paths), _FILES_AT_ONCE):
        contents = [epath.Path(p).read_bytes() for p in manifest.paths[start : start + _FILES_AT_ONCE]]
        try:
            embedded.append(embed(contents))
        except Exception:
            bad = [str(start + n + 2) for n, content in enumerate(contents) if not _can_embed(embed, content)]
            if not bad:
                raise
            received = f"a file that cannot be decoded in line(s) {', '.join(bad)}"
            advice = "Replace it or remove the line."
            raise refusal("manifest", "a table of JPEG or PNG images", received, advice) from None
    return np.concatenate(embedded)


def _can_embed(embed: Callable[[list[bytes]], Floats], content: bytes) -> bool:
    try:
        embed([content])
    except Exception:
        return False
    return True


def _classes(columns: Sequence[str]) -> tuple[str, ...]:
    form = "a table whose first column is `path`, followed by one 0/1 column a class, each once"
    require(columns[:1] == ["path"] and len(columns) == len(set(columns)), "manifest", form, columns)
    classes = tuple(name for name in columns[1:] if name != "patient_id")
    require(bool(classes), "manifest", "a table with at least one class column", columns)
    return classes


def _label(cell: str | None, column: str, line: int) -> float:
    require(cell in ("0", "1"), "manifest", f"0 or 1 in column {column!r}, line {line}", cell)
    return float(cell == "1")


def _prompts(classes: Sequence[str], prompts_path: str) -> Prompts:
    prompts = read_prompts(prompts_path) if prompts_path else shipped_prompts()
    for name in classes:
        advice = f"{near_names(name, prompts)} Name a JSON file with --prompts."
        require(
            name in prompts,
            "prompts",
            f"a file with the class {name!r} of the manifest",
            prompts_path,
            advice,
        )
    extra = [name for name in prompts if name not in classes and name != NO_FINDING]
    form = f"a file of the manifest's classes ({', '.join(classes)}) and optionally {NO_FINDING!r}"
    require(not extra or not prompts_path, "prompts", form, extra)
    wanted = [*classes, *([NO_FINDING] if NO_FINDING in prompts and NO_FINDING not in classes else [])]
    return {name: prompts[name] for name in wanted}
