"""Outputs of an evaluation: metrics.json, the plots as PNG, and one self-contained report.html."""

import base64
import io
import json
from collections.abc import Mapping

from etils import epath
from matplotlib.figure import Figure

from medclip_keras.evaluation.plots import draw
from medclip_keras.evaluation.results import DatasetResult, Json
from medclip_keras.evaluation.table import COLUMNS, by_class, rows, sizes
from medclip_keras.pages import fill_template, html_table

_CAPTIONS = {
    "similarity": "Mean cosine between images and prompts of each class.",
    "confusion": "True against predicted finding.",
    "roc": "ROC curves, one class against the rest.",
    "embedding": "The two main directions among the image embeddings.",
    "retrieval": "Image to text Precision@K; whiskers are 95 % intervals over patients.",
    "retrieval_similarity": "Cosines of query images and candidate sentences, sorted by finding.",
    "probe": "Linear probe on frozen features; whiskers are 95 % intervals over patients.",
}


def write(
    results: Mapping[str, DatasetResult], directory: epath.PathLike, made_from: Mapping[str, object]
) -> Json:
    """Write all outputs into a folder, metrics.json last; return its content.

    Plots are figures/<data set>/<plot>.png. metrics.json holds `made_from`, the run, seed and other inputs in
    JSON types, and under "data" each data set's metrics.
    """
    directory = epath.Path(directory)
    sections = []
    for name, result in results.items():
        plots = {stem: _png(figure) for stem, figure in draw(result).items()}
        folder = directory / "figures" / name
        folder.mkdir(parents=True, exist_ok=True)
        for stem, png in plots.items():
            (folder / f"{stem}.png").write_bytes(png)
        sections.append(_section(name, result, plots))
    title = f"Evaluation of {made_from.get('run', 'a model')}"
    shown = {k: v for k, v in made_from.items() if isinstance(v, str | int | float) and k != "run"}
    note = ", ".join(f"{k} {v}" for k, v in shown.items())
    page = fill_template("medclip_keras.evaluation", "report.html", title=title, note=note, sections=sections)
    (directory / "report.html").write_text(page)
    metrics = {**made_from, "data": {name: result.metrics for name, result in results.items()}}
    (directory / "metrics.json").write_text(json.dumps(metrics, indent=2, ensure_ascii=False) + "\n")
    return metrics


def _section(name: str, result: DatasetResult, plots: Mapping[str, bytes]) -> Json:
    tables = [(COLUMNS, [row.cells() for row in rows(result)]), *by_class(result)]
    return {
        "name": name,
        "sizes": sizes(result),
        "tables": [html_table(header, body) for header, body in tables],
        "plots": [(_CAPTIONS[stem], base64.b64encode(png).decode()) for stem, png in plots.items()],
    }


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
