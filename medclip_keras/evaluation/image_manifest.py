"""The user's own images: a table of paths and 0/1 columns, and prompts for its classes."""

import hashlib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from etils import epath

from medclip_keras.errors import near_names, require
from medclip_keras.evaluation.arrays import Array, ByModel, Floats
from medclip_keras.evaluation.prompts import DENIED, Prompts, prompts_made_from, read_prompts, shipped_prompts
from medclip_keras.evaluation.tasks import Task
from medclip_keras.knowledge.concepts import NO_FINDING
from medclip_keras.sources.tables import TableRow, plain_code, read_table

_LABEL_OF_CELL = {"1": 1.0, "0": 0.0, "": np.nan, "-1": np.nan}  # -1 is uncertain
_FILES_AT_ONCE = 32


@dataclass(frozen=True)
class ImageManifest:
    """Image files with labels, and the prompts of their classes."""

    name: str  # of the CSV file
    paths: tuple[str, ...]  # (num_images,)
    numbers: tuple[int, ...]  # (num_images,) of the rows; the first row after the header is row 1
    task: Task  # "single_finding" if every image has exactly one of several findings, or of two classes
    prompts: Prompts  # of the classes, and the normal prompts of "No Finding", if any
    made_from: Mapping[str, Any]  # table, prompts and their SHA-256, in JSON types

    def name_beside(self, names: Collection[str]) -> str:
        """The manifest's name, different from the names of other data sets, in capitals or not."""
        taken, name, number = {other.casefold() for other in names}, self.name, 1
        while name.casefold() in taken:
            number += 1
            name = f"{self.name} (manifest)" if number == 2 else f"{self.name} (manifest {number - 1})"
        return name


def read_image_manifest(path: str, prompts_path: str = "", classes: Sequence[str] = ()) -> ImageManifest:
    """Read a table with the columns `path`, optionally `patient_id`, and one column a class.

    A class's cell is 1, 0, or blank or -1 for not known; 1.0 is read as 1. Image paths are relative to the
    file's folder.

    Args:
        path: of the table.
        prompts_path: a JSON file {class: [prompt, …]}; "": the classes' names select shipped prompts.
        classes: the columns to evaluate; (): every column but `path` and `patient_id`.

    Raises:
        ValueError: a missing file, column or prompt, a cell that is none of these; before any image is read.
    """
    file = epath.Path(path)
    require(file.is_file(), "manifest", "a CSV file", path, "Check the path.")
    rows = list(read_table(path, ("path",)))
    require(bool(rows), "manifest", "a CSV file with at least one row", f"{path} without rows")
    columns = tuple(name for name in rows[0] if name not in ("", "path", "patient_id"))
    require(bool(columns), "manifest", "a table with at least one class column", list(rows[0]))
    for name in classes:
        require(name in columns, "--classes", "columns of the manifest", name, near_names(name, columns))
    form = "1, 0, -1 or blank" if classes else "1, 0, -1 or blank, unless --classes names other columns"
    classes = tuple(classes) or columns
    labels = np.array([[_label(row, name, form) for name in classes] for row in rows])
    numbers = tuple(row.number for row in rows)
    paths = tuple(str(file.parent / row.image_name()) for row in rows)
    missing = [n for n, image in zip(numbers, paths, strict=True) if not epath.Path(image).is_file()]
    received = f"{len(missing)} of {len(paths)} missing, the first in row {min(missing, default=0)}"
    require(not missing, "manifest", "a table of existing files, relative to its own folder", received)
    # Without patient_id every image counts as a patient.
    patients = np.array([row.get("patient_id") or f"row {row.number}" for row in rows], np.str_)
    one_each = len(classes) > 1 and bool((labels.sum(axis=1) == 1).all())
    one_each &= (
        len(classes) == 2 or NO_FINDING not in classes
    )  # else the contrast would depend on this column
    name = "single_finding" if one_each else "multi_label"
    names = np.array([row["path"] for row in rows], np.str_)
    task = Task(name, classes, np.arange(len(rows)), labels, patients, names)
    prompts = _prompts(classes, prompts_path)
    made_from = {
        "manifest": str(path),
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest()[:16],
        "rows": len(rows),
        **prompts_made_from(prompts_path, prompts),
    }
    return ImageManifest(_stem(file.name), paths, numbers, task, prompts, made_from)


def _stem(name: str) -> str:
    """The name of a table without its endings, as of `mine.csv.gz`."""
    return re.sub(r"(?i)\.(csv|tsv|txt|parquet|xlsx)(\.gz|\.zip)?$", "", name) or name


def _label(row: TableRow, column: str, form: str) -> float:
    code = plain_code(row[column])
    return _LABEL_OF_CELL[code] if code in _LABEL_OF_CELL else row.choose(column, _LABEL_OF_CELL, form)


def embed_files(
    embed: Mapping[str, Callable[[Array], Floats]], read: Callable[[str], Array], manifest: ImageManifest
) -> ByModel:
    """Embed the images of a manifest in chunks.

    Args:
        embed: model → function of stored images uint8 (B, S, S, 1) to (B, D).
        read: path → the stored image uint8 (S, S, 1) of a file; raises ValueError with the reason.
        manifest: names the files.

    Returns:
        Model → float32 (num_images, D).

    Raises:
        ValueError: files that cannot be read; their rows are named.
    """
    embedded: dict[str, list[Floats]] = {who: [] for who in embed}
    for start in range(0, len(manifest.paths), _FILES_AT_ONCE):
        squares, bad = [], []
        chunk = slice(start, start + _FILES_AT_ONCE)
        for number, path in zip(manifest.numbers[chunk], manifest.paths[chunk], strict=True):
            try:
                squares.append(read(path))
            except ValueError as error:
                bad.append(f"row {number} ({error})")
        form, advice = "a table of JPEG, PNG or DICOM images", "Replace the file or remove the row."
        require(not bad, "manifest", form, f"a file that cannot be read in {', '.join(bad)}", advice)
        for who, function in embed.items():
            embedded[who].append(function(np.stack(squares)))
    return {who: np.concatenate(parts) for who, parts in embedded.items()}


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
    denied = [DENIED + name for name in classes if DENIED + name in prompts and DENIED + name not in classes]
    extra = [name for name in prompts if name not in (*classes, *denied, NO_FINDING)]
    form = f"a file of the manifest's classes ({', '.join(classes)}) and optionally {NO_FINDING!r}"
    require(not extra or not prompts_path, "prompts", form, extra)
    normal = [NO_FINDING] if NO_FINDING in prompts and NO_FINDING not in classes else []
    wanted = [*classes, *normal, *denied]
    return {name: prompts[name] for name in wanted}
