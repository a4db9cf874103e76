"""Facts of one record: counts, faults and digests, without pixels, text or identifiers."""

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from medclip_keras.knowledge.states import LabelState
from medclip_keras.records.manifest import Manifest
from medclip_keras.records.shards import salted_hash

STATES = tuple(state.name.lower() for state in LabelState)
BRIGHTNESS, WORDS, NUMBER = "image/brightness", "sentences/words", "sentences/number"
NUM_EXAMPLES = 3  # record keys that are kept of each fault
BLANK_RANGE = 8  # an image with a smaller range of gray values shows nothing: black, white, one gray
NOT_SHOWN = "(not shown)"
_HASH, _WORD = re.compile(r"[0-9a-f]{16}"), re.compile(r"[A-Za-z_]{1,14}")
# Type in a `tf.train.Example`, and values per record (None: one per sentence).
_SHARED_FIELDS: dict[str, tuple[str, int | None]] = {
    "record_key": ("bytes_list", 1),
    "study_id": ("bytes_list", 1),
    "patient_id": ("bytes_list", 1),
    "split": ("bytes_list", 1),
    "label_states": ("int64_list", None),
    "sentences/text": ("bytes_list", None),
    "sentences/section": ("bytes_list", None),
    "sentences/label_states": ("int64_list", None),
}
_IMAGE_FIELDS: dict[str, tuple[str, int | None]] = {"view": ("bytes_list", 1), "image": ("bytes_list", 1)}

Sighting = tuple[str, bytes]  # field, and the digest of its value: must not recur in another split


def fields_of(kind: str) -> dict[str, tuple[str, int | None]]:
    """Fields of the records of a kind, with type and number of values."""
    return _SHARED_FIELDS | (_IMAGE_FIELDS if kind == "images" else {})


@dataclass
class Tally:
    """Counts of the records of a split; they add up in any order.

    Attributes:
        totals: "records", "labelled" records (with a state of any concept), and distinct values by field.
        lengths: field → number of its values in a record (of the image: bytes) → records.
        categories: split, view, section, `label_states/CONCEPT`, `sentences/label_states/CONCEPT` → value →
            count.
        numbers: mean gray value of an image, words of a sentence, sentences of a record → value → count.
        faults: field → fault → count; "in_train_and_test" counts values that two splits share.
        examples: "field fault" → the smallest record keys.
    """

    totals: Counter[str] = field(default_factory=Counter)
    lengths: dict[str, Counter[int]] = field(default_factory=dict)
    categories: dict[str, Counter[str]] = field(default_factory=dict)
    numbers: dict[str, Counter[float]] = field(default_factory=dict)
    faults: dict[str, Counter[str]] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add_fault(self, name: str, fault: str, key: str, count: int = 1) -> None:
        """Count a fault of the record with a key."""
        self.faults.setdefault(name, Counter())[fault] += count
        self._keep_examples(f"{name} {fault}", [key])

    def merge(self, other: "Tally") -> None:
        """Add another tally to this one."""
        self.totals.update(other.totals)
        for measure in ("lengths", "categories", "numbers", "faults"):
            own = getattr(self, measure)
            for name, counts in getattr(other, measure).items():
                own.setdefault(name, Counter()).update(counts)
        for fault, keys in other.examples.items():
            self._keep_examples(fault, keys)

    def _keep_examples(self, fault: str, keys: Sequence[str]) -> None:
        self.examples[fault] = sorted({*self.examples.get(fault, ()), *keys})[:NUM_EXAMPLES]


@dataclass
class RecordFacts:
    """Facts of one record.

    Attributes:
        split: of the shard that holds it.
        key: its record key; a kept identifier is hashed.
        tally: its counts and faults.
        sightings: digests of its key, its patient and its image.
    """

    split: str
    key: str = ""
    tally: Tally = field(default_factory=Tally)
    sightings: list[Sighting] = field(default_factory=list)

    def fault(self, feature: str, fault: str) -> None:
        """Record a fault, once."""
        if fault not in self.tally.faults.get(feature, ()):
            self.tally.add_fault(feature, fault, self.key)


def describe_record(
    serialized: bytes, split: str, manifest: Manifest, concepts: Sequence[str]
) -> RecordFacts:
    """Read one record, whatever it holds.

    Args:
        serialized: a `tf.train.Example`.
        split: of the shard that holds it.
        manifest: of the dataset; its kind and image size count.
        concepts: names of the concept table.
    """
    features = tf.train.Example.FromString(serialized).features.feature
    lists = {name: feature.WhichOneof("kind") for name, feature in features.items()}
    values = {name: getattr(features[name], one).value for name, one in lists.items() if one}
    facts = RecordFacts(split, _shown_key(_first(values, "record_key")))
    facts.tally.totals["records"] = 1
    readable = {
        name: own
        for name, own in values.items()
        if _has_its_form(facts, name, lists[name], own, manifest.kind)
    }
    _describe_texts(facts, readable)
    _describe_image(facts, readable, manifest.image_size)
    _describe_labels(facts, readable, concepts)
    _describe_sentences(facts, readable, concepts)
    return facts


def _has_its_form(facts: RecordFacts, name: str, value_type: str, own: Sequence[Any], kind: str) -> bool:
    """Count a field's values (an empty text is a missing one), and check its type and their number."""
    expected_type, num_values = fields_of(kind).get(name, (value_type, None))
    empty_text = num_values == 1 and value_type == "bytes_list" and name != "image" and list(own) == [b""]
    if len(own) and not empty_text:
        length = len(own[0]) if name == "image" and value_type == expected_type else len(own)
        facts.tally.lengths[name] = Counter([length])
    if value_type != expected_type:
        facts.fault(name, "wrong_type")
    elif num_values == 1 and len(own) != 1:
        facts.fault(name, "wrong_shape")
    else:
        return True
    return False


def _describe_texts(facts: RecordFacts, values: Mapping[str, Any]) -> None:
    for name in ("record_key", "patient_id"):
        if text := _first(values, name):
            facts.sightings.append((name, _digest(text)))
    for name in ("split", "view"):
        if text := _first(values, name):
            facts.tally.categories[name] = Counter([_shown_word(text)])
    if "split" in values and _first(values, "split") not in (b"", facts.split.encode()):
        facts.fault("split", "unlike_shard")


def _describe_image(facts: RecordFacts, values: Mapping[str, Any], image_size: int) -> None:
    if "image" not in values:
        return
    pixels = np.frombuffer(values["image"][0], np.uint8)
    if len(pixels) != image_size**2:
        facts.fault("image", "wrong_shape")
    if not len(pixels):
        return
    mean = int(pixels.sum(dtype=np.int64)) * 16 // len(pixels) / 16  # in sixteenths: few distinct values
    facts.tally.numbers[BRIGHTNESS] = Counter([mean])
    if int(pixels.max()) - int(pixels.min()) < BLANK_RANGE:
        facts.fault("image", "blank")
    else:  # blank images are equal, and no copies
        facts.sightings.append(("image", _digest(values["image"][0])))


def _describe_labels(facts: RecordFacts, values: Mapping[str, Any], concepts: Sequence[str]) -> None:
    states = np.array(values.get("label_states", ()), np.int64)
    if "label_states" in values and _add_states(facts, "label_states", states, concepts, 1) and states.any():
        facts.tally.totals["labelled"] = 1


def _describe_sentences(facts: RecordFacts, values: Mapping[str, Any], concepts: Sequence[str]) -> None:
    texts, sections = values.get("sentences/text", ()), values.get("sentences/section", ())
    num_words = [len(text.split()) for text in texts]
    facts.tally.numbers |= {WORDS: Counter(num_words), NUMBER: Counter([len(texts)])}
    facts.tally.categories["sentences/section"] = Counter(map(_shown_word, sections))
    if 0 in num_words:
        facts.fault("sentences/text", "empty")
    if len(sections) != len(texts):
        facts.fault("sentences/section", "wrong_shape")
    states = np.array(values.get("sentences/label_states", ()), np.int64)
    _add_states(facts, "sentences/label_states", states, concepts, len(texts))


def _add_states(
    facts: RecordFacts, name: str, states: np.ndarray, concepts: Sequence[str], num_rows: int
) -> bool:
    """Count label states (num_rows * num_findings,) by concept; False if they are faulty."""
    if states.size != num_rows * len(concepts):
        facts.fault(name, "wrong_shape")
    elif states.size and not (states.min() >= 0 and states.max() < len(STATES)):
        facts.fault(name, "out_of_range")
    else:
        for concept, column in zip(concepts, states.reshape(num_rows, len(concepts)).T.tolist(), strict=True):
            facts.tally.categories[f"{name}/{concept}"] = Counter(STATES[state] for state in column)
        return True
    return False


def _first(values: Mapping[str, Any], name: str) -> bytes:
    own = values.get(name, ())
    return own[0] if len(own) and isinstance(own[0], bytes) else b""


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=12).digest()


def _shown_key(record_key: bytes) -> str:
    """A key that may be shown: identifiers that a job kept are hashed."""
    text = record_key.decode(errors="replace")
    return text if _HASH.fullmatch(text) else salted_hash("", "record", text)


def _shown_word(value: bytes) -> str:
    """A value that may be shown: a code or a word, never a possible identifier or report text."""
    text = value.decode(errors="replace")
    return text if _WORD.fullmatch(text) else NOT_SHOWN
