"""The score of a class from the logits of its prompts; `zero_shot` explains modes and contrast."""

from collections.abc import Sequence

import numpy as np

from medclip_keras.evaluation.arrays import Floats
from medclip_keras.evaluation.prompts import ABNORMAL, DENIED, ClassPrompts
from medclip_keras.knowledge.concepts import NO_FINDING

MODES = ("single", "ensemble")


def class_scores(
    logits: Floats,
    prompts: ClassPrompts,
    classes: Sequence[str],
    mode: str,
    *,
    contrast: bool = True,
    negated: bool = False,
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
        negated: whether the score of a finding's own negative prompts takes their place.

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

    def opposite(name: str) -> str:
        if name == NO_FINDING:
            return ABNORMAL
        return DENIED + name if negated and name != ABNORMAL else NO_FINDING

    return scores - np.stack([aggregate(opposite(name)) for name in classes], axis=1)
