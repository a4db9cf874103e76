"""The sections of zero-shot classification, retrieval, linear probe and supervised training."""

from medclip_keras.evaluation import plots
from medclip_keras.evaluation.results import ClassificationResult, RetrievalResult, TaskResult, ZeroShotResult
from medclip_keras.evaluation.sections import Picture, Section, Table
from medclip_keras.evaluation.table import COLUMNS, class_table, task_rows


def zero_shot_section(result: ZeroShotResult) -> Section:
    """Figures of classification by prompts."""
    similar = plots.comparable_classes(result)
    figures = (Picture("similarity", _SIMILARITY, plots.similarity(result)),) if similar else ()
    return Section(
        "zero-shot",
        "Zero-shot classification",
        "Each image takes the finding whose prompts are nearest; no label was used in training.",
        _tables(result, "zero_shot"),
        figures
        + _classification_figures(result, "ensemble", "ROC, trained, prompt ensemble")
        + (Picture("embedding", _EMBEDDING, plots.embedding(result)),),
    )


def retrieval_section(result: RetrievalResult) -> Section:
    """Figures of image to text retrieval."""
    return Section(
        "retrieval",
        "Retrieval, image to text",
        "Whether the held-out sentences nearest to an image state the image's finding.",
        _tables(result, "retrieval"),
        (
            Picture("retrieval", _PRECISION, plots.precision_bars(result)),
            Picture("retrieval_similarity", _SORTED, plots.retrieval_similarity(result)),
        ),
    )


def probe_section(result: ClassificationResult) -> Section:
    """Figures of the linear probe."""
    return Section(
        "probe",
        "Linear probe",
        "A linear classifier on the frozen image features: how much of the findings the features hold.",
        _tables(result, "probe"),
        (Picture("probe", _PROBE, plots.probe_bars(result)),),
    )


def supervised_section(result: ClassificationResult) -> Section:
    """Figures of a classifier that was trained on labels."""
    (share,) = result.scores
    return Section(
        "supervised",
        "Supervised classification",
        "A classifier trained on the labels of the training images.",
        _tables(result, "supervised"),
        _classification_figures(result, share, "ROC, trained on labels"),
    )


def _tables(result: TaskResult, task: str) -> tuple[Table, ...]:
    main = Table("", COLUMNS, tuple(row.cells() for row in task_rows(task, result)))
    return main, *(Table("", *found) for found in class_table(task, result))


def _classification_figures(result: ClassificationResult, variant: str, title: str) -> tuple[Picture, ...]:
    curves = (Picture("roc", _ROC, plots.roc_curves(result, variant, title)),)
    if not result.task.is_single:
        return curves
    return (Picture("confusion", _CONFUSION, plots.confusion_matrices(result)), *curves)


_SIMILARITY = "Mean cosine between images and prompts of each class."
_CONFUSION = "True against predicted finding."
_ROC = "ROC curves, one class against the rest."
_EMBEDDING = "The two main directions among the image embeddings."
_PRECISION = "Image to text Precision@K; whiskers are 95 % intervals over patients."
_SORTED = "Cosines of query images and candidate sentences, sorted by finding."
_PROBE = "Linear probe on frozen features; whiskers are 95 % intervals over patients."
