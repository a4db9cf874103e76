"""Prompts: the sentences that stand for a class in zero-shot classification."""

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from etils import epath

from medclip_keras.config import EvaluationConfig
from medclip_keras.errors import require
from medclip_keras.evaluation.shipped_prompts import SHIPPED_PROMPTS
from medclip_keras.knowledge.concepts import NO_FINDING

ABNORMAL = "Abnormal"  # a class of the multi-label task: No Finding is not positive


@dataclass(frozen=True)
class ClassPrompts:
    """The prompts of several classes in one list, each with its class's index.

    >>> prompts = ClassPrompts.of({"Edema": ["Edema is seen."], "Hernia": ["A hernia.", "Hiatal hernia."]})
    >>> prompts.classes, prompts.class_index.tolist()
    (('Edema', 'Hernia'), [0, 1, 1])
    """

    classes: tuple[str, ...]
    texts: tuple[str, ...]
    class_index: np.ndarray  # int32 (num_prompts,)

    @classmethod
    def of(cls, prompts: Mapping[str, Sequence[str]]) -> "ClassPrompts":
        """Flattens {class: [prompt, …]}, classes in the mapping's order."""
        texts = [text for class_texts in prompts.values() for text in class_texts]
        index = np.repeat(np.arange(len(prompts)), [len(class_texts) for class_texts in prompts.values()])
        return cls(tuple(prompts), tuple(texts), index.astype(np.int32))

    def columns(self, name: str) -> np.ndarray:
        """Positions of a class's prompts; "Abnormal" has those of every class but "No Finding"."""
        if name == ABNORMAL and ABNORMAL not in self.classes:
            normal = self.classes.index(NO_FINDING) if NO_FINDING in self.classes else -1
            return np.flatnonzero(self.class_index != normal)
        return np.flatnonzero(self.class_index == self.classes.index(name))


def read_prompts(path: str) -> dict[str, tuple[str, ...]]:
    """Reads a JSON file {class: [prompt, …]}.

    Raises:
        ValueError: a missing file, no JSON, or anything but non-empty lists of non-empty strings.
    """
    file = epath.Path(path)
    require(file.is_file(), "prompts", "a JSON file {class: [prompt, …]}", path, "Check the path.")
    try:
        content = json.loads(file.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(
            f"`prompts` must be a JSON file {{class: [prompt, …]}}. Received: {path!r}, which is not JSON "
            f"(line {error.lineno}, column {error.colno}). Mend the file."
        ) from None
    require(
        isinstance(content, dict) and bool(content),
        "prompts",
        "an object {class: [prompt, …]} with at least one class",
        type(content).__name__,
    )
    for name, texts in content.items():
        require(
            isinstance(texts, list) and texts and all(isinstance(t, str) and t.strip() for t in texts),
            f"prompts[{name!r}]",
            "a list of at least one non-empty string",
            texts,
        )
    return {name: tuple(texts) for name, texts in content.items()}


def finding_prompts(config: EvaluationConfig) -> dict[str, tuple[str, ...]]:
    """The prompts that an evaluation needs: those of its findings and, for multi_label, the normal ones.

    Args:
        config: `prompts` (a JSON file, or empty for the shipped ones), `findings`, `num_prompts`, `task`.

    Returns:
        {finding: prompts}, at most `num_prompts` a finding, in the order of `config.findings`, without
        "Abnormal" (which has no prompts of its own), "No Finding" last where the task needs it.

    Raises:
        ValueError: a finding without prompts, or a file that `read_prompts` refuses.
    """
    prompts = read_prompts(config.prompts) if config.prompts else SHIPPED_PROMPTS
    names = [name for name in config.findings if name != ABNORMAL]
    if config.task == "multi_label" and NO_FINDING not in names:
        names.append(NO_FINDING)
    for name in names:
        near = difflib.get_close_matches(name, prompts, 3) or list(prompts)
        require(name in prompts, "evaluation.findings", f"findings that have prompts: {near}", name)
    return {name: tuple(prompts[name][: config.num_prompts]) for name in names}
