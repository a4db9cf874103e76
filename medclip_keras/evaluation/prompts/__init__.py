"""Prompts: the sentences that represent a class in zero-shot classification.

chest21.json holds ten shipped prompts for each finding of `chest21`, in a radiologist's words; those of
"No Finding" are the normal prompts. A file of the same form, named in `evaluation.prompts`, replaces them.
chexpert5.json, covid.json and rsna.json hold words by severity, subtype and location, whose combinations are
the prompts, as in MedCLIP.

Follows: Wang et al., EMNLP 2022, section 4.3 (prompts from severity, subtype and location).
"""

import hashlib
import itertools
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

DENIED = "no "  # before a finding's name: the class of its own negative prompts
SHIPPED = ("chest21", "chexpert5", "covid", "rsna")
_DENIALS = ("There is no {}.", "No {}.", "No evidence of {}.", "No {} is seen.", "Without {}.")

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
        """Positions of a class's prompts; "Abnormal" has those of every finding."""
        if name == ABNORMAL and ABNORMAL not in self.classes:
            denied = {DENIED + n for n in self.classes}
            stated = [k for k, n in enumerate(self.classes) if n != NO_FINDING and n not in denied]
            return np.flatnonzero(np.isin(self.class_index, stated))
        return np.flatnonzero(self.class_index == self.classes.index(name))

    def at(self, columns: Ints) -> "ClassPrompts":
        """Some of the prompts, of the same classes."""
        texts = tuple(self.texts[column] for column in columns)
        return ClassPrompts(self.classes, texts, self.class_index[columns])


def shipped_prompts() -> Prompts:
    """The ten shipped prompts of each finding of `chest21`."""
    return read_prompts("chest21")


def read_prompts(path: str) -> Prompts:
    """Read a JSON file {class: [prompt, …]} or {class: {"severity": [word, …], "location": [word, …], …}}.

    Of lists of words the prompts are all combinations of one word of each list, in the order of the lists; a
    word may be "". They are in the order of their hashes, so that the first few are of all kinds.

    Args:
        path: a file, or the name of a shipped one: "chest21", "chexpert5", "covid", "rsna".

    Raises:
        ValueError: a missing file, no JSON, or anything but non-empty lists of non-empty strings.
    """
    shipped = epath.Path(__file__).parent / f"{path}.json"
    file = shipped if path in SHIPPED else epath.Path(path)
    form = "a JSON file {class: [prompt, …]} with at least one class"
    require(file.is_file(), "prompts", form, path, f"Check the path. Shipped: {', '.join(SHIPPED)}.")
    try:
        content = json.loads(file.read_bytes().decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise refusal("prompts", form, path, "It is not UTF-8.") from None
    except json.JSONDecodeError as error:
        position = f"line {error.lineno}, column {error.colno}"
        raise refusal("prompts", form, path, f"It is not JSON at {position}.") from None
    require(isinstance(content, dict) and bool(content), "prompts", form, type(content).__name__)
    content = {
        name: combined(name, of) if isinstance(of, dict) and of else of for name, of in content.items()
    }
    for name, texts in content.items():
        filled = isinstance(texts, list) and all(isinstance(t, str) and t.strip() for t in texts)
        of_class = "a list of at least one non-empty string"
        require(filled and bool(texts), f"prompts[{name!r}]", of_class, texts)
    return {name: tuple(texts) for name, texts in content.items()}


def combined(name: str, words: Mapping[str, Sequence[str]]) -> list[str]:
    """Distinct combinations of one word of each list, in the order of their hashes.

    >>> sorted(combined("Edema", {"severity": ["", "mild"], "subtype": ["edema", "congestion"]}))
    ['congestion', 'edema', 'mild congestion', 'mild edema']
    """
    for part, choices in words.items():
        filled = isinstance(choices, list) and bool(choices) and all(isinstance(c, str) for c in choices)
        require(filled, f"prompts[{name!r}][{part!r}]", "a list of at least one string", choices)
    texts = {" ".join(" ".join(choice).split()) for choice in itertools.product(*words.values())}
    return sorted(texts, key=lambda text: hashlib.sha256(text.encode()).hexdigest())


def denials(name: str) -> tuple[str, ...]:
    """Sentences that deny a finding.

    >>> denials("Pleural Effusion")[0]
    'There is no pleural effusion.'
    """
    words = " ".join(word if word.isupper() else word.lower() for word in name.split())  # COVID stays
    return tuple(form.format(words) for form in _DENIALS)


def with_denials(prompts: Prompts) -> Prompts:
    """Prompts with those of "no X" for each finding X: the file's own ones, or else `denials`."""
    denied = {DENIED + name for name in prompts}
    findings = [name for name in prompts if name != NO_FINDING and name not in denied]
    return prompts | {DENIED + name: prompts.get(DENIED + name, denials(name)) for name in findings}


def prompts_made_from(path: str, prompts: Prompts) -> dict[str, str]:
    """The prompts' file, and the start of the SHA-256 of those in use, in JSON types."""
    digest = hashlib.sha256(json.dumps(prompts, sort_keys=True).encode()).hexdigest()
    return {"prompts": path or "shipped", "prompts_sha256": digest[:16]}


def finding_prompts(config: EvaluationConfig, num_prompts: int = 0) -> Prompts:
    """Prompts of an evaluation's findings and, for multi_label, those of the contrast.

    Args:
        config: `prompts` (a JSON file; empty: the shipped ones), `findings`, `num_prompts`, `task`,
            `contrast`.
        num_prompts: at most so many a class; 0: those of the configuration.

    Returns:
        {class: prompts} in the order of `config.findings`, without "Abnormal" (which has no own prompts); "No
        Finding" follows if the task needs it, and "no X" for each finding X if the contrast does.

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
    found = {name: prompts[name] for name in names}
    if config.task == "multi_label" and config.contrast == "negated":
        own = {name: of for name, of in prompts.items() if name.removeprefix(DENIED) in names}
        found = with_denials(found | own)
    return {name: of[: num_prompts or config.num_prompts] for name, of in found.items()}
