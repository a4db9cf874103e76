"""Classifiers trained on labels, measured as zero-shot classification is: the same images and figures."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from medclip_keras.config import EvaluationConfig
from medclip_keras.evaluation.embedder import Batch, embed_rows, read_table
from medclip_keras.evaluation.probe import ClassifierResult
from medclip_keras.evaluation.prompts import ABNORMAL
from medclip_keras.evaluation.run import TRAINED, DatasetResult
from medclip_keras.evaluation.zero_shot import chance, figures, make_task
from medclip_keras.knowledge.concepts import NO_FINDING


def finding_scores(logits: np.ndarray, names: Sequence[str], findings: Sequence[str]) -> np.ndarray:
    """Scores of the findings from the logits of concepts; "Abnormal" is the opposite of No Finding.

    >>> finding_scores(np.array([[1.0, 2.0, 3.0]]), ["Mass", "No Finding", "Edema"], ["Abnormal", "Mass"])
    array([[-2.,  1.]])

    Args:
        logits: float (num_images, num_names).
        names: of the logits' columns.
        findings: of the result's columns.

    Returns:
        float (num_images, num_findings).
    """
    columns = {name: logits[:, k] for k, name in enumerate(names)}
    return np.stack(
        [-columns[NO_FINDING] if name == ABNORMAL else columns[name] for name in findings], axis=1
    )


def measure_classifier(
    score: Callable[[np.ndarray], np.ndarray],
    names: Sequence[str],
    batches: Iterable[Batch],
    config: EvaluationConfig,
    concept_names: Sequence[str],
    *,
    num_training_images: int,
    share: float = 1.0,
    seed: int = 0,
) -> DatasetResult:
    """Accuracy or AUROC of a classifier on one data set's test images, with intervals over patients.

    Args:
        score: stored images uint8 (B, S, S, 1) to logits (B, num_names).
        names: concepts of the logits' columns.
        batches: as `evaluation.run.evaluate` describes them.
        config: task, findings, limits.
        concept_names: of the label states, in order.
        num_training_images: that the classifier learned from.
        share: of the labelled images, that these are.
        seed: of the bootstrap.

    Returns:
        The result; nothing is in it where no image belongs to the task.
    """
    table = read_table(batches)
    task = make_task(table, config, concept_names, config.per_class) if len(table) else None
    if task is None or not len(task.rows):
        return DatasetResult()
    rows = np.sort(task.rows)
    (logits,) = embed_rows([score], batches, table, rows)
    scores = finding_scores(logits[np.searchsorted(rows, task.rows)], names, task.classes)
    key = f"{share:g}"
    metrics = {
        **task.description(),
        "num_training_images": {key: num_training_images},
        "chance": chance(task),
        TRAINED: {key: figures(task, scores, config.bootstrap, seed)},
    }
    return DatasetResult(supervised=ClassifierResult(task, {key: {TRAINED: scores}}, metrics))
