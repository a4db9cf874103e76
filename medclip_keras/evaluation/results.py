"""Results of an evaluation: estimates for metrics.json, and the arrays behind them for the plots."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from medclip_keras.evaluation.arrays import ByModel, Ints
from medclip_keras.evaluation.metrics import Estimate
from medclip_keras.evaluation.prompts import ClassPrompts
from medclip_keras.evaluation.tasks import Task

TRAINED, UNTRAINED = "trained", "untrained"

Json = dict[str, Any]  # a JSON object


@dataclass(frozen=True)
class Estimates:
    """Estimates of one model.

    Attributes:
        overall: metric → estimate.
        by_class: class → metric → estimate; of a classification only.
        strength: C of a linear probe.
    """

    overall: dict[str, Estimate]
    by_class: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    strength: float | None = None

    def to_dict(self) -> Json:
        """{metric: estimate, …, "by_class": {class: {metric: estimate}}, "strength"} in JSON types."""
        by_class = {name: _to_dict(estimates) for name, estimates in self.by_class.items()}
        optional = {"by_class": by_class or None, "strength": self.strength}
        return _to_dict(self.overall) | {k: v for k, v in optional.items() if v is not None}


def _to_dict(estimates: Mapping[str, Estimate]) -> Json:
    return {metric: estimate.to_dict() for metric, estimate in estimates.items()}


@dataclass(frozen=True)
class TaskResult:
    """Estimates of one task on one data set.

    Attributes:
        task: the images and their labels; for retrieval the queries.
        estimates: variant → model → estimates. The variants of zero-shot classification are "single" and
            "ensemble", those of a trained classifier shares of its training images, as "1" or "0.1";
            retrieval has the one variant "".
    """

    task: Task
    estimates: dict[str, dict[str, Estimates]]

    @property
    def chance(self) -> dict[str, float]:
        """Metric → its expected value for random scores."""
        return self.task.chance

    @property
    def metrics(self) -> Json:
        """Counts, chance and {model: {variant: estimates}} in JSON types."""
        found: Json = {
            "task": self.task.name,
            "num_images": len(self.task.rows),
            "num_patients": self.task.num_patients,
            "num_positive": self.task.num_positive,
            "chance": self.chance,
        }
        for variant, by_model in self.estimates.items():
            for who, estimates in by_model.items():
                found.setdefault(who, {})[variant] = estimates.to_dict()
        return found


@dataclass(frozen=True)
class ZeroShotResult(TaskResult):
    """Zero-shot classification of one data set.

    Attributes:
        scores: variant → model → float (num_images, num_classes).
        prompts: of the classes.
        image_embeddings: model → float32 (num_images, D).
        prompt_embeddings: model → float32 (num_prompts, D).
    """

    scores: dict[str, ByModel]
    prompts: ClassPrompts
    image_embeddings: ByModel
    prompt_embeddings: ByModel


@dataclass(frozen=True)
class ClassifierResult(TaskResult):
    """Classification of one data set by classifiers that were trained on labels.

    Attributes:
        scores: variant → model → float (num_images, num_classes).
        num_training_images: by variant.
        num_validation_images: that chose a linear probe's strength; None for other classifiers.
    """

    scores: dict[str, ByModel]
    num_training_images: dict[str, int]
    num_validation_images: int | None = None

    @property
    def metrics(self) -> Json:
        """As of every task, with the numbers of training and validation images."""
        found = super().metrics | {"num_training_images": self.num_training_images}
        if self.num_validation_images is not None:
            found["num_validation_images"] = self.num_validation_images
        return found


@dataclass(frozen=True)
class RetrievalResult(TaskResult):
    """Image to text retrieval with one data set's images.

    Attributes:
        candidate_classes: int (num_candidates,), positions in the task's classes.
        similarities: model → cosines float (num_queries, num_candidates).
        precision_of_chance: metric → share of relevant candidates.
    """

    candidate_classes: Ints
    similarities: ByModel
    precision_of_chance: dict[str, float]

    @property
    def chance(self) -> dict[str, float]:
        """Metric → its expected value for a random order."""
        return self.precision_of_chance

    @property
    def num_candidates(self) -> dict[str, int]:
        """Class → number of candidate sentences."""
        return {n: int((self.candidate_classes == k).sum()) for k, n in enumerate(self.task.classes)}

    @property
    def metrics(self) -> Json:
        """Counts, chance and {model: estimates} in JSON types."""
        estimates = {who: estimates.to_dict() for who, estimates in self.estimates[""].items()}
        counts = {"num_queries": len(self.task.rows), "num_candidates": self.num_candidates}
        return counts | {"chance": self.chance} | estimates


@dataclass(frozen=True)
class DatasetResult:
    """Results on one data set; None for a task that was not requested or had no images."""

    zero_shot: ZeroShotResult | None = None
    retrieval: RetrievalResult | None = None
    probe: ClassifierResult | None = None
    supervised: ClassifierResult | None = None  # of a classifier trained end to end; then the only result

    @property
    def tasks(self) -> dict[str, TaskResult]:
        """Task → result, without the tasks that are None."""
        return {name: result for name, result in vars(self).items() if result is not None}

    @property
    def metrics(self) -> Json:
        """{"zero_shot": …, "retrieval": …, "probe": …} in JSON types."""
        return {name: result.metrics for name, result in self.tasks.items()}
