"""Classification tasks: the selected images and their true classes.

In `single_finding` every image has exactly one of the findings, as on the x200 sets; `multi_label` takes all
images, and each finding is a binary question. "Abnormal" is the complement of No Finding.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medclip_keras.config import EvaluationConfig
from medclip_keras.errors import near_names, require
from medclip_keras.evaluation.arrays import Array, Bools, Floats, Ints, Strings
from medclip_keras.evaluation.embedder import ImageIndex
from medclip_keras.evaluation.prompts import ABNORMAL
from medclip_keras.knowledge.concepts import NO_FINDING
from medclip_keras.knowledge.states import LabelState

FEWEST_PATIENTS = 2  # with a class, and without it, below which its figures are not given


@dataclass(frozen=True)
class Task:
    """Images to classify, with their labels."""

    name: str  # "single_finding" or "multi_label"
    classes: tuple[str, ...]  # in the order of the columns of `labels`
    rows: Ints  # (num_images,), positions in the data set's ImageIndex
    labels: Floats  # (num_images, num_classes) of 0, 1 and NaN (unknown)
    patient_ids: Strings  # (num_images,)
    names: Strings  # (num_images,), record keys, or paths as a manifest has them

    @property
    def is_single(self) -> bool:
        """Whether every image has exactly one of the classes."""
        return self.name == "single_finding"

    @property
    def macro_classes(self) -> tuple[str, ...]:
        """The classes of macro means: in multi_label, "No Finding" is the complement of the others."""
        abnormal = tuple(name for name in self.classes if name != NO_FINDING)
        return self.classes if self.is_single or not abnormal else abnormal

    @property
    def averaged_classes(self) -> tuple[str, ...]:
        """The classes of macro means that have an AUROC."""
        without = {*self.undefined, *self.too_few}
        return tuple(name for name in self.macro_classes if name not in without)

    @property
    def undefined(self) -> tuple[str, ...]:
        """The classes without a positive or without a negative image: they have no AUROC."""
        has_both = self.has_images & (self.labels == 0).any(axis=0)  # (num_classes,)
        return tuple(name for name, both in zip(self.classes, has_both, strict=True) if not both)

    @property
    def too_few(self) -> tuple[str, ...]:
        """The classes with an AUROC that rests on one patient: it is not given, and in no macro mean."""
        enough = self.is_known_of_patients(1) & self.is_known_of_patients(0)
        names = (name for name, is_enough in zip(self.classes, enough, strict=True) if not is_enough)
        return tuple(name for name in names if name not in self.undefined)

    def is_known_of_patients(self, label: int) -> Bools:
        """Whether at least `FEWEST_PATIENTS` patients have images of the label, bool (num_classes,)."""
        patients = [len(np.unique(self.patient_ids[column == label])) for column in self.labels.T]
        return np.array(patients) >= FEWEST_PATIENTS

    @property
    def has_images(self) -> Bools:
        """Whether any image has the class, bool (num_classes,)."""
        has_images: Bools = (self.labels == 1).any(axis=0)
        return has_images

    @property
    def class_index(self) -> Ints:
        """The one class of each image, int (num_images,); of single_finding only."""
        index: Ints = self.labels.argmax(axis=1)
        return index

    def at(self, keep: Bools) -> "Task":
        """The task on some of its images; `keep` is bool (num_images,)."""
        arrays = ("rows", "labels", "patient_ids", "names")
        return dataclasses.replace(self, **{name: getattr(self, name)[keep] for name in arrays})

    def counts(self) -> dict[str, Any]:
        """Numbers of images, patients and positive images by class, in JSON types."""
        return {
            "task": self.name,
            "num_images": len(self.rows),
            "num_patients": len(set(self.patient_ids)),
            "undefined": list(self.undefined),
            "too_few": list(self.too_few),
            "num_macro_classes": len(self.averaged_classes),
            "num_positive": {name: int(np.nansum(self.labels[:, k])) for k, name in enumerate(self.classes)},
        } | ({"majority_class": self.majority_class} if self.is_single else {})

    @property
    def majority_class(self) -> str:
        """The class of most images; of single_finding only."""
        return self.classes[int(self.labels.sum(axis=0).argmax())]

    @property
    def baseline(self) -> dict[str, float]:
        """Metric → its value for a classifier that does not look at the images.

        Accuracy and F1: the majority class. Balanced accuracy: 1 / the number of classes with images. AUROC:
        .5. AUPRC: the share of positives, in the mean of the averaged classes.
        """
        shares = self._shares(self.averaged_classes)
        areas = {"auroc": 0.5, "auprc": float(shares.mean()) if len(shares) else math.nan}
        if not self.is_single:
            return areas
        majority = float(self.labels.mean(axis=0).max()) if len(self.labels) else math.nan
        choices = max(int(self.has_images.sum()), 1)
        guessed = {"accuracy": majority, "balanced_accuracy": 1 / choices}
        return guessed | {"macro_f1": 2 * majority / (1 + majority) / choices} | areas

    @property
    def baseline_of_thresholds(self) -> dict[str, float]:
        """Macro-F1 in multi_label of calling every image positive, which needs no look at the images."""
        shares = self._shares(self.averaged_classes)
        return {"macro_f1": float(np.mean(2 * shares / (1 + shares))) if len(shares) else math.nan}

    def _shares(self, names: Sequence[str]) -> Floats:
        """Share of positives among the images in which each class is known."""
        columns = [self.labels[:, self.classes.index(name)] for name in names]
        return np.array([np.nanmean(column) for column in columns])


def only_finding(label_states: Ints, columns: Sequence[int]) -> Ints:
    """The one positive finding among `columns`, or -1 if none or several are positive.

    >>> states = np.array([[1, 0, 2], [1, 1, 0], [0, 3, 1]])  # positive is 1
    >>> only_finding(states, [0, 2]).tolist()
    [0, 0, 1]

    Args:
        label_states: int8 (num_rows, num_findings), of LabelState.
        columns: the findings to consider.

    Returns:
        int (num_rows,), positions in `columns`.
    """
    positive = label_states[:, list(columns)] == LabelState.POSITIVE
    found: Ints = np.where(positive.sum(axis=1) == 1, positive.argmax(axis=1), -1)
    return found


def first_of_each_class(class_index: Ints, keys: Array, per_class: int | Ints) -> Ints:
    """Rows of at most `per_class` members a class, those with the smallest keys; -1 is no class.

    >>> first_of_each_class(np.array([0, 1, 0, -1]), np.array(["c", "b", "a", "d"]), per_class=1).tolist()
    [2, 1]

    Args:
        class_index: int (num_rows,), -1 for rows without a class.
        keys: (num_rows,), distinct; record keys are hashes, so their order serves as a random draw.
        per_class: maximum number of members of every class, or of each class (num_classes,).

    Returns:
        int (num_chosen,), in the order of class, then key.
    """
    rows = np.lexsort((keys, class_index))
    rows = rows[class_index[rows] >= 0]
    starts = np.searchsorted(class_index[rows], class_index[rows])
    limits = np.broadcast_to(per_class, class_index.max(initial=0) + 1)[class_index[rows]]
    chosen: Ints = rows[np.arange(len(rows)) - starts < limits]
    return chosen


def single_finding_task(
    index: ImageIndex, findings: Sequence[str], concept_names: Sequence[str], per_class: int
) -> Task:
    """Task of the images with exactly one of the findings, at most `per_class` of each."""
    class_index = only_finding(index.label_states, [concept_names.index(name) for name in findings])
    rows = first_of_each_class(class_index, index.record_keys, per_class)
    labels = np.eye(len(findings))[class_index[rows]]
    names = index.patient_ids[rows], index.record_keys[rows]
    return Task("single_finding", tuple(findings), rows, labels, *names)


def make_task(
    index: ImageIndex, config: EvaluationConfig, concept_names: Sequence[str], per_class: int
) -> Task:
    """Select the images of an evaluation's task and their labels.

    In single_finding it has at most `per_class` images a class, in multi_label all images; there an uncertain
    or unlabelled finding is unknown, and a finding that is not mentioned is absent.
    """
    if config.task == "single_finding":
        findings = [name for name in config.findings if name != ABNORMAL]
        return single_finding_task(index, findings, concept_names, per_class)
    labels = np.empty((len(index), len(config.findings)))
    for k, name in enumerate(config.findings):
        states = index.label_states[:, concept_names.index(NO_FINDING if name == ABNORMAL else name)]
        positive = states == LabelState.POSITIVE
        unlabelled = states == LabelState.UNLABELLED
        unknown = unlabelled if name == ABNORMAL else unlabelled | (states == LabelState.UNCERTAIN)
        labels[:, k] = np.where(unknown, np.nan, ~positive if name == ABNORMAL else positive)
    names = index.patient_ids, index.record_keys
    return Task("multi_label", config.findings, np.arange(len(index)), labels, *names)


def check_findings(config: EvaluationConfig, concept_names: Sequence[str]) -> list[str]:
    """Return the findings that are concepts: all but "Abnormal", which exists in multi_label only.

    Raises:
        ValueError: a finding that is not in the concept table, or that the task cannot use.
    """
    multi_label = config.task == "multi_label"
    known = [*concept_names, ABNORMAL] if multi_label else concept_names
    for name in config.findings:
        advice = near_names(name, known)
        require(name in known, "evaluation.findings", "concepts of the table", name, advice)
        normal, advice = name == NO_FINDING and multi_label, f"Use {ABNORMAL!r}."
        require(not normal, "evaluation.findings", "findings other than the normal class", name, advice)
    findings = [name for name in config.findings if name != ABNORMAL]
    fewest = 1 if multi_label else 2
    require(len(findings) >= fewest, "evaluation.findings", f"at least {fewest} findings", config.findings)
    return findings
