"""What an evaluation leaves behind: metrics.json, the figures as PNG, and one self-contained report.html."""

import base64
import html
import io
import json
import string
from collections.abc import Mapping

from etils import epath
from matplotlib.figure import Figure

from medclip_keras.evaluation.figures import draw
from medclip_keras.evaluation.run import TRAINED, DatasetResult
from medclip_keras.evaluation.table import COLUMNS, rows, share_of_labels, sizes

_CAPTIONS = {
    "similarity": "Mean cosine between images and prompts of each class.",
    "confusion": "True against predicted finding.",
    "roc": "ROC curves, one class against the rest.",
    "embedding": "The two main directions among the image embeddings.",
    "retrieval": "Image to text Precision@K; whiskers are 95 % intervals over patients.",
    "retrieval_similarity": "Cosines of query images and candidate sentences, sorted by finding.",
    "probe": "Linear probe on frozen features; whiskers are 95 % intervals over patients.",
}
_CLASSIFIERS = {"probe": "linear probe", "supervised": "supervised"}


def write(results: Mapping[str, DatasetResult], directory: epath.PathLike, made_from: Mapping) -> dict:
    """Writes everything into a folder, metrics.json last.

    Args:
        results: data set → result.
        directory: receives metrics.json, report.html and figures/<data set>/<figure>.png.
        made_from: run, seed and whatever else tells which model and data these are, in JSON types.

    Returns:
        The content of metrics.json: `made_from`, and under "data" each data set's figures.
    """
    directory = epath.Path(directory)
    metrics = {**made_from, "data": {name: result.metrics for name, result in results.items()}}
    sections = []
    for name, result in results.items():
        images = {stem: _png(figure) for stem, figure in draw(result).items()}
        folder = directory / "figures" / name
        folder.mkdir(parents=True, exist_ok=True)
        for stem, content in images.items():
            (folder / f"{stem}.png").write_bytes(content)
        sections.append(_section(name, result.metrics, images))
    template = string.Template((epath.Path(__file__).parent / "report.html").read_text())
    title = f"Evaluation of {made_from.get('run', 'a model')}"
    note = ", ".join(
        f"{k} {v}" for k, v in made_from.items() if isinstance(v, str | int | float) and k != "run"
    )
    page = template.substitute(title=html.escape(title), note=html.escape(note), sections="\n".join(sections))
    (directory / "report.html").write_text(page)
    (directory / "metrics.json").write_text(json.dumps(metrics, indent=2, ensure_ascii=False) + "\n")
    return metrics


def _section(name: str, metrics: Mapping, images: Mapping[str, bytes]) -> str:
    parts = [f"<h2>{html.escape(name)}</h2>", f'<p class="note">{sizes(metrics)}</p>']
    parts.append(_table(COLUMNS, [row.cells() for row in rows(metrics)]))
    if "zero_shot" in metrics:
        parts.append(_by_class(metrics["zero_shot"], "ensemble", "prompt ensemble"))
    for task, kind in _CLASSIFIERS.items():
        if task in metrics:
            share = max(metrics[task]["num_training_images"], key=float)
            parts.append(_by_class(metrics[task], share, f"{kind}, {share_of_labels(share)}"))
    for stem, content in images.items():
        encoded = base64.b64encode(content).decode()
        caption = html.escape(_CAPTIONS[stem])
        parts.append(
            f'<figure><img alt="{caption}" src="data:image/png;base64,{encoded}">'
            f"<figcaption>{caption}</figcaption></figure>"
        )
    return "\n".join(parts)


def _by_class(metrics: Mapping, which: str, described: str) -> str:
    figures = metrics[TRAINED][which]["by_class"]
    keys = sorted({key for values in figures.values() for key in values})
    body = [
        (name, str(metrics["num_positive"][name]), *(_number(values[key]["value"]) for key in keys))
        for name, values in figures.items()
    ]
    return _table((f"by class, {described}", "positive", *keys), body)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _table(header: tuple[str, ...], body: list[tuple[str, ...]]) -> str:
    lines = [("th", header), *(("td", row) for row in body)]
    return "<table>{}</table>".format(
        "".join(
            f"<tr>{''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in row)}</tr>" for tag, row in lines
        )
    )


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
