"""What one record says of itself: the numbers that statistics add up, without pixels, text or identifiers."""

import hashlib
import re
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf

from medclip_keras.knowledge.states import LabelState
from medclip_keras.records.shards import salted_hash

NUM_STATES = len(LabelState)
# A picture whose brightest and darkest pixel are so close shows nothing: black, white, one gray.
BLANK_RANGE = 8
# Type in a `tf.train.Example`, and values a record; None: as many as it has sentences.
_SHARED_FIELDS = {
    "record_key": ("bytes_list", 1),
    "study_id": ("bytes_list", 1),
    "patient_id": ("bytes_list", 1),
    "split": ("bytes_list", 1),
    "label_states": ("int64_list", 1),
    "sentences/text": ("bytes_list", None),
    "sentences/section": ("bytes_list", None),
    "sentences/label_states": ("int64_list", None),
}
_IMAGE_FIELDS = {"view": ("bytes_list", 1), "image": ("bytes_list", 1)}
_HASH = re.compile(r"[0-9a-f]{16}")
_WORD = re.compile(r"[A-Za-z_]{1,14}")
NOT_SHOWN = "(not shown)"


@dataclass
class RecordFacts:
    """What a record says of itself.

    Attributes:
        split: of the shard it lies in.
        key: its record key, hashed where it is not a hash already.
        num_values: field → number of values in it; a missing field is not there.
        faults: (field, fault), such as ("image", "wrong_shape").
        words: field → its value, for fields with few values: split, view and the sections.
        num_image_bytes: length of the image.
        brightness: mean of the pixels in 16ths, [0, 4080], rounded down; None without an image.
        states: (num_findings,) of the record, or None.
        sentence_states: (N, num_findings), or None.
        sentence_words: words of each sentence.
        sightings: ("patient" | "image" | "record", digest): what must not be seen twice, or in two splits.
    """

    split: str
    key: str = ""
    num_values: dict[str, int] = field(default_factory=dict)
    faults: list[tuple[str, str]] = field(default_factory=list)
    words: dict[str, list[str]] = field(default_factory=dict)
    num_image_bytes: int = 0
    brightness: int | None = None
    states: np.ndarray | None = None
    sentence_states: np.ndarray | None = None
    sentence_words: tuple[int, ...] = ()
    sightings: list[tuple[str, bytes]] = field(default_factory=list)


def fields_of(kind: str) -> dict[str, tuple[str, int | None]]:
    """The fields of the records of a kind, each with its type and number of values."""
    return {**_SHARED_FIELDS, **(_IMAGE_FIELDS if kind == "images" else {})}


def describe_record(
    serialized: bytes, split: str, kind: str, num_findings: int, image_size: int
) -> RecordFacts:
    """Reads one record, whatever it holds.

    Args:
        serialized: a `tf.train.Example`.
        split: of the shard it lies in.
        kind: "images" or "reports".
        num_findings: concepts in the table.
        image_size: side of the stored images; 0 for reports.
    """
    features = tf.train.Example.FromString(serialized).features.feature
    facts, values = RecordFacts(split), {}
    for name, feature in features.items():
        value_type = feature.WhichOneof("kind")
        if value_type is None:
            continue
        own = getattr(feature, value_type).value
        facts.num_values[name] = len(own)
        expected_type, count = fields_of(kind).get(name, (value_type, None))
        if value_type != expected_type:
            facts.faults.append((name, "wrong_type"))
        elif count == 1 and name != "label_states" and len(own) != 1:
            facts.faults.append((name, "wrong_shape"))
        else:
            values[name] = own
    _describe_keys(facts, values)
    _describe_image(facts, values, image_size)
    _describe_labels(facts, values, num_findings)
    _describe_sentences(facts, values, num_findings)
    return facts


def _describe_keys(facts: RecordFacts, values: dict) -> None:
    for name, what in (("record_key", "record"), ("patient_id", "patient")):
        if values.get(name, [b""])[0]:
            facts.sightings.append((what, _digest(values[name][0])))
    facts.key = _shown_key(values.get("record_key", [b""])[0])
    for name in ("record_key", "study_id", "patient_id", "split", "view"):
        if name in values and not values[name][0]:
            facts.num_values[name] = 0  # an empty text is a missing one
    for name in ("split", "view"):
        if facts.num_values.get(name):
            facts.words[name] = [_shown_word(values[name][0])]
    if facts.words.get("split", [facts.split]) != [facts.split]:
        facts.faults.append(("split", "unlike_shard"))


def _describe_image(facts: RecordFacts, values: dict, image_size: int) -> None:
    if "image" not in values:
        return
    content = values["image"][0]
    facts.num_image_bytes = len(content)
    if len(content) != image_size**2:
        facts.faults.append(("image", "wrong_shape"))
    if not content:
        return
    pixels = np.frombuffer(content, np.uint8)
    facts.brightness = int(pixels.sum(dtype=np.int64)) * 16 // len(pixels)
    if int(pixels.max()) - int(pixels.min()) < BLANK_RANGE:
        facts.faults.append(("image", "blank"))
    else:  # blank ones are all alike
        facts.sightings.append(("image", _digest(content)))


def _describe_labels(facts: RecordFacts, values: dict, num_findings: int) -> None:
    if "label_states" in values:
        states = np.array(values["label_states"], np.int64)
        if states.shape != (num_findings,):
            facts.faults.append(("label_states", "wrong_shape"))
        elif _out_of_range(states):
            facts.faults.append(("label_states", "out_of_range"))
        else:
            facts.states = states


def _describe_sentences(facts: RecordFacts, values: dict, num_findings: int) -> None:
    texts = values.get("sentences/text", ())
    facts.sentence_words = tuple(len(text.split()) for text in texts)
    if 0 in facts.sentence_words:
        facts.faults.append(("sentences/text", "empty"))
    sections = values.get("sentences/section", ())
    if len(sections) != len(texts):
        facts.faults.append(("sentences/section", "wrong_shape"))
    facts.words["sentences/section"] = [_shown_word(section) for section in sections]
    states = np.array(values.get("sentences/label_states", ()), np.int64)
    if states.size != len(texts) * num_findings:
        facts.faults.append(("sentences/label_states", "wrong_shape"))
    elif _out_of_range(states):
        facts.faults.append(("sentences/label_states", "out_of_range"))
    else:
        facts.sentence_states = states.reshape(len(texts), num_findings)


def _out_of_range(states: np.ndarray) -> bool:
    return bool(states.size) and not (states.min() >= 0 and states.max() < NUM_STATES)


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=12).digest()


def _shown_key(record_key: bytes) -> str:
    """A key as it may be shown: identifiers that a job kept are hashed."""
    text = record_key.decode(errors="replace")
    return text if _HASH.fullmatch(text) else salted_hash("", "record", text)


def _shown_word(value: bytes) -> str:
    """A value as it may be shown: a code or a word, never what could be an identifier or a report."""
    text = value.decode(errors="replace")
    return text if _WORD.fullmatch(text) else NOT_SHOWN
