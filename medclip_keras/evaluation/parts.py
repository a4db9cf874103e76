"""The sections of zero-shot classification, retrieval, linear probe and supervised training."""

from medclip_keras.evaluation import papers
from medclip_keras.evaluation.figures import bars, curves, embeddings, matrices
from medclip_keras.evaluation.results import (
    TRAINED,
    UNTRAINED,
    ClassificationResult,
    RetrievalResult,
    TaskResult,
    ZeroShotResult,
)
from medclip_keras.evaluation.sections import Picture, Section, Table
from medclip_keras.evaluation.spread import draws_tables, notes_of, seeds_tables
from medclip_keras.evaluation.table import COLUMNS, TITLES, class_table, task_rows


def zero_shot_section(result: ZeroShotResult) -> Section:
    """Figures of classification by prompts."""
    return Section(
        "zero-shot",
        "Zero-shot classification",
        "Each image takes the finding whose sentences (prompts) are nearest. “Single” takes the best"
        " sentence, “ensemble” the mean of all of them.",
        (*_tables(result, "zero_shot"), *draws_tables(result)),
        _in_pairs(result),
        notes=notes_of(result),
        published=papers.ZERO_SHOT,
    )


def _in_pairs(result: ZeroShotResult) -> tuple[Picture, ...]:
    """All figures, in pairs for a wide screen."""
    of_scores = _curves(result, "ensemble"), _confusion(result, "ensemble")
    return (*of_scores[0], *_similarities(result), *_maps(result), *of_scores[1])


def _similarities(result: ZeroShotResult) -> list[Picture]:
    """Mean cosines after and before training, of the classes that have both images and prompts."""
    similar, models = matrices.comparable_classes(result), result.image_embeddings
    return [
        Picture(name, f"{_SIMILARITY} {sentence}", matrices.class_similarity(result, who))
        for name, who, sentence in (
            ("similarity", TRAINED, "Trained: a good model is bright on the diagonal alone."),
            ("similarity_untrained", UNTRAINED, "The same before training."),
        )
        if similar and who in models
    ]


def _maps(result: ZeroShotResult) -> list[Picture]:
    return [
        Picture(name, f"{_MAP} {sentence}", embeddings.embedding_map(result, who))
        for name, who, sentence in (
            ("embedding", TRAINED, "Trained: classes that the model tells apart form groups."),
            ("embedding_untrained", UNTRAINED, "The same before training."),
        )
        if embeddings.has_map(result) and who in result.image_embeddings
    ]


def retrieval_section(result: RetrievalResult) -> Section:
    """Figures of image to text retrieval."""
    return Section(
        "retrieval",
        "Retrieval, image to text",
        "Whether the held-out sentences nearest to an image state the image's finding. Precision@K is the"
        " share of such sentences among the K nearest.",
        _tables(result, "retrieval"),
        (
            Picture("retrieval", _PRECISION, bars.precision_bars(result)),
            Picture("retrieval_similarity", _SORTED, matrices.pair_similarity(result)),
        ),
        published=papers.RETRIEVAL,
    )


def probe_section(result: ClassificationResult) -> Section:
    """Figures of the linear probe."""
    return Section(
        "probe",
        "Linear probe",
        "A linear classifier on the frozen image features: how much of the findings the features hold.",
        (*_tables(result, "probe"), *seeds_tables(result)),
        (Picture("probe", _PROBE, bars.probe_bars(result)),),
        published=papers.PROBE,
    )


def supervised_section(result: ClassificationResult) -> Section:
    """Figures of a classifier that was trained on labels."""
    (share,) = result.scores
    return Section(
        "supervised",
        "Supervised classification",
        "A classifier trained on the labels of the training images.",
        _tables(result, "supervised"),
        (*_curves(result, share), *_confusion(result, share)),
    )


def _tables(result: TaskResult, task: str) -> tuple[Table, ...]:
    """The task's tables; row names omit the task, which is the section's title."""
    rows = (row.cells() for row in task_rows(task, result))
    short = ((_without(name, TITLES[task]), *cells) for name, *cells in rows)
    main = Table("", COLUMNS, tuple(short))
    return main, *(Table("", *found) for found in class_table(task, result))


def _without(name: str, title: str) -> str:
    return name.replace(f"{title} ", "").replace(f", {title}", "").strip()


def _curves(result: ClassificationResult, variant: str) -> tuple[Picture, ...]:
    return (
        Picture("roc", _ROC, curves.roc_curves(result, variant)),
        Picture("precision_recall", _RECALL, curves.precision_recall_curves(result, variant)),
    )


def _confusion(result: ClassificationResult, variant: str) -> tuple[Picture, ...]:
    if not result.task.is_single:
        return ()
    return (Picture("confusion", _CONFUSION, matrices.confusion_matrix(result, variant)),)


_SIMILARITY = "Mean cosine between the images and the prompts of each class, similar classes side by side."
_CONFUSION = "True against predicted finding, in images; errors stand beside the diagonal."
_ROC = "ROC: the share of images with a finding that are found, against the share of false alarms."
_RECALL = "Precision and recall: how many of the images called positive are so, against how many are found."
_MAP = "Each dot is an image; t-SNE puts images beside each other whose embeddings are alike."
_PRECISION = "Precision@K; whiskers are 95 % intervals over patients."
_SORTED = "Cosines of images and sentences, sorted by finding: bright squares on the diagonal are right."
_PROBE = "The probe before and after training; whiskers are 95 % intervals over patients."
