"""The user's own images: a CSV file of paths and 0/1 columns, and prompts for its classes."""

import csv
import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from etils import epath

from medclip_keras.errors import require
from medclip_keras.evaluation.prompts import read_prompts
from medclip_keras.evaluation.shipped_prompts import SHIPPED_PROMPTS
from medclip_keras.evaluation.zero_shot import Task
from medclip_keras.knowledge.concepts import NO_FINDING

_FILES_AT_ONCE = 32


@dataclass(frozen=True)
class ImageManifest:
    """Image files with labels, and the prompts of their classes.

    Attributes:
        name: of the CSV file.
        paths: (num_images,).
        task: labels and patients; "single_finding" where every image has exactly one class.
        prompts: class → prompts; those of "No Finding" are the normal ones where it is not a class.
    """

    name: str
    paths: tuple[str, ...]
    task: Task
    prompts: Mapping[str, Sequence[str]]


def read_image_manifest(path: str, prompts_path: str = "") -> ImageManifest:
    """Reads a CSV file with the columns `path`, perhaps `patient_id`, and one 0/1 column a class.

    Args:
        path: of the CSV file; image paths in it are relative to its folder.
        prompts_path: JSON file {class: [prompt, …]}; "" takes the shipped prompts of the classes' names.

    Raises:
        ValueError: a missing file, column or prompt, a cell that is not 0 or 1; before any image is read.
    """
    file = epath.Path(path)
    require(file.is_file(), "manifest", "a CSV file", path, "Check the path.")
    with file.open("r") as stream:
        reader = csv.DictReader(stream, strict=True)
        columns = list(reader.fieldnames or ())
        rows = list(reader)
    classes = _classes(columns)
    require(bool(rows), "manifest", "a CSV file with at least one row", f"{path} without rows")
    labels = np.array([[_label(row[name], name, n) for name in classes] for n, row in enumerate(rows, 2)])
    paths = tuple(str(file.parent / (row["path"] or "")) for row in rows)
    missing = [line for line, image in enumerate(paths, 2) if not epath.Path(image).is_file()]
    require(
        not missing,
        "manifest",
        "a table of image files that exist, relative to its own folder",
        f"{len(missing)} of {len(paths)} missing, the first in line {missing[0] if missing else 0}",
    )
    # Without patients every image counts as one of its own.
    patients = np.array([row.get("patient_id") or f"line {n}" for n, row in enumerate(rows, 2)])
    one_each = len(classes) > 1 and bool((labels.sum(axis=1) == 1).all())
    task = Task(
        "single_finding" if one_each else "multi_label", classes, np.arange(len(rows)), labels, patients
    )
    return ImageManifest(file.stem, paths, task, _prompts(classes, prompts_path))


def embed_files(embed: Callable[[list[bytes]], np.ndarray], manifest: ImageManifest) -> np.ndarray:
    """Embeds the images of a manifest, some at a time.

    Args:
        embed: image files to embeddings (B, D); raises where one is not an image.
        manifest: names the files.

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
            bad = [start + n + 2 for n, content in enumerate(contents) if not _can(embed, content)]
            if not bad:
                raise
            raise ValueError(
                "`manifest` must name JPEG or PNG images. Received: a file that cannot be decoded in "
                f"line(s) {', '.join(map(str, bad))}. Replace it or take the line out."
            ) from None
    return np.concatenate(embedded)


def _can(embed: Callable[[list[bytes]], np.ndarray], content: bytes) -> bool:
    try:
        embed([content])
    except Exception:
        return False
    return True


def _classes(columns: Sequence[str]) -> tuple[str, ...]:
    require(
        columns[:1] == ["path"] and len(columns) == len(set(columns)),
        "manifest",
        "a table whose first column is `path`, followed by one 0/1 column a class, each once",
        columns,
    )
    classes = tuple(name for name in columns[1:] if name != "patient_id")
    require(bool(classes), "manifest", "a table with at least one class column", columns)
    return classes


def _label(cell: str | None, column: str, line: int) -> float:
    require(cell in ("0", "1"), "manifest", f"0 or 1 in column {column!r}, line {line}", cell)
    return float(cell)


def _prompts(classes: Sequence[str], prompts_path: str) -> dict[str, Sequence[str]]:
    prompts = read_prompts(prompts_path) if prompts_path else SHIPPED_PROMPTS
    for name in classes:
        near = difflib.get_close_matches(name, prompts, 3) or list(prompts)
        advice = f"Prompts are there for {', '.join(near)}; name a JSON file with --prompts."
        require(name in prompts, "prompts", f"a file with the class {name!r} of the manifest", near, advice)
    extra = [name for name in prompts if name not in classes and name != NO_FINDING]
    require(
        not extra or not prompts_path,
        "prompts",
        f"a file of the manifest's classes ({', '.join(classes)}) and perhaps {NO_FINDING!r}",
        extra,
    )
    wanted = [*classes, *([NO_FINDING] if NO_FINDING in prompts and NO_FINDING not in classes else [])]
    return {name: prompts[name] for name in wanted}
