"""Figures of the trained model within groups of patients and views, each with its interval.

A figure of few positives says little, and of many groups one is low by chance. Below `FEWEST` patients with
the finding, or without it, none is given.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from medclip_keras.evaluation.arrays import Array, Bools, Floats, Strings
from medclip_keras.evaluation.classification import predicted_class, ranked_scores
from medclip_keras.evaluation.metrics import Bootstrap, Statistic, auroc, weighted_mean
from medclip_keras.evaluation.results import Json
from medclip_keras.evaluation.sections import Section, Table
from medclip_keras.evaluation.table import Cells, estimate_of, with_interval
from medclip_keras.evaluation.tasks import Task

FEWEST = 10  # patients with a finding, and without it, below which nothing is claimed
OVERALL = "all findings"
TITLES = {"sex": "Sex", "age": "Age", "view_position": "View"}
_FEWEST_IN_GROUP = 2  # patients, for a group to be listed


@dataclass(frozen=True)
class Subgroups:
    """A table of each fact that divides the images."""

    # "sex", "age", "view_position" → group → {"num_images", "num_patients", "findings"}; of each finding, and
    # `OVERALL`, "num_positive", "num_negative" and "auroc" or "accuracy"
    metrics: Mapping[str, Json]


def groups_of(facts: Mapping[str, Strings]) -> dict[str, Strings]:
    """Group of each image by sex, age decade and view position; "" where it is unknown.

    >>> groups_of({"age": np.array(["7", "63", ""])})["age"].tolist()
    ['0-9', '60-69', '']
    """
    found = {name: values for name, values in facts.items() if name in TITLES and name != "age"}
    if "age" in facts:
        found["age"] = np.array([decade(age) for age in facts["age"]], np.str_)
    return {name: found[name] for name in TITLES if name in found and (found[name] != "").any()}


def decade(age: str) -> str:
    """The ten years that an age falls in; from 90 on all together."""
    if not age:
        return ""
    first = int(age) // 10 * 10
    return "90+" if first >= 90 else f"{first}-{first + 9}"


def subgroups(task: Task, scores: Floats, groups: Mapping[str, Strings], bootstrap: Bootstrap) -> Subgroups:
    """AUROC of each finding, and in single_finding accuracy, within each group; intervals over its patients.

    Args:
        task: the images and their labels.
        scores: float (num_images, num_classes), of the trained model.
        groups: fact → group of each image (num_images,), of `groups_of`.
        bootstrap: of the intervals.
    """
    tables: dict[str, Json] = {}
    for fact, of_image in groups.items():
        names = sorted({str(name) for name in of_image} - {""}, key=_by_number)
        rows = {name: _group(task, scores, of_image == name, bootstrap) for name in names}
        tables[fact] = {name: row for name, row in rows.items() if row["num_patients"] >= _FEWEST_IN_GROUP}
    return Subgroups({fact: table for fact, table in tables.items() if table})


def enough(labels: Floats, patient_ids: Array, fewest: int = FEWEST) -> bool:
    """Whether `fewest` patients have the label 1, and as many the label 0."""
    return all(len(np.unique(patient_ids[labels == label])) >= fewest for label in (0, 1))


def _group(task: Task, scores: Floats, inside: Bools, bootstrap: Bootstrap) -> Json:
    own, own_scores = task.at(inside), scores[inside]
    ranked = ranked_scores(task, scores)[inside]
    statistics: dict[str, Statistic] = {}
    for k, name in enumerate(own.classes):
        if enough(own.labels[:, k], own.patient_ids):
            statistics[name] = functools.partial(auroc, ranked[:, k], own.labels[:, k])
    if own.is_single and len(np.unique(own.patient_ids)) >= FEWEST:
        correct = predicted_class(task, scores)[inside] == own.class_index
        statistics[OVERALL] = functools.partial(weighted_mean, correct.astype(np.float64))
    estimates = bootstrap.estimate(statistics, own.patient_ids) if statistics else {}
    findings: Json = {}
    for name in ([OVERALL] if own.is_single else []) + list(own.classes):
        metric = "accuracy" if name == OVERALL else "auroc"
        labels = own.labels[:, own.classes.index(name)] if name != OVERALL else np.empty(0)
        counts = {"num_positive": int((labels == 1).sum()), "num_negative": int((labels == 0).sum())}
        estimate = estimates[name].to_dict() if name in estimates else None
        findings[name] = (counts if name != OVERALL else {}) | {metric: estimate}
    numbers = {"num_images": len(own_scores), "num_patients": len(np.unique(own.patient_ids))}
    return numbers | {"findings": findings}


def _by_number(name: str) -> tuple[int, str]:
    digits = name.split("-")[0].rstrip("+")
    return (int(digits) if digits.isdigit() else 0, name)


def subgroups_section(result: Subgroups) -> Section:
    """A table a fact: rows are groups, columns findings."""
    return Section(
        "subgroups",
        "Does it work for everyone?",
        "The trained model's zero-shot figures, prompt ensemble, within groups of patients and views.",
        tuple(_fact_table(TITLES[fact], groups) for fact, groups in result.metrics.items()),
        (),
        (f"A dash: fewer than {FEWEST} patients of the group with the finding, or without it.",),
    )


def _fact_table(title: str, groups: Mapping[str, Json]) -> Table:
    names: Sequence[str] = list(next(iter(groups.values()))["findings"])
    header: Cells = ("", "images", "patients", *(f"{'accuracy' if n == OVERALL else n}" for n in names))
    return Table(
        "AUROC [95 % CI] of each finding.",
        header,
        tuple(
            (group, str(row["num_images"]), str(row["num_patients"]), *map(_cell, row["findings"].values()))
            for group, row in groups.items()
        ),
        title,
    )


def _cell(found: Json) -> str:
    estimate = found.get("auroc", found.get("accuracy"))
    return with_interval(estimate_of(estimate)) if estimate else "–"
