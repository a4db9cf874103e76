"""Comparison of evaluated runs, with paired differences on their common images.

    python -m medclip_keras.evaluate --compare RUN_1 RUN_2 … --output DIR

Each run is an evaluation's folder, or the workdir that holds it. DIR receives comparison.json, report.html
and figures/. Differences to the first run are those of zero-shot classification, for scores.csv holds its
scores of images; of all other metrics the values stand beside each other.
"""

import csv
import dataclasses
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from etils import epath

from medclip_keras.errors import require
from medclip_keras.evaluation.arrays import Floats
from medclip_keras.evaluation.classification import score_statistics
from medclip_keras.evaluation.comparison import difference, named_estimates
from medclip_keras.evaluation.figures import bars, canvas
from medclip_keras.evaluation.metrics import Bootstrap, Estimate
from medclip_keras.evaluation.report import page_of
from medclip_keras.evaluation.results import Json
from medclip_keras.evaluation.sections import Picture, Section, Table
from medclip_keras.evaluation.table import metric_name, value_text, with_interval
from medclip_keras.evaluation.tasks import Task

COMPARISON_FILE = "comparison.json"


@dataclass(frozen=True)
class Scored:
    """Images of a data set with a run's scores."""

    task: Task
    scores: Floats  # (num_images, num_classes)
    has_patients: bool  # False in a table of an earlier version: each image counts as a patient

    def at(self, names: Sequence[str]) -> "Scored":
        """The images of these names, in their order."""
        row_of = {name: row for row, name in enumerate(self.task.names.tolist())}
        rows = np.array([row_of[name] for name in names], int)
        return dataclasses.replace(self, task=self.task.at(rows), scores=self.scores[rows])


@dataclass(frozen=True)
class Run:
    """An evaluated run."""

    name: str  # distinct
    metrics: Json
    scored: Mapping[str, Scored]  # by data set


def read_runs(folders: Sequence[str]) -> list[Run]:
    """The runs of some folders, named after their run, with the folder if that is not distinct.

    Raises:
        ValueError: fewer than two folders, or one without an evaluation.
    """
    require(len(folders) > 1, "--compare", "at least two folders of evaluations", folders)
    found = [_read(epath.Path(folder)) for folder in folders]
    names = [str(metrics.get("run", "run")) for metrics, _ in found]
    long = [f"{name} ({folder})" for name, folder in zip(names, folders, strict=True)]
    names = names if len(set(names)) == len(names) else long
    require(len(set(names)) == len(names), "--compare", "distinct folders", folders)
    return [Run(name, *parts) for name, parts in zip(names, found, strict=True)]


def _read(folder: epath.Path) -> tuple[Json, dict[str, Scored]]:
    inside = folder / "evaluation"
    folder = inside if (inside / "metrics.json").exists() else folder
    form, advice = "folders with metrics.json and scores.csv", "Evaluate the run first."
    whole = all((folder / name).exists() for name in ("metrics.json", "scores.csv"))
    require(whole, "--compare", form, str(folder), advice)
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    rows: dict[str, list[dict[str, str]]] = {}
    for row in csv.DictReader(io.StringIO((folder / "scores.csv").read_text(encoding="utf-8"))):
        rows.setdefault(row["data_set"], []).append(row)
    return metrics, {
        name: _scored(of_set, metrics["data"][name]["zero_shot"]["task"]) for name, of_set in rows.items()
    }


def _scored(rows: list[dict[str, str]], task_name: str) -> Scored:
    """A row an image and class, images one after the other."""
    classes = tuple(dict.fromkeys(row["class"] for row in rows))
    first = rows[:: len(classes)]
    shape = (len(first), len(classes))
    labels = np.array([row["truth"] or "nan" for row in rows], float).reshape(shape)
    scores = np.array([row["score"] for row in rows], float).reshape(shape)
    names = np.array([row["image"] for row in first], np.str_)
    patients = np.array([row.get("patient") or row["image"] for row in first], np.str_)
    task = Task(task_name, classes, np.arange(len(first)), labels, patients, names)
    return Scored(task, scores, "patient" in rows[0])


def compare(runs: Sequence[Run], bootstrap: Bootstrap) -> Json:
    """Values of all metrics by run, and paired differences to the first run, in JSON types.

    Follows: Efron and Tibshirani (1993), the bootstrap of paired differences over patients.

    Raises:
        ValueError: a shared image with two truths, or data sets of other classes or tasks.
    """
    named = [named_estimates(run.metrics) for run in runs]
    metrics = {name: [n[name].to_dict() if name in n else None for n in named] for name in _all(named)}
    shared = [name for name in runs[0].scored if all(name in run.scored for run in runs)]
    paired = {name: _paired([run.scored[name] for run in runs], name, bootstrap) for name in shared}
    return {"runs": [run.name for run in runs], "metrics": metrics, "zero_shot_ensemble": paired}


def _all(named: Iterable[Mapping[str, Estimate]]) -> list[str]:
    return list(dict.fromkeys(name for estimates in named for name in estimates))


def _paired(scored: Sequence[Scored], data_set: str, bootstrap: Bootstrap) -> Json:
    tasks = [one.task for one in scored]
    same = all((task.name, task.classes) == (tasks[0].name, tasks[0].classes) for task in tasks)
    form = f"evaluations of {data_set!r} with the same task and classes"
    require(same, "--compare", form, [(task.name, list(task.classes)) for task in tasks])
    shared = set.intersection(*(set(task.names.tolist()) for task in tasks))
    names = [name for name in tasks[0].names.tolist() if name in shared]
    aligned = [one.at(names) for one in scored]
    for one in aligned:
        equal = np.array_equal(one.task.labels, aligned[0].task.labels, equal_nan=True)
        require(equal, "--compare", f"evaluations of {data_set!r} with equal labels of each image", "others")
    found: Json = {
        "num_images": len(names),
        "num_images_of_runs": [len(task.rows) for task in tasks],
        "num_patients": len(np.unique(aligned[0].task.patient_ids)),
        "has_patients": all(one.has_patients for one in scored),
        "metrics": {},
    }
    if not names:
        return found
    task = aligned[0].task
    statistics = [score_statistics(task, one.scores) for one in aligned]
    values = [bootstrap.estimate(of_run, task.patient_ids) for of_run in statistics]
    differences = [
        bootstrap.estimate({k: difference(of_run[k], statistics[0][k]) for k in of_run}, task.patient_ids)
        for of_run in statistics[1:]
    ]
    for of_class, metric in statistics[0]:
        name = f"by_class.{of_class}.{metric}" if of_class else metric
        found["metrics"][name] = {
            "values": [of_run[of_class, metric].to_dict() for of_run in values],
            "differences": [of_run[of_class, metric].to_dict() for of_run in differences],
        }
    return found


def write_comparison(runs: Sequence[Run], directory: epath.PathLike, bootstrap: Bootstrap) -> Json:
    """Write comparison.json and report.html; return the former's content; raises as `compare`."""
    found, directory = compare(runs, bootstrap), epath.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    shared = found["zero_shot_ensemble"].items()
    sections = {name: [_section(found["runs"], paired)] for name, paired in shared}
    sections["All metrics"] = [_values(found)]
    made_from = {"runs": {run.name: {k: v for k, v in run.metrics.items() if k != "data"} for run in runs}}
    title = f"{runs[0].name} beside {', '.join(run.name for run in runs[1:])}"
    note = f"Differences are to {runs[0].name}; intervals of 95 %, paired, over patients."
    page = page_of(title, note, sections, directory / "figures", made_from)
    (directory / "report.html").write_bytes(page.encode())
    text = json.dumps(found, indent=2, ensure_ascii=False) + "\n"
    (directory / COMPARISON_FILE).write_bytes(text.encode())
    return found


def _section(runs: Sequence[str], paired: Json) -> Section:
    rows, drawn = [], []
    for name, found in paired["metrics"].items():
        values = [with_interval(_estimate(value)) for value in found["values"]]
        estimates = [_estimate(value) for value in found["differences"]]
        label = _label(name.removeprefix("by_class."))
        rows.append((label, *values, *(_signed(e) for e in estimates)))
        drawn += [
            (label if len(runs) == 2 else f"{label}: {run}", e)
            for run, e in zip(runs[1:], estimates, strict=True)
            if not math.isnan(e.value)
        ]
    header = ("", *runs, *(f"{run} less {runs[0]}" for run in runs[1:]))
    notes = [f"{paired['num_images']:,} images of {paired['num_patients']:,} patients that all runs have."]
    if not paired["has_patients"]:
        notes.append("A run's scores.csv names no patients, so each image counts as one: evaluate it again.")
    figures: tuple[Picture, ...] = ()
    if drawn:
        with canvas.style():
            figures = (Picture("differences", _CAPTION, bars.differences(drawn)),)
    table = Table("", header, tuple(rows))
    return Section("differences", "Zero-shot, ensemble", _SENTENCE, (table,), figures, tuple(notes))


def _values(found: Json) -> Section:
    rows = tuple(
        (_label(name), *(value_text(value and _estimate(value)) for value in values))
        for name, values in found["metrics"].items()
    )
    return Section(
        "values",
        "Values of each run",
        "As each run's own evaluation has them, on its own images.",
        (Table("", ("", *found["runs"]), rows),),
    )


def _label(name: str) -> str:
    """A metric's name for a table, as "Edema AUROC"."""
    *path, metric = name.split(".")
    return " ".join([*path, metric_name(metric)])


def _estimate(values: Mapping[str, float | None]) -> Estimate:
    limits = (values[key] for key in ("value", "low", "high"))
    return Estimate(*(math.nan if value is None else value for value in limits))


def _signed(estimate: Estimate) -> str:
    """The difference with its sign, a star where its interval is without 0."""
    if math.isnan(estimate.value):
        return "–"
    if math.isnan(estimate.low):
        return f"{estimate.value:+.3f}"
    star = " *" if estimate.low > 0 or estimate.high < 0 else ""
    return f"{estimate.value:+.3f} [{estimate.low:+.3f}, {estimate.high:+.3f}]{star}"


_SENTENCE = (
    "A star marks a difference whose interval is without 0; by chance one in twenty differences has one."
)
_CAPTION = "Differences to the first run with their 95 % intervals; right of 0 the other run is better."
