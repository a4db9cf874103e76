"""Zero-shot classification: the class of an image follows from its similarity to each class's prompts.

Two ways to reduce the logits of a class's prompts to one: "single" takes the best matching prompt (maximum),
"ensemble" all of them (mean). In the task `single_finding` the highest logit wins; in `multi_label` a
finding's score is its distance to the normal prompts,

    score(finding) = aggregate(logits of the finding's prompts) - aggregate(logits of the normal prompts).

"Abnormal" takes the prompts of all findings together; "No Finding", if it is a class, is scored against
"Abnormal", so that it changes no other class's score.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from medclip_keras.evaluation.arrays import ByModel, Floats
from medclip_keras.evaluation.classification import estimate_scores
from medclip_keras.evaluation.metrics import Bootstrap
from medclip_keras.evaluation.prompts import ABNORMAL, ClassPrompts
from medclip_keras.evaluation.results import ZeroShotResult
from medclip_keras.evaluation.tasks import Task
from medclip_keras.knowledge.concepts import NO_FINDING

MODES = ("single", "ensemble")


def class_scores(
    logits: Floats, prompts: ClassPrompts, classes: Sequence[str], mode: str, *, contrast: bool = True
) -> Floats:
    """One score a class from the logits of the prompts, minus that of the normal prompts, if any.

    >>> prompts = ClassPrompts.of({"Mass": ["a", "b"], "No Finding": ["c"]})
    >>> class_scores(np.array([[3.0, 1.0, 0.5]]), prompts, ["Mass"], "single").tolist()
    [[2.5]]

    Args:
        logits: float (num_images, num_prompts), logit_scale times cosine.
        prompts: the prompts of the logits' columns.
        classes: of the result, in order; "Abnormal" takes the prompts of all findings together.
        mode: "single" (maximum) or "ensemble" (mean).
        contrast: whether the normal prompts' score is subtracted.

    Returns:
        float (num_images, num_classes).
    """

    def aggregate(name: str) -> Floats:
        of_class = logits[:, prompts.columns(name)]
        score: Floats = of_class.max(axis=1) if mode == "single" else of_class.mean(axis=1)
        return score

    scores = np.stack([aggregate(name) for name in classes], axis=1)
    if not contrast or NO_FINDING not in prompts.classes or len(prompts.classes) == 1:
        return scores
    baselines = [aggregate(ABNORMAL if name == NO_FINDING else NO_FINDING) for name in classes]
    return scores - np.stack(baselines, axis=1)


def classify(
    task: Task,
    prompts: ClassPrompts,
    image_embeddings: ByModel,
    prompt_embeddings: ByModel,
    *,
    logit_scales: Mapping[str, float],
    bootstrap: Bootstrap,
) -> ZeroShotResult:
    """Classify embedded images (num_images, D) by embedded prompts (num_prompts, D)."""
    logits = {  # (num_images, num_prompts)
        who: scale * image_embeddings[who] @ prompt_embeddings[who].T for who, scale in logit_scales.items()
    }
    scores: dict[str, ByModel] = {
        mode: {
            who: class_scores(logits[who], prompts, task.classes, mode, contrast=not task.is_single)
            for who in logits
        }
        for mode in MODES
    }
    estimates = {
        mode: {who: estimate_scores(task, of_model, bootstrap) for who, of_model in by_model.items()}
        for mode, by_model in scores.items()
    }
    embeddings = (image_embeddings, prompt_embeddings)
    return ZeroShotResult(task, task.counts(), task.baseline, estimates, scores, prompts, *embeddings)
