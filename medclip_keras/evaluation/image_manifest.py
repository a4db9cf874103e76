"""The user's own images: a table of paths and 0/1 columns, and prompts for its classes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from etils import epath

from medclip_keras.errors import near_names, refusal, require
from medclip_keras.evaluation.arrays import Floats
from medclip_keras.evaluation.prompts import Prompts, read_prompts, shipped_prompts
from medclip_keras.evaluation.tasks import Task
from medclip_keras.knowledge.concepts import NO_FINDING
from medclip_keras.sources.tables import read_table

_LABEL_OF_CELL = {"1": 1.0, "0": 0.0, "": np.nan}
_FILES_AT_ONCE = 32


@dataclass(frozen=True)
class ImageManifest:
    """Image files with labels, and the prompts of their classes."""

    name: str  # of the CSV file
    paths: tuple[str, ...]  # (num_images,)
    numbers: tuple[int, ...]  # (num_images,) of the rows; the first row after the header is row 1
    task: Task  # "single_finding" if every image has exactly one of several classes
    prompts: Prompts  # of the classes, and the normal prompts of "No Finding", if any


def read_image_manifest(path: str, prompts_path: str = "") -> ImageManifest:
    """Read a table with the columns `path`, optionally `patient_id`, and one column a class.

    A class's cell is 1, 0, or blank for not known. Image paths are relative to the file's folder.
    `prompts_path` is a JSON file {class: [prompt, …]}; without it the classes' names select shipped prompts.

    Raises:
        ValueError: a missing file, column or prompt, a cell that is none of these; before any image is read.
    """
    file = epath.Path(path)
    require(file.is_file(), "manifest", "a CSV file", path, "Check the path.")
    rows = [row for row in read_table(path, ("path",), strict=True) if any(map(str.strip, row.values()))]
    require(bool(rows), "manifest", "a CSV file with at least one row", f"{path} without rows")
    classes = tuple(name for name in rows[0] if name not in ("", "path", "patient_id"))
    require(bool(classes), "manifest", "a table with at least one class column", list(rows[0]))
    labels = np.array(
        [[row.choose(name, _LABEL_OF_CELL, "1, 0 or blank") for name in classes] for row in rows]
    )
    numbers = tuple(row.number for row in rows)
    paths = tuple(str(file.parent / row.image_name()) for row in rows)
    missing = [n for n, image in zip(numbers, paths, strict=True) if not epath.Path(image).is_file()]
    received = f"{len(missing)} of {len(paths)} missing, the first in row {min(missing, default=0)}"
    require(not missing, "manifest", "a table of existing files, relative to its own folder", received)
    # Without patient_id every image counts as a patient.
    patients = np.array([row.get("patient_id", "").strip() or f"row {row.number}" for row in rows], np.str_)
    one_each = len(classes) > 1 and bool((labels.sum(axis=1) == 1).all())
    name = "single_finding" if one_each else "multi_label"
    task = Task(name, classes, np.arange(len(rows)), labels, patients)
    return ImageManifest(file.stem, paths, numbers, task, _prompts(classes, prompts_path))


def embed_files(embed: Callable[[list[bytes]], Floats], manifest: ImageManifest) -> Floats:
    """Embed the images of a manifest in chunks.

    Args:
        embed: image files to embeddings (B, D); raises if one of them is not an image.

    Returns:
        float32 (num_images, D).

    Raises:
        ValueError: a file is not a JPEG or PNG image; its row is named.
    """
    embedded = []
    for start in range(0, len(manifest.paths), _FILES_AT_ONCE):
        contents = [epath.Path(p).read_bytes() for p in manifest.paths[start : start + _FILES_AT_ONCE]]
        try:
            embedded.append(embed(contents))
        except Exception:
            numbers = manifest.numbers[start : start + _FILES_AT_ONCE]
            numbered = zip(numbers, contents, strict=True)
            bad = [str(n) for n, content in numbered if not _can_embed(embed, content)]
            if not bad:
                raise
            received = f"a file that cannot be decoded in row(s) {', '.join(bad)}"
            advice = "Replace it or remove the row."
            raise refusal("manifest", "a table of JPEG or PNG images", received, advice) from None
    return np.concatenate(embedded)


def _can_embed(embed: Callable[[list[bytes]], Floats], content: bytes) -> bool:
    try:
        embed([content])
    except Exception:
        return False
    return True


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
