"""Zero-shot classification: the class of an image follows from its similarity to each class's prompts.

Two ways to reduce the logits of a class's prompts to one: "single" takes the best matching prompt (maximum),
"ensemble" all of them (mean). In the task `single_finding` the highest logit wins; in `multi_label` a
finding's score is its distance to the normal prompts,

    score(finding) = aggregate(logits of the finding's prompts) - aggregate(logits of the normal prompts).

"Abnormal" takes the prompts of all findings together; "No Finding", if it is a class, is scored against
"Abnormal", so that it changes no other class's score.
"""

from collections.abc import Mapping

from medclip_keras.evaluation.arrays import ByModel
from medclip_keras.evaluation.class_scores import MODES, class_scores
from medclip_keras.evaluation.classification import estimate_scores
from medclip_keras.evaluation.metrics import Bootstrap
from medclip_keras.evaluation.prompts import ClassPrompts
from medclip_keras.evaluation.results import ZeroShotResult
from medclip_keras.evaluation.tasks import Task


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
