"""Outputs of an evaluation: metrics.json, scores.csv, figures as PNG, and one self-contained report.html."""

import csv
import dataclasses
import io
import itertools
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from markupsafe import Markup
from matplotlib.figure import Figure

from medclip_keras.evaluation.cross_retrieval import cross_retrieval_section
from medclip_keras.evaluation.figures import bars, canvas
from medclip_keras.evaluation.fine_tuned import fine_tune_section
from medclip_keras.evaluation.leaks import leaks_section
from medclip_keras.evaluation.parts import (
    probe_section,
    retrieval_section,
    supervised_section,
    zero_shot_section,
)
from medclip_keras.evaluation.results import TRAINED, DatasetResult, Json
from medclip_keras.evaluation.sections import Picture, Section
from medclip_keras.evaluation.shortcuts import shortcuts_section
from medclip_keras.evaluation.subgroups import subgroups_section
from medclip_keras.evaluation.summary import Summary, summarize
from medclip_keras.evaluation.table import Row, sizes, value_text
from medclip_keras.evaluation.trust.tables import trust_section
from medclip_keras.evaluation.where.section import localization_section
from medclip_keras.files import write_whole
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
    ("localization", localization_section),
    ("subgroups", subgroups_section),
    ("shortcuts", shortcuts_section),
    ("leaks", leaks_section),
)
_FURTHER = (
    "More on the labels: --tasks probe (minutes) and --tasks fine_tune (a training for each start, share and"
    " seed), with --set evaluation.probe_fractions=[0.01,0.1,1]."
)


def sections_of(result: DatasetResult) -> list[Section]:
    """Sections of the measured parts; class names are not changed."""
    parts = ((getattr(result, name), section_of) for name, section_of in PARTS)
    with canvas.style():
        found = [section_of(part) for part, section_of in parts if part is not None]
    if result.zero_shot is not None and (result.probe is None or result.fine_tune is None):
        found[0] = dataclasses.replace(found[0], notes=(*found[0].notes, _FURTHER))
    return found


def figures_of(result: DatasetResult) -> dict[str, Figure]:
    """All figures of one data set: name → figure."""
    return {picture.name: picture.figure for section in sections_of(result) for picture in section.figures}


def write(
    results: Mapping[str, DatasetResult],
    directory: epath.PathLike,
    made_from: Mapping[str, Any],
    settings: Mapping[str, Any] | None = None,
    more: Mapping[str, Sequence[Section]] | None = None,
) -> Json:
    """Write all outputs into a folder, metrics.json last; return its content.

    scores.csv has a row an image and class of zero-shot classification: the trained model's ensemble score,
    the truth as 1, 0 or blank, and the patient's number in the table. Figures are
    figures/<folder_names>/<name>.png. metrics.json holds `made_from`, the run, seed and other inputs in JSON
    types, under "data_sets" those of each data set, and under "data" each data set's metrics. The page also
    shows `settings`, the run's configuration, and `more` sections of a data set, such as those with pictures.
    """
    directory = epath.Path(directory)
    of_sets, data_sets = made_from.get("data_sets", {}), []
    folders = folder_names(results)
    for name, result in results.items():
        sections = [*sections_of(result), *(more or {}).get(name, ())]
        folder = directory / "figures" / folders[name]
        data_sets.append(_data_set(name, folder, sections, result, of_sets.get(name, {})))
    title = f"Evaluation of {made_from.get('run', 'a model')}"
    note = facts({k: v for k, v in made_from.items() if k in ("step", "checkpoint", "split", "seed")})
    page = _fill(title, note, data_sets, made_from, settings)
    write_whole(directory / "report.html", page)
    _write_scores(results, directory / "scores.csv")
    figures = {name: result.metrics for name, result in results.items()}
    metrics: dict[str, Any] = _without_nan({**made_from, "data": figures})
    text = json.dumps(metrics, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_whole(directory / "metrics.json", text)
    return metrics


def _without_nan(value: Any) -> Any:
    """JSON types with None, which JSON has, for NaN, which it has not."""
    if isinstance(value, Mapping):
        return {name: _without_nan(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(one) for one in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def page_of(
    title: str,
    note: str,
    sections: Mapping[str, Sequence[Section]],
    folder: epath.Path,
    made_from: Mapping[str, Any],
) -> Markup:
    """A page of sections by chapter, without summaries; figures are written into `folder` too."""
    folders = folder_names(sections)
    chapters = [_chapter(name, folder / folders[name], found) for name, found in sections.items()]
    return _fill(title, note, chapters, made_from, None)


def _fill(
    title: str,
    note: str,
    data_sets: Sequence[Json],
    made_from: Mapping[str, Any],
    settings: Mapping[str, Any] | None,
) -> Markup:
    shown = json.dumps(settings, indent=1, ensure_ascii=False) if settings else ""
    names = {"title": title, "note": note, "data_sets": data_sets, "settings": shown}
    return fill_template("medclip_keras.evaluation", "report.html", origin=_origin(made_from), **names)


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


def facts(values: Mapping[str, Any]) -> str:
    """Names and values in one line, numbers with four digits; lists and nested values are left out."""
    shown = {k: v for k, v in values.items() if isinstance(v, str | int | float) and v != ""}
    return ", ".join(f"{k.replace('_', ' ')} {_short(v)}" for k, v in shown.items())


def _short(value: str | int | float) -> str:
    """Four digits of a number, and the start of a checksum."""
    if isinstance(value, str) and re.fullmatch("[0-9a-f]{20,}", value):
        return f"{value[:12]}…"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _origin(made_from: Mapping[str, Any]) -> Markup:
    """Table of the provenance of the figures; nested values are named by their path."""
    rows: list[tuple[str, str]] = []

    def visit(prefix: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for name, child in value.items():
                visit(f"{prefix}{' › ' if prefix else ''}{str(name).replace('_', ' ')}", child)
        else:
            text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else _short(value)
            rows.append((prefix, text or "–"))

    visit("", made_from)
    return html_table(("", "value"), rows)


def _write_scores(results: Mapping[str, DatasetResult], path: epath.Path) -> None:
    with io.StringIO(newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("data_set", "image", "class", "score", "truth", "patient"))
        for data_set, result in results.items():
            if not result.zero_shot:
                continue
            task, scores = result.zero_shot.task, result.zero_shot.scores["ensemble"][TRAINED]
            _, patients = np.unique(task.patient_ids, return_inverse=True)  # numbers, no identifiers
            images = zip(task.names, scores, task.labels, patients, strict=True)
            for name, of_image, labels, patient in images:
                for finding, score, label in zip(task.classes, of_image, labels, strict=True):
                    truth = "" if np.isnan(label) else int(label)
                    table.writerow((data_set, name, finding, f"{score:.6g}", truth, patient))
        write_whole(path, file.getvalue())


def _chapter(name: str, folder: epath.Path, sections: Sequence[Section]) -> Json:
    """A chapter of the page without a summary; writes its figures into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    anchor = folder.name.replace(" ", "-")
    found = {"name": name, "anchor": anchor, "summary": None, "made_from": "", "sizes": ""}
    return found | {"sections": [_section(anchor, folder, section) for section in sections]}


def _data_set(
    name: str, folder: epath.Path, sections: Sequence[Section], result: DatasetResult, made_from: Json
) -> Json:
    """The chapter of a data set."""
    chapter = _chapter(name, folder, sections)
    return chapter | {
        "summary": _summary(chapter["anchor"], folder, summarize(result, made_from)),
        "made_from": facts(made_from),
        "sizes": sizes(result) if result.tasks else "",
    }


def _summary(prefix: str, folder: epath.Path, summary: Summary) -> Json:
    shown = [row for row in summary.rows if not np.isnan(row.trained.value)]
    picture = ""
    if shown:
        with canvas.style():
            overview = Picture("overview", _OVERVIEW, bars.overview(shown))
        picture = _drawn(prefix, folder, overview)
    return {
        "measured": summary.measured,
        "meaning": summary.meaning,
        "cautions": summary.cautions,
        "overview": picture,
        "overview_caption": _OVERVIEW,
        "main": _main(summary.main) if summary.main else None,
    }


def _main(row: Row) -> Json:
    low, high = row.trained.low, row.trained.high
    return {
        "name": row.name,
        "value": value_text(row.trained),
        "interval": "" if np.isnan(low) else f"{low:.3f} to {high:.3f}",
        "baseline": f"{row.baseline:.3f}",
        "untrained": value_text(row.untrained) if row.untrained else "",
    }


def _section(prefix: str, folder: epath.Path, section: Section) -> Json:
    tables, published = (
        [(t.title, t.caption, html_table(t.header, t.rows)) for t in found]
        for found in (section.tables, section.published)
    )
    return {
        "title": section.title,
        "anchor": f"{prefix}-{section.anchor}",
        "sentence": section.sentence,
        "notes": section.notes,
        "tables": tables,
        "published": published,
        "strips": section.strips,
        "figures": [(p.caption, _drawn(prefix, folder, p)) for p in section.figures],
    }


def _drawn(prefix: str, folder: epath.Path, picture: Picture) -> Markup:
    """The figure as SVG, and a PNG of it in the folder."""
    (folder / f"{picture.name}.png").write_bytes(canvas.as_png(picture.figure))
    return Markup(canvas.as_svg(picture.figure, f"{prefix}-{picture.name}", picture.caption))


_OVERVIEW = "Main figures: dot and band are the trained model and its 95 % interval over patients."
