"""Zero-shot classification: the class of an image follows from its similarity to each class's prompts.

Two ways to reduce the logits of a class's prompts to one: "single" takes the best matching prompt (maximum),
"ensemble" all of them (mean). In the task `single_finding` the highest logit wins; in `multi_label` a
finding's score is its distance to the normal prompts,

    score(finding) = aggregate(logits of the finding's prompts) - aggregate(logits of the normal prompts).

With `evaluation.contrast` "negated" the prompts that deny the finding take the place of the normal ones.
"Abnormal" takes the prompts of all findings together; "No Finding", if it is a class, is scored against
"Abnormal", so that it changes no other class's score.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from medclip_keras.evaluation.arrays import ByModel, Ints
from medclip_keras.evaluation.class_scores import MODES, class_scores
from medclip_keras.evaluation.classification import estimate_scores, f1_thresholds, score_statistics
from medclip_keras.evaluation.metrics import Bootstrap, mean_and_std
from medclip_keras.evaluation.prompts import ClassPrompts
from medclip_keras.evaluation.results import Json, ZeroShotResult
from medclip_keras.evaluation.tasks import Task

Embedded = tuple[Task, ByModel]  # images of a task, and their embeddings by model


def classify(
    task: Task,
    prompts: ClassPrompts,
    image_embeddings: ByModel,
    prompt_embeddings: ByModel,
    *,
    logit_scales: Mapping[str, float],
    bootstrap: Bootstrap,
    validation: Embedded | None = None,
    draws: Sequence[Ints] = (),
    negated: bool = False,
) -> ZeroShotResult:
    """Classify embedded images (num_images, D) by embedded prompts (num_prompts, D).

    Args:
        task: the images and their labels.
        prompts: all prompts; the figures are of the first draw, the spread of the others.
        image_embeddings: by model.
        prompt_embeddings: by model.
        logit_scales: by model.
        bootstrap: of the intervals.
        validation: images of other patients, which choose the thresholds of F1 in multi_label; without them
            it is absent.
        draws: columns of the prompts in use, and of each random draw; (): all prompts and no draws.
        negated: whether a finding's own negative prompts take the place of the normal ones.
    """
    first, *drawn = draws or [np.arange(len(prompts.texts))]
    score = _Scorer(task, prompts, prompt_embeddings, logit_scales, negated)
    scores = {mode: score(image_embeddings, mode, first) for mode in MODES}
    thresholds = _thresholds(score, validation, first) if validation and not task.is_single else {}
    estimates = {
        mode: {
            who: estimate_scores(task, of_model, bootstrap, thresholds.get(mode, {}).get(who))
            for who, of_model in by_model.items()
        }
        for mode, by_model in scores.items()
    }
    spread = {
        mode: spread_of_draws(task, [score(image_embeddings, mode, columns) for columns in drawn])
        for mode in (MODES if drawn else ())
    }
    used = {who: of[first] for who, of in prompt_embeddings.items()}
    baseline = task.baseline | (task.baseline_of_thresholds if thresholds else {})
    shared = (task, task.counts(), baseline, estimates, scores, prompts.at(first), image_embeddings, used)
    return ZeroShotResult(*shared, thresholds=thresholds, draws=spread, negated=negated)


@dataclass(frozen=True)
class _Scorer:
    """Class scores by model, of images and some of the prompts."""

    task: Task
    prompts: ClassPrompts
    prompt_embeddings: ByModel  # (num_prompts, D)
    logit_scales: Mapping[str, float]
    negated: bool

    def __call__(self, images: ByModel, mode: str, columns: Ints) -> ByModel:
        """Embeddings (num_images, D) by model to scores (num_images, num_classes)."""
        prompts, contrast = self.prompts.at(columns), not self.task.is_single
        scores = {}
        for who, scale in self.logit_scales.items():
            logits = scale * images[who] @ self.prompt_embeddings[who][columns].T  # (num_images, num_columns)
            options = {"contrast": contrast, "negated": self.negated}
            scores[who] = class_scores(logits, prompts, self.task.classes, mode, **options)
        return scores


def _thresholds(score: _Scorer, validation: Embedded, columns: Ints) -> dict[str, ByModel]:
    """mode → model → threshold of each class, chosen on validation images."""
    task, images = validation
    return {
        mode: {who: f1_thresholds(of, task.labels) for who, of in score(images, mode, columns).items()}
        for mode in MODES
    }


def draw_columns(prompts: ClassPrompts, num_prompts: int, num_draws: int, seed: int) -> list[Ints]:
    """Columns of the first `num_prompts` prompts of each class, then those of `num_draws` random draws.

    A draw has `num_prompts` of a class's prompts, or half of them, rounded up, if there are no more.

    >>> prompts = ClassPrompts.of({"Edema": ["a", "b", "c"], "Mass": ["d"]})
    >>> [len(columns) for columns in draw_columns(prompts, 10, 2, seed=0)]
    [4, 3, 3]
    """
    rng = np.random.default_rng(seed)
    of_class = [prompts.columns(name) for name in prompts.classes]
    size = [num_prompts if len(c) > num_prompts else (len(c) + 1) // 2 for c in of_class]
    drawn = [
        np.concatenate([np.sort(rng.permutation(c)[:n]) for c, n in zip(of_class, size, strict=True)])
        for _ in range(num_draws)
    ]
    return [np.concatenate([columns[:num_prompts] for columns in of_class]), *drawn]


def spread_of_draws(task: Task, draws: Sequence[ByModel]) -> dict[str, dict[str, Json]]:
    """model → metric → mean and standard deviation (of the draws as a sample) over scores of several draws.

    Follows: Wang et al., EMNLP 2022, table 1 (five draws of the prompts).
    """
    found: dict[str, dict[str, Json]] = {}
    for who in draws[0]:
        once = [Bootstrap(0, 0).estimate(score_statistics(task, of[who]), task.patient_ids) for of in draws]
        metrics = [metric for name, metric in once[0] if name is None]
        found[who] = {metric: mean_and_std([of[None, metric].value for of in once]) for metric in metrics}
    return found
