"""Outputs of an evaluation: metrics.json, scores.csv, plots as PNG, and one self-contained report.html."""

import base64
import csv
import io
import itertools
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import matplotlib
import numpy as np
from etils import epath
from matplotlib.figure import Figure

from medclip_keras.evaluation.plots import draw
from medclip_keras.evaluation.results import TRAINED, DatasetResult, Json
from medclip_keras.evaluation.table import COLUMNS, by_class, rows, sizes
from medclip_keras.evaluation.trust.tables import missing_validation, trust_tables
from medclip_keras.pages import fill_template, html_table

_CAPTIONS = {
    "similarity": "Mean cosine between images and prompts of each class.",
    "confusion": "True against predicted finding.",
    "roc": "ROC curves, one class against the rest.",
    "embedding": "The two main directions among the image embeddings.",
    "retrieval": "Image to text Precision@K; whiskers are 95 % intervals over patients.",
    "retrieval_similarity": "Cosines of query images and candidate sentences, sorted by finding.",
    "reliability": "Share of right answers against probability, before and after calibration; on the diagonal"
    " they are equal.",
    "probe": "Linear probe on frozen features; whiskers are 95 % intervals over patients.",
}


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
        plots = {stem: _png(figure) for stem, figure in draw(result).items()}
        folder = directory / "figures" / folders[name]
        folder.mkdir(parents=True, exist_ok=True)
        for stem, png in plots.items():
            (folder / f"{stem}.png").write_bytes(png)
        of = made_from.get("data_sets", {}).get(name, {})
        sections.append(_section(name, folders[name], result, plots, _facts(of)))
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


def _section(
    name: str, folder: str, result: DatasetResult, plots: Mapping[str, bytes], made_from: str
) -> Json:
    tables = [(COLUMNS, [row.cells() for row in rows(result)]), *by_class(result)]
    trusted = trust_tables(result.trust) if result.trust else []
    return {
        "name": name,
        "anchor": folder.replace(" ", "-"),
        "trust": [(title, sentence, html_table(header, body)) for title, sentence, header, body in trusted],
        "trust_note": missing_validation(result.trust) if result.trust else "",
        "made_from": made_from,
        "sizes": sizes(result),
        "tables": [html_table(header, body) for header, body in tables],
        "plots": [(_CAPTIONS[stem], base64.b64encode(png).decode()) for stem, png in plots.items()],
    }


@matplotlib.rc_context({"text.parse_math": False})
def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
