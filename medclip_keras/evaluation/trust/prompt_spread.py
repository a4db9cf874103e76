"""Spread of a finding's AUROC over single prompts, and the prompt that validation images would choose."""

import numpy as np

from medclip_keras.evaluation.arrays import Floats
from medclip_keras.evaluation.classification import ranked_scores
from medclip_keras.evaluation.metrics import auroc
from medclip_keras.evaluation.prompts import ClassPrompts
from medclip_keras.evaluation.tasks import Task


def prompt_areas(task: Task, logits: Floats, scores: Floats, prompts: ClassPrompts, name: str) -> Floats:
    """AUROC of a class by each of its prompts alone, (num_prompts_of_class,); NaN if undefined.

    The prompt takes the place of the class's ensemble, whose other part (the normal prompts in multi_label,
    the other classes in single_finding) stays.

    Args:
        task: the images and their labels.
        logits: float (num_images, num_prompts).
        scores: float (num_images, num_classes), of the ensemble.
        prompts: of the logits' columns.
        name: of the class.
    """
    k, columns = task.classes.index(name), prompts.columns(name)
    labels = task.labels[:, k]
    if name in (*task.undefined, *task.too_few):
        return np.full(len(columns), np.nan)
    mean = logits[:, columns].mean(axis=1)
    areas = []
    for column in columns:
        of_prompt = scores.copy()
        of_prompt[:, k] += logits[:, column] - mean
        ranked = ranked_scores(task, of_prompt)[:, k]
        areas.append(auroc(ranked, labels, np.ones((1, len(labels))))[0])
    return np.array(areas)


def spread(areas: Floats, validation_areas: Floats | None = None) -> dict[str, float | int | None]:
    """Number of prompts, mean, standard deviation, worst and best AUROC, and that of validation's choice.

    >>> found = spread(np.array([0.6, 0.8, 0.7]), np.array([0.5, 0.6, 0.9]))
    >>> found["worst"], found["best"], found["chosen"], found["chosen_number"]
    (0.6, 0.8, 0.7, 3)
    """
    defined = not np.isnan(areas).any()
    values = {"mean": areas.mean(), "std": areas.std(), "worst": areas.min(), "best": areas.max()}
    found: dict[str, float | int | None] = {"num_prompts": len(areas)}
    found |= {name: float(value) if defined else None for name, value in values.items()}
    if defined and validation_areas is not None and not np.isnan(validation_areas).any():
        chosen = int(validation_areas.argmax())
        return found | {"chosen": float(areas[chosen]), "chosen_number": chosen + 1}
    return found | {"chosen": None, "chosen_number": None}
