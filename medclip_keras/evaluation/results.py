"""Results of an evaluation: estimates for metrics.json, and the arrays behind them for the plots."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from medclip_keras.evaluation.arrays import ByModel, Floats, Ints
from medclip_keras.evaluation.metrics import Estimate
from medclip_keras.evaluation.prompts import ClassPrompts
from medclip_keras.evaluation.tasks import Task

TRAINED, UNTRAINED = "trained", "untrained"

Json = dict[str, Any]  # a JSON object


@dataclass(frozen=True)
class Estimates:
    """Estimates of one model."""

    overall: dict[str, Estimate]  # metric → estimate
    by_class: dict[str, dict[str, Estimate]] = field(default_factory=dict)  # class → metric → estimate
    strength: float | None = None  # C of a linear probe
    seeds: Mapping[str, Json] = field(
        default_factory=dict
    )  # metric → mean and deviation over draws of labels

    def to_dict(self) -> Json:
        """{metric: estimate, …, "by_class": {class: {metric: estimate}}, "strength"} in JSON types."""
        found: Json = {metric: estimate.to_dict() for metric, estimate in self.overall.items()}
        if self.by_class:
            found["by_class"] = {name: Estimates(own).to_dict() for name, own in self.by_class.items()}
        found |= {"seeds": dict(self.seeds)} if self.seeds else {}
        return found if self.strength is None else found | {"strength": self.strength}


@dataclass(frozen=True)
class TaskResult:
    """Estimates of one task on one data set.

    The variants of zero-shot classification are "single" and "ensemble", those of a trained classifier shares
    of its training images, as "1" or "0.1"; retrieval has the one variant "".
    """

    task: Task  # the images and their labels; for retrieval the queries
    counts: Json  # numbers of images and sentences
    baseline: dict[str, float]  # metric → its value without a look at the images
    estimates: dict[str, dict[str, Estimates]]  # variant → model → estimates

    @property
    def metrics(self) -> Json:
        """Counts, baseline and {model: {variant: estimates}} (retrieval: {model: estimates}) in JSON."""
        found: Json = self.counts | {"baseline": self.baseline}
        for variant, by_model in self.estimates.items():
            for who, estimates in by_model.items():
                values = estimates.to_dict()
                found[who] = found.get(who, {}) | ({variant: values} if variant else values)
        return found


@dataclass(frozen=True)
class ClassificationResult(TaskResult):
    """Classification of one data set."""

    scores: dict[str, ByModel]  # variant → model → (num_images, num_classes)
    # variant → model → (num_classes,), from which on a class is called in multi_label; chosen on validation
    thresholds: dict[str, ByModel] = field(default_factory=dict, kw_only=True)

    def thresholds_of(self, variant: str, who: str) -> Floats | None:
        """The thresholds of a variant and model, if any."""
        return self.thresholds.get(variant, {}).get(who)


@dataclass(frozen=True)
class ZeroShotResult(ClassificationResult):
    """Classification by prompts."""

    prompts: ClassPrompts
    image_embeddings: ByModel  # (num_images, D)
    prompt_embeddings: ByModel  # (num_prompts, D)
    # mode → model → metric → mean, standard deviation and number of random draws of the prompts; {} without
    draws: Mapping[str, Mapping[str, Json]] = field(default_factory=dict, kw_only=True)
    negated: bool = field(default=False, kw_only=True)  # scored against each finding's own negative prompts
    unseen: tuple[str, ...] = field(default=(), kw_only=True)  # classes that training had no label of

    @property
    def metrics(self) -> Json:
        """As of every task, with the spread of the draws and the unseen classes."""
        found = super().metrics | {"unseen": list(self.unseen)}
        return found | ({"prompt_draws": self.draws} if self.draws else {})


@dataclass(frozen=True)
class RetrievalResult(TaskResult):
    """Image to text retrieval."""

    candidate_classes: Ints  # (num_candidates,), positions in the task's classes
    similarities: ByModel  # cosines (num_queries, num_candidates)


@dataclass(frozen=True)
class TrustResult:
    """Whether one may trust the trained model's zero-shot scores."""

    metrics: Json  # table → row → values, in JSON types
    reliability: Mapping[str, Any]  # "before", "after" → `trust.calibration.Reliability`
    pairs: Mapping[str, Floats] = field(default_factory=dict)  # kind → cosines, of `trust.negation.pairs`


@dataclass(frozen=True)
class LocalizationResult:
    """Whether the trained model's heat maps point at the boxes of radiologists."""

    metrics: Json
    estimates: dict[str, dict[str, dict[str, Estimate]]]  # method → finding → metric → estimate


class Part(Protocol):
    """A part of an evaluation that is no task, as a table of subgroups."""

    @property
    def metrics(self) -> Mapping[str, Any]:
        """The part's figures in JSON types."""


@dataclass(frozen=True)
class DatasetResult:
    """Results on one data set; None for a task that was not requested or had no images."""

    zero_shot: ZeroShotResult | None = None
    retrieval: RetrievalResult | None = None
    probe: ClassificationResult | None = None
    supervised: ClassificationResult | None = None  # of a classifier trained end to end; then the only result
    trust: TrustResult | None = None  # of zero_shot
    localization: LocalizationResult | None = None  # of a folder of boxes; then the only result
    cross_retrieval: Part | None = None
    subgroups: Part | None = None  # of zero_shot
    shortcuts: Part | None = None  # of zero_shot
    leaks: Part | None = None
    fine_tune: Part | None = None

    @property
    def tasks(self) -> dict[str, TaskResult]:
        """Task → result, without the tasks that are None."""
        return {name: result for name, result in vars(self).items() if isinstance(result, TaskResult)}

    @property
    def metrics(self) -> Json:
        """{"zero_shot": …, "retrieval": …, "probe": …, "trust": …} in JSON types, measured tasks only."""
        return {name: dict(part.metrics) for name, part in vars(self).items() if part is not None}
