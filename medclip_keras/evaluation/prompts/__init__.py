"""Prompts: the sentences that represent a class in zero-shot classification.

chest21.json holds ten shipped prompts for each finding of `chest21`, in a radiologist's words; those of
"No Finding" are the normal prompts. A file of the same form, named in `evaluation.prompts`, replaces them.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from etils import epath

from medclip_keras.config import EvaluationConfig
from medclip_keras.errors import near_names, refusal, require
from medclip_keras.evaluation.arrays import Ints
from medclip_keras.knowledge.concepts import NO_FINDING

ABNORMAL = "Abnormal"  # a class of the multi-label task: No Finding is not positive

Prompts = dict[str, tuple[str, ...]]  # class → prompts


@dataclass(frozen=True)
class ClassPrompts:
    """The prompts of several classes in one list, each with its class's index.

    >>> prompts = ClassPrompts.of({"Edema": ["Edema is seen."], "Hernia": ["A hernia.", "Hiatal hernia."]})
    >>> prompts.classes, prompts.class_index.tolist()
    (('Edema', 'Hernia'), [0, 1, 1])
    """

    classes: tuple[str, ...]
    texts: tuple[str, ...]
    class_index: Ints  # int32 (num_prompts,)

    @classmethod
    def of(cls, prompts: Mapping[str, Sequence[str]]) -> "ClassPrompts":
        """Flatten {class: [prompt, …]}, classes in the mapping's order."""
        texts = [text for class_texts in prompts.values() for text in class_texts]
        index = np.repeat(np.arange(len(prompts)), [len(class_texts) for class_texts in prompts.values()])
        return cls(tuple(prompts), tuple(texts), index.astype(np.int32))

    def columns(self, name: str) -> Ints:
        """Positions of a class's prompts; "Abnormal" has those of every class but "No Finding"."""
        if name == ABNORMAL and ABNORMAL not in self.classes:
            normal = self.classes.index(NO_FINDING) if NO_FINDING in self.classes else -1
            return np.flatnonzero(self.class_index != normal)
        return np.flatnonzero(self.class_index == self.classes.index(name))


def shipped_prompts() -> Prompts:
    """The ten shipped prompts of each finding of `chest21`."""
    return read_prompts(str(epath.Path(__file__).parent / "chest21.json"))


def read_prompts(path: str) -> Prompts:
    """Read a JSON file {class: [prompt, …]}.

    Raises:
        ValueError: a missing file, no JSON, or anything but non-empty lists of non-empty strings.
    """
    file = epath.Path(path)
    form = "a JSON file {class: [prompt, …]} with at least one class"
    require(file.is_file(), "prompts", form, path, "Check the path.")
    try:
        content = json.loads(file.read_bytes().decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise refusal("prompts", form, path, "It is not UTF-8.") from None
    except json.JSONDecodeError as error:
        position = f"line {error.lineno}, column {error.colno}"
        raise refusal("prompts", form, path, f"It is not JSON at {position}.") from None
    require(isinstance(content, dict) and bool(content), "prompts", form, type(content).__name__)
    for name, texts in content.items():
        filled = isinstance(texts, list) and all(isinstance(t, str) and t.strip() for t in texts)
        of_class = "a list of at least one non-empty string"
        require(filled and bool(texts), f"prompts[{name!r}]", of_class, texts)
    return {name: tuple(texts) for name, texts in content.items()}


def prompts_made_from(path: str, prompts: Prompts) -> dict[str, str]:
    """The prompts' file, and the start of the SHA-256 of those in use, in JSON types."""
    digest = hashlib.sha256(json.dumps(prompts, sort_keys=True).encode()).hexdigest()
    return {"prompts": path or "shipped", "prompts_sha256": digest[:16]}


def finding_prompts(config: EvaluationConfig) -> Prompts:
    """Prompts of an evaluation's findings and, for multi_label, the normal prompts.

    Args:
        config: `prompts` (a JSON file; empty: the shipped ones), `findings`, `num_prompts`, `task`.

    Returns:
        {finding: prompts}, at most `num_prompts` a finding, in the order of `config.findings`, without
        "Abnormal" (which has no own prompts), "No Finding" last if the task needs it.

    Raises:
        ValueError: a finding without prompts, or a file that `read_prompts` refuses.
    """
    prompts = read_prompts(config.prompts) if config.prompts else shipped_prompts()
    names = [name for name in config.findings if name != ABNORMAL]
    if config.task == "multi_label" and NO_FINDING not in names:
        names.append(NO_FINDING)
    for name in names:
        advice = near_names(name, prompts)
        require(name in prompts, "evaluation.findings", "findings with prompts", name, advice)
    return {name: prompts[name][: config.num_prompts] for name in names}
