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
from medclip_keras.evaluation.classification import estimate_scores, f1_thresholds
from medclip_keras.evaluation.metrics import Bootstrap
from medclip_keras.evaluation.prompts import ClassPrompts
from medclip_keras.evaluation.results import ZeroShotResult
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
) -> ZeroShotResult:
    """Classify embedded images (num_images, D) by embedded prompts (num_prompts, D).

    Validation images of other patients choose the thresholds of F1 in multi_label; without them it is absent.
    """

    def scores_of(images: ByModel, mode: str) -> ByModel:
        logits = {w: scale * images[w] @ prompt_embeddings[w].T for w, scale in logit_scales.items()}
        contrast = not task.is_single
        return {
            w: class_scores(of, prompts, task.classes, mode, contrast=contrast) for w, of in logits.items()
        }

    scores = {mode: scores_of(image_embeddings, mode) for mode in MODES}
    thresholds: dict[str, ByModel] = {}
    if validation and not task.is_single:
        labels = validation[0].labels
        thresholds = {
            mode: {w: f1_thresholds(of, labels) for w, of in scores_of(validation[1], mode).items()}
            for mode in MODES
        }
    estimates = {
        mode: {
            who: estimate_scores(task, of_model, bootstrap, thresholds.get(mode, {}).get(who))
            for who, of_model in by_model.items()
        }
        for mode, by_model in scores.items()
    }
    baseline = task.baseline | (task.baseline_of_thresholds if thresholds else {})
    embeddings = (image_embeddings, prompt_embeddings)
    return ZeroShotResult(
        task, task.counts(), baseline, estimates, scores, prompts, *embeddings, thresholds=thresholds
    )
