"""Facts of one record: counts, faults and digests, without text or identifiers."""

import hashlib
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

from medclip_keras.knowledge.states import LabelState, is_stated
from medclip_keras.records.manifest import Manifest
from medclip_keras.records.schema import WIDE, is_nearly_black, states_of
from medclip_keras.records.shards import salted_hash
from medclip_keras.sources.rows import UNKNOWN_AGE

STATES = tuple(state.name.lower() for state in LabelState)
BRIGHTNESS, WORDS, NUMBER = "image/brightness", "sentences/words", "sentences/number"
NUM_EXAMPLES = 3  # record keys that are kept of each fault
BLANK_RANGE = 8  # an image with a smaller range of gray values shows nothing: black, white, one gray
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
_IMAGE_FIELDS: dict[str, tuple[str, int | None]] = {
    "view": ("bytes_list", 1),
    "view_position": ("bytes_list", 1),
    "sex": ("bytes_list", 1),
    "age": ("int64_list", 1),
    "image": ("bytes_list", 1),
}

Sighting = tuple[str, bytes]  # field, and the digest of its value: must not recur in another split


def fields_of(kind: str, num_findings: int) -> dict[str, tuple[str, int | None]]:
    """Fields of the records of a kind, with type and number of values."""
    states = {
        name: ("bytes_list", number) for name, (_, number) in _SHARED_FIELDS.items() if "states" in name
    }
    fields = _SHARED_FIELDS | (_IMAGE_FIELDS if kind == "images" else {})
    return fields | (states if num_findings > WIDE else {})


@dataclass
class Tally:
    """Counts of the records of a split; they add up in any order."""

    # "records", "labelled" records (with a state of any concept), and distinct values by field
    totals: Counter[str] = field(default_factory=Counter)
    # field → number of its values in a record (of the image: bytes) → records
    lengths: dict[str, Counter[int]] = field(default_factory=dict)
    # split, view, view_position, sex, section, `label_states/CONCEPT`, `sentences/label_states/CONCEPT`:
    # value → count
    categories: dict[str, Counter[str]] = field(default_factory=dict)
    # mean gray value of an image, words of a sentence, sentences of a record → value → count
    numbers: dict[str, Counter[float]] = field(default_factory=dict)
    # field → fault → count; "in_train_and_test" counts values that two splits share
    faults: dict[str, Counter[str]] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)  # "field fault" → the smallest record keys

    def add_fault(self, name: str, fault: str, key: str, count: int = 1) -> None:
        """Count a fault of the record with a key."""
        self.faults.setdefault(name, Counter())[fault] += count
        self.examples[f"{name} {fault}"] = [key]


def merge(tallies: Iterable[Tally]) -> Tally:
    """Add up tallies."""
    total = Tally()
    for tally in tallies:
        total.totals.update(tally.totals)
        for measure in ("lengths", "categories", "numbers", "faults"):
            own = getattr(total, measure)
            for name, counts in getattr(tally, measure).items():
                own.setdefault(name, Counter()).update(counts)
        for fault, keys in tally.examples.items():
            total.examples[fault] = sorted({*total.examples.get(fault, ()), *keys})[:NUM_EXAMPLES]
    return total


def with_unmentioned(tally: Tally, concepts: Sequence[str]) -> Tally:
    """Count for each concept the rows without it, unlabelled or not mentioned, from the `totals` of rows."""
    tally = merge([tally])  # Beam forbids to change what it gives
    for name in ("label_states", "sentences/label_states"):
        if _rows_of(name) not in tally.totals:
            continue
        num_rows = tally.totals.pop(_rows_of(name))
        for which, count in tally.categories.pop(_unlabelled_of(name), Counter()).items():
            for k in map(int, which.split(",")):
                counts = tally.categories.setdefault(f"{name}/{concepts[k]}", Counter())
                counts[STATES[LabelState.UNLABELLED]] += count
        for concept in concepts:
            counts = tally.categories.setdefault(f"{name}/{concept}", Counter())
            if num_rows > counts.total():
                counts[STATES[0]] = num_rows - counts.total()
    return tally


def _unlabelled_of(name: str) -> str:
    return f"{name}/unlabelled"


def _rows_of(name: str) -> str:
    return f"{name}/rows"


@dataclass
class RecordFacts:
    """Facts of one record."""

    split: str  # of the shard that holds it
    key: str = ""  # its record key; a kept identifier is hashed
    tally: Tally = field(default_factory=Tally)  # its counts and faults
    sightings: list[Sighting] = field(default_factory=list)  # digests of its key, its patient and its image
    pixels: np.ndarray | None = field(default=None, repr=False)  # (S, S) of an image that shows something

    def add_fault(self, name: str, fault: str) -> None:
        """Count a fault of the record."""
        self.tally.add_fault(name, fault, self.key)

    def add_sighting(self, name: str, content: bytes) -> None:
        """Keep the digest of a value."""
        self.sightings.append((name, hashlib.blake2b(content, digest_size=12).digest()))


def describe_record(
    serialized: bytes, split: str, manifest: Manifest, concepts: Sequence[str]
) -> RecordFacts:
    """Read one record, a `tf.train.Example` in a shard of `split`, whatever it holds."""
    features = tf.train.Example.FromString(serialized).features.feature
    lists = {name: one for name, feature in features.items() if (one := feature.WhichOneof("kind"))}
    values = {name: getattr(features[name], one).value for name, one in lists.items()}
    facts = RecordFacts(split, _shown_key(_first(values, "record_key")))
    facts.tally.totals["records"] = 1
    readable = {
        name: own for name, own in values.items() if _has_its_form(facts, name, lists[name], own, manifest)
    }
    _describe_texts(facts, readable)
    if "image" in readable:
        _describe_image(facts, readable["image"][0], manifest.image_size)
    states = _states_of(readable.get("label_states", ()), len(concepts))
    if (
        "label_states" in readable
        and _add_states(facts, "label_states", states, concepts)
        and (is_stated(states).any())
    ):
        facts.tally.totals["labelled"] = 1
    _describe_sentences(facts, readable, concepts)
    return facts


def _has_its_form(
    facts: RecordFacts,
    name: str,
    value_type: str,
    own: Sequence[Any],
    manifest: Manifest,
) -> bool:
    """Count a field's values, and check its type and their number; "" and an unknown age are missing."""
    fields = fields_of(manifest.kind, manifest.num_findings)
    expected_type, num_values = fields.get(name, (value_type, None))
    is_empty = num_values == 1 and name != "image" and list(own) in ([b""], [UNKNOWN_AGE])
    if len(own) and not is_empty:
        facts.tally.lengths[name] = Counter([len(own)])
        if name == "image" and value_type == expected_type:
            facts.tally.lengths[name] = Counter([len(own[0])])
        elif "states" in name and value_type == expected_type:
            facts.tally.lengths[name] = Counter([_states_of(own, manifest.num_findings).size])
    if value_type != expected_type:
        facts.add_fault(name, "wrong_type")
    elif num_values == 1 and len(own) != 1:
        facts.add_fault(name, "wrong_shape")
    else:
        return True
    return False


def _describe_texts(facts: RecordFacts, values: Mapping[str, Any]) -> None:
    for name in ("record_key", "patient_id"):
        if text := _first(values, name):
            facts.add_sighting(name, text)
    for name in ("split", "view", "view_position", "sex"):
        if text := _first(values, name):
            facts.tally.categories[name] = Counter([_shown_word(text)])
    if "split" in values and _first(values, "split") not in (b"", facts.split.encode()):
        facts.add_fault("split", "unlike_shard")


def _describe_image(facts: RecordFacts, content: bytes, image_size: int) -> None:
    pixels = np.frombuffer(content, np.uint8)
    if len(pixels) != image_size**2:
        facts.add_fault("image", "wrong_shape")
    if not len(pixels):
        return
    mean = int(pixels.sum(dtype=np.int64)) * 16 // len(pixels) / 16  # in sixteenths: few distinct values
    facts.tally.numbers[BRIGHTNESS] = Counter([mean])
    if np.ptp(pixels) < BLANK_RANGE:
        facts.add_fault("image", "blank")
        return
    if is_nearly_black(pixels):
        facts.add_fault("image", "dark")
    facts.add_sighting("image", content)  # blank images are equal, and no copies
    if len(pixels) == image_size**2:
        facts.pixels = pixels.reshape(image_size, image_size)


def _describe_sentences(facts: RecordFacts, values: Mapping[str, Any], concepts: Sequence[str]) -> None:
    texts, sections = values.get("sentences/text", ()), values.get("sentences/section", ())
    num_words = [len(text.split()) for text in texts]
    facts.tally.numbers |= {WORDS: Counter(num_words), NUMBER: Counter([len(texts)])}
    facts.tally.categories["sentences/section"] = Counter(map(_shown_word, sections))
    if 0 in num_words:
        facts.add_fault("sentences/text", "empty")
    if len(sections) != len(texts):
        facts.add_fault("sentences/section", "wrong_shape")
    states = _states_of(values.get("sentences/label_states", ()), len(concepts))
    _add_states(facts, "sentences/label_states", states, concepts, len(texts))


def _states_of(values: Sequence[Any], num_findings: int) -> np.ndarray:
    """Label states of a field, flat; bytes that cannot be decompressed give none, which is a wrong shape."""
    try:
        return states_of(values, num_findings)
    except zlib.error:
        return np.zeros(0, np.int64)


def _add_states(
    facts: RecordFacts, name: str, states: np.ndarray, concepts: Sequence[str], num_rows: int = 1
) -> bool:
    """Count label states (num_rows * num_findings,) by concept; False if they are faulty.

    A record mentions few of 10,000 concepts: `with_unmentioned` counts the others once for a dataset, and
    those that the archive does not label once for each set of them.
    """
    if states.size != num_rows * len(concepts):
        facts.add_fault(name, "wrong_shape")
    elif ((states < 0) | (states >= len(STATES))).any():
        facts.add_fault(name, "out_of_range")
    else:
        facts.tally.totals[_rows_of(name)] = num_rows
        unlabelled = states == LabelState.UNLABELLED
        if unlabelled.any():
            which = ",".join(map(str, np.flatnonzero(unlabelled)))
            facts.tally.categories[_unlabelled_of(name)] = Counter({which: 1})
        for k in np.flatnonzero(is_stated(states)).tolist():
            counts = facts.tally.categories.setdefault(f"{name}/{concepts[k % len(concepts)]}", Counter())
            counts[STATES[states[k]]] += 1
        return True
    return False


def _first(values: Mapping[str, Any], name: str) -> bytes:
    own = values.get(name, ())
    return own[0] if len(own) and isinstance(own[0], bytes) else b""


def _shown_key(record_key: bytes) -> str:
    """A key that may be shown: identifiers that a job kept are hashed."""
    text = record_key.decode(errors="replace")
    return text if _HASH.fullmatch(text) else salted_hash("", "record", text)


def _shown_word(value: bytes) -> str:
    """A value that may be shown: a code or a word, never a possible identifier or report text."""
    text = value.decode(errors="replace")
    return text if _WORD.fullmatch(text) else "(not shown)"
