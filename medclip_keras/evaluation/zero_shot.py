"""Zero-shot classification: an image's class is read off its similarity to the prompts of each class.

Two ways to make one logit of a class's prompts: "single" takes the best matching prompt (maximum), "ensemble"
all of them (mean). Two tasks: in `single_finding` every image has exactly one of the findings and the highest
logit wins, as on the x200 sets; in `multi_label` a finding's score is its distance to the normal prompts,

    score(finding) = aggregate(logits of the finding's prompts) - aggregate(logits of the normal prompts),

and each finding has an AUROC of its own. "Abnormal" takes the prompts of all findings together.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medclip_keras.config import EvaluationConfig
from medclip_keras.errors import require
from medclip_keras.evaluation.embedder import ImageTable
from medclip_keras.evaluation.metrics import Statistic, auroc, estimate, mean_of, weighted_mean
from medclip_keras.evaluation.prompts import ABNORMAL, ClassPrompts
from medclip_keras.knowledge.concepts import NO_FINDING
from medclip_keras.knowledge.states import LabelState

MODES = {"single": np.max, "ensemble": np.mean}


@dataclass(frozen=True)
class Task:
    """Which images are classified, and the truth about them.

    Attributes:
        name: "single_finding" or "multi_label".
        classes: names, in the order of the columns of `labels`.
        rows: int (num_images,), positions in the data set's ImageTable.
        labels: float (num_images, num_classes) of 0, 1 and NaN where the truth is not known.
        patient_ids: (num_images,).
    """

    name: str
    classes: tuple[str, ...]
    rows: np.ndarray
    labels: np.ndarray
    patient_ids: np.ndarray

    @property
    def class_index(self) -> np.ndarray:
        """The one class of each image, int (num_images,); of single_finding only."""
        return self.labels.argmax(axis=1)

    def description(self) -> dict:
        """How much of what there is, in JSON types."""
        return {
            "task": self.name,
            "num_images": len(self.rows),
            "num_patients": len(set(self.patient_ids)),
            "num_positive": {name: int(np.nansum(self.labels[:, k])) for k, name in enumerate(self.classes)},
        }


def only_finding(label_states: np.ndarray, columns: Sequence[int]) -> np.ndarray:
    """The one finding among `columns` that is positive, or -1 where none is or several are.

    >>> states = np.array([[1, 0, 2], [1, 1, 0], [0, 3, 1]])  # positive is 1
    >>> only_finding(states, [0, 2]).tolist()
    [0, 0, 1]

    Args:
        label_states: int8 (num_rows, num_findings), of LabelState.
        columns: the findings that matter.

    Returns:
        int (num_rows,), positions in `columns`.
    """
    positive = label_states[:, list(columns)] == LabelState.POSITIVE
    return np.where(positive.sum(axis=1) == 1, positive.argmax(axis=1), -1)


def first_of_each_class(class_index: np.ndarray, keys: np.ndarray, per_class: int) -> np.ndarray:
    """Rows of at most `per_class` members a class, those with the smallest keys; -1 is no class.

    >>> first_of_each_class(np.array([0, 1, 0, -1]), np.array(["c", "b", "a", "d"]), per_class=1).tolist()
    [2, 1]

    Args:
        class_index: int (num_rows,), -1 for rows without a class.
        keys: (num_rows,), distinct; record keys are hashes, so their order is as good as a draw.
        per_class: the most members a class.

    Returns:
        int (num_chosen,), in the order of class, then key.
    """
    rows = np.lexsort((keys, class_index))
    rows = rows[class_index[rows] >= 0]
    starts = np.searchsorted(class_index[rows], class_index[rows])
    return rows[np.arange(len(rows)) - starts < per_class]


def single_finding_task(
    table: ImageTable, findings: Sequence[str], concept_names: Sequence[str], per_class: int
) -> Task:
    """Images with exactly one of the findings, at most `per_class` of each."""
    class_index = only_finding(table.label_states, [concept_names.index(name) for name in findings])
    rows = first_of_each_class(class_index, table.record_keys, per_class)
    labels = np.eye(len(findings))[class_index[rows]]
    return Task("single_finding", tuple(findings), rows, labels, table.patient_ids[rows])


def multi_label_task(table: ImageTable, findings: Sequence[str], concept_names: Sequence[str]) -> Task:
    """All images; a finding called uncertain is not known, one that is not mentioned is absent."""
    labels = np.stack([_finding_labels(table.label_states, name, concept_names) for name in findings], axis=1)
    return Task("multi_label", tuple(findings), np.arange(len(table)), labels, table.patient_ids)


def make_task(
    table: ImageTable, config: EvaluationConfig, concept_names: Sequence[str], per_class: int
) -> Task:
    """The task that a run is evaluated by, with at most `per_class` images a class (single_finding)."""
    if config.task == "multi_label":
        return multi_label_task(table, config.findings, concept_names)
    findings = [name for name in config.findings if name != ABNORMAL]
    return single_finding_task(table, findings, concept_names, per_class)


def _finding_labels(states: np.ndarray, name: str, concept_names: Sequence[str]) -> np.ndarray:
    if name == ABNORMAL:
        return (states[:, concept_names.index(NO_FINDING)] != LabelState.POSITIVE).astype(np.float64)
    column = states[:, concept_names.index(name)]
    return np.where(column == LabelState.UNCERTAIN, np.nan, column == LabelState.POSITIVE)


def class_scores(logits: np.ndarray, prompts: ClassPrompts, classes: Sequence[str], mode: str) -> np.ndarray:
    """One score a class from the logits of the prompts; minus that of the normal prompts where there are any.

    >>> prompts = ClassPrompts.of({"Mass": ["a", "b"], "No Finding": ["c"]})
    >>> class_scores(np.array([[3.0, 1.0, 0.5]]), prompts, ["Mass"], "single").tolist()
    [[2.5]]

    Args:
        logits: float (num_images, num_prompts), logit_scale times cosine.
        prompts: the prompts of the logits' columns.
        classes: of the result, in order; "Abnormal" takes the prompts of all findings together.
        mode: "single" (maximum) or "ensemble" (mean).

    Returns:
        float (num_images, num_classes).
    """
    aggregate = functools.partial(MODES[mode], axis=1)
    scores = np.stack([aggregate(logits[:, prompts.columns(name)]) for name in classes], axis=1)
    if NO_FINDING in prompts.classes and NO_FINDING not in classes:
        scores = scores - aggregate(logits[:, prompts.columns(NO_FINDING)])[:, None]
    return scores


def chance(task: Task) -> dict[str, float]:
    """What guessing gives."""
    if task.name == "single_finding":
        return {"accuracy": 1 / len(task.classes), "auroc": 0.5}
    return {"auroc": 0.5}


def figures(task: Task, scores: np.ndarray, bootstrap: int, seed: int) -> dict:
    """Accuracy (single_finding only) and AUROC, over all and by class, with intervals over patients.

    Args:
        task: the truth.
        scores: float (num_images, num_classes).
        bootstrap: number of resamples.
        seed: of the resamples.

    Returns:
        {"accuracy": estimate, "auroc": macro mean, "by_class": {class: {"accuracy", "auroc"}}} in JSON
        types. A class's accuracy is that among its own images; its AUROC is one against the rest, for
        single_finding on scores less their mean over the classes.
    """
    require(bool(np.isfinite(scores).all()), "scores", "finite", "NaN or infinite embeddings")
    overall, by_class = {}, {name: {} for name in task.classes}
    ranked = scores
    if task.name == "single_finding":
        ranked = scores - scores.mean(axis=1, keepdims=True)
        correct = (scores.argmax(axis=1) == task.class_index).astype(np.float64)
        overall["accuracy"] = functools.partial(weighted_mean, correct)
        for k, name in enumerate(task.classes):
            own = np.where(task.class_index == k, correct, np.nan)
            by_class[name]["accuracy"] = functools.partial(weighted_mean, own)
    for k, name in enumerate(task.classes):
        by_class[name]["auroc"] = functools.partial(auroc, ranked[:, k], task.labels[:, k])
    overall["auroc"] = mean_of([by_class[name]["auroc"] for name in task.classes])
    return _estimated(overall, by_class, task, bootstrap, seed)


def _estimated(
    overall: dict[str, Statistic], by_class: dict[str, dict], task: Task, bootstrap: int, seed: int
) -> dict:
    statistics = {("", key): statistic for key, statistic in overall.items()}
    statistics |= {
        (name, key): statistic for name, keys in by_class.items() for key, statistic in keys.items()
    }
    estimates = estimate(statistics, task.patient_ids, bootstrap, seed)
    result = {key: estimates["", key].to_dict() for key in overall}
    result["by_class"] = {
        name: {key: estimates[name, key].to_dict() for key in keys} for name, keys in by_class.items()
    }
    return result


def confusion(task: Task, scores: np.ndarray) -> np.ndarray:
    """Counts int (num_classes, num_classes): rows are the truth, columns the highest score."""
    counts = np.zeros((len(task.classes), len(task.classes)), int)
    np.add.at(counts, (task.class_index, scores.argmax(axis=1)), 1)
    return counts
