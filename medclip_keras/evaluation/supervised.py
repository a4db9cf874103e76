"""Evaluation of a classifier that was trained on labels, on the images and metrics of zero-shot."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from medclip_keras.config import EvaluationConfig
from medclip_keras.evaluation.arrays import Array, Batch, ByModel, Floats
from medclip_keras.evaluation.classification import estimate_scores
from medclip_keras.evaluation.embedder import embed_rows, read_index
from medclip_keras.evaluation.metrics import Bootstrap
from medclip_keras.evaluation.prompts import ABNORMAL
from medclip_keras.evaluation.results import TRAINED, ClassificationResult, DatasetResult
from medclip_keras.evaluation.tasks import make_task
from medclip_keras.knowledge.concepts import NO_FINDING


def finding_scores(logits: Floats, names: Sequence[str], findings: Sequence[str]) -> Floats:
    """Select the findings' scores from the logits of concepts; "Abnormal" is minus the logit of No Finding.

    >>> finding_scores(np.array([[1.0, 2.0, 3.0]]), ["Mass", "No Finding", "Edema"], ["Abnormal", "Mass"])
    array([[-2.,  1.]])

    Logits are float (num_images, num_names), scores float (num_images, num_findings).
    """
    columns = dict(zip(names, logits.T, strict=True))
    if ABNORMAL in findings:
        columns[ABNORMAL] = -columns[NO_FINDING]
    return np.stack([columns[name] for name in findings], axis=1)


def measure_classifier(
    score: Callable[[Array], Floats],
    names: Sequence[str],
    batches: Iterable[Batch],
    config: EvaluationConfig,
    concept_names: Sequence[str],
    *,
    num_training_images: int,
    share: float = 1.0,
    seed: int = 0,
) -> DatasetResult:
    """Accuracy or AUROC of a classifier on one data set's test images, if any, with intervals over patients.

    `score` maps stored images uint8 (B, S, S, 1) to logits (B, num_names) of the concepts `names`; `share` of
    the labelled images, `num_training_images`, were learned from. Batches are those of `evaluator.evaluate`.
    """
    index = read_index(batches, len(concept_names))
    task = make_task(index, config, concept_names, config.per_class)
    if not len(task.rows):
        return DatasetResult()
    (logits,) = embed_rows([score], batches, index, task.rows)
    scores, variant = finding_scores(logits, names, task.classes), f"{share:g}"
    estimates = {variant: {TRAINED: estimate_scores(task, scores, Bootstrap(config.bootstrap, seed))}}
    counts = task.counts() | {"num_training_images": {variant: num_training_images}}
    by_variant: dict[str, ByModel] = {variant: {TRAINED: scores}}
    result = ClassificationResult(task, counts, task.baseline, estimates, by_variant)
    return DatasetResult(supervised=result)
