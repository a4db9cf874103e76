"""Outputs of an evaluation: metrics.json, scores.csv, plots as PNG, and one self-contained report.html."""

import base64
import csv
import io
import itertools
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import matplotlib
import numpy as np
from etils import epath
from matplotlib.figure import Figure

from medclip_keras.evaluation.cross_retrieval import cross_retrieval_section
from medclip_keras.evaluation.fine_tuned import fine_tune_section
from medclip_keras.evaluation.leaks import leaks_section
from medclip_keras.evaluation.parts import (
    probe_section,
    retrieval_section,
    supervised_section,
    zero_shot_section,
)
from medclip_keras.evaluation.results import TRAINED, DatasetResult, Json
from medclip_keras.evaluation.sections import Section
from medclip_keras.evaluation.shortcuts import shortcuts_section
from medclip_keras.evaluation.subgroups import subgroups_section
from medclip_keras.evaluation.table import sizes
from medclip_keras.evaluation.trust.tables import trust_section
from medclip_keras.pages import fill_template, html_table

# Part of a `DatasetResult` and its section, in the order of the page.
PARTS: tuple[tuple[str, Callable[[Any], Section]], ...] = (
    ("zero_shot", zero_shot_section),
    ("retrieval", retrieval_section),
    ("probe", probe_section),
    ("fine_tune", fine_tune_section),
    ("supervised", supervised_section),
    ("cross_retrieval", cross_retrieval_section),
    ("trust", trust_section),
    ("subgroups", subgroups_section),
    ("shortcuts", shortcuts_section),
    ("leaks", leaks_section),
)


@matplotlib.rc_context({"text.parse_math": False})
def sections_of(result: DatasetResult) -> list[Section]:
    """The sections of the parts that were measured; names of classes are drawn as they are."""
    found = ((getattr(result, name), section_of) for name, section_of in PARTS)
    return [section_of(part) for part, section_of in found if part is not None]


def figures_of(result: DatasetResult) -> dict[str, Figure]:
    """All figures of one data set: name → figure."""
    return {picture.name: picture.figure for section in sections_of(result) for picture in section.figures}


def write(
    results: Mapping[str, DatasetResult], directory: epath.PathLike, made_from: Mapping[str, Any]
) -> Json:
    """Write all outputs into a folder, metrics.json last; return its content.

    scores.csv has a row an image and class of zero-shot classification: the trained model's ensemble score,
    and the truth as 1, 0 or blank. Plots are figures/<folder_names>/<plot>.png. metrics.json holds
    `made_from`, the run, seed and other inputs in JSON types, under "data_sets" those of each data set, and
    under "data" each data set's metrics.
    """
    directory = epath.Path(directory)
    sections, folders = [], folder_names(results)
    for name, result in results.items():
        folder = directory / "figures" / folders[name]
        folder.mkdir(parents=True, exist_ok=True)
        of = made_from.get("data_sets", {}).get(name, {})
        sections.append(_data_set(name, folder, result, _facts(of)))
    title = f"Evaluation of {made_from.get('run', 'a model')}"
    note = _facts({k: v for k, v in made_from.items() if k != "run"})
    page = fill_template("medclip_keras.evaluation", "report.html", title=title, note=note, sections=sections)
    (directory / "report.html").write_bytes(page.encode())
    _write_scores(results, directory / "scores.csv")
    metrics = {**made_from, "data": {name: result.metrics for name, result in results.items()}}
    text = json.dumps(metrics, indent=2, ensure_ascii=False) + "\n"
    (directory / "metrics.json").write_bytes(text.encode())
    return metrics


def folder_names(names: Iterable[str]) -> dict[str, str]:
    """Folder of each data set's plots: its name, "_" for characters that no path has, different from others.

    >>> folder_names(["phantom 2", "..", "a/b", "A_b"])
    {'phantom 2': 'phantom 2', '..': '_', 'a/b': 'a_b', 'A_b': 'A_b 2'}
    """
    found: dict[str, str] = {}
    for name in names:
        plain = re.sub(r'[<>:"/\\|?*\x00-\x1f]', "_", name).strip(". ") or "_"
        taken = {folder.casefold() for folder in found.values()}
        numbered = (f"{plain} {number}" for number in itertools.count(2))
        found[name] = next(f for f in itertools.chain([plain], numbered) if f.casefold() not in taken)
    return found


def _facts(values: Mapping[str, Any]) -> str:
    """Names and values in one line, numbers with four digits; lists and nested values are left out."""
    shown = {k: v for k, v in values.items() if isinstance(v, str | int | float) and v != ""}
    texts = ((k, f"{v:.4g}" if isinstance(v, float) else v) for k, v in shown.items())
    return ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in texts)


def _write_scores(results: Mapping[str, DatasetResult], path: epath.Path) -> None:
    with io.StringIO(newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("data_set", "image", "class", "score", "truth"))
        for data_set, result in results.items():
            if not result.zero_shot:
                continue
            task, scores = result.zero_shot.task, result.zero_shot.scores["ensemble"][TRAINED]
            for name, of_image, labels in zip(task.names, scores, task.labels, strict=True):
                for finding, score, label in zip(task.classes, of_image, labels, strict=True):
                    truth = "" if np.isnan(label) else int(label)
                    table.writerow((data_set, name, finding, f"{score:.6g}", truth))
        path.write_bytes(file.getvalue().encode())


def _data_set(name: str, folder: epath.Path, result: DatasetResult, made_from: str) -> Json:
    """One data set for the template; writes its figures into `folder`."""
    anchor = folder.name.replace(" ", "-")
    return {
        "name": name,
        "anchor": anchor,
        "made_from": made_from,
        "sizes": sizes(result),
        "sections": [_section(anchor, folder, section) for section in sections_of(result)],
    }


def _section(prefix: str, folder: epath.Path, section: Section) -> Json:
    plots = [(figure.caption, _png(figure.figure), figure.name) for figure in section.figures]
    for _, png, stem in plots:
        (folder / f"{stem}.png").write_bytes(png)
    return {
        "title": section.title,
        "anchor": f"{prefix}-{section.anchor}",
        "sentence": section.sentence,
        "notes": section.notes,
        "tables": [(t.title, t.caption, html_table(t.header, t.rows)) for t in section.tables],
        "plots": [(caption, base64.b64encode(png).decode()) for caption, png, _ in plots],
    }


@matplotlib.rc_context({"text.parse_math": False})
def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
