"""Anomalies of a dataset, found in its statistics: against a schema, between splits, between runs."""

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from beam_jobs.validation.comparison import Difference, compare
from beam_jobs.validation.facts import BRIGHTNESS, NUMBER, WORDS, Tally
from beam_jobs.validation.schema import Rule, Schema, num_stated
from beam_jobs.validation.statistics import Statistics

REMAKE = "Run the Beam job that made them again."
Kind = Literal["skew", "drift"]  # against train, or against the baseline
_OF_SENTENCES = "sentences/label_states/"
_EDGES = {  # of the bins of numbers
    BRIGHTNESS: range(0, 256, 16),
    WORDS: (0, 1, 2, 3, 4, 6, 8, 10, 12, 15, 20, 30, 50),
    NUMBER: (0, 1, 2, 3, 4, 5, 6, 8, 10, 15, 20),
}
# Faults of single records: anomaly, requirement, advice.
_FAULTS = {
    "wrong_type": ("wrong_type", "of its type in every record", REMAKE),
    "wrong_shape": ("wrong_shape", "of the manifest's shape", REMAKE),
    "out_of_range": ("out_of_range", "a label state, 0 to 3", "Correct the job that codes the labels."),
    "unlike_shard": ("unlike_shard", "the split of its shard", REMAKE),
    "blank": ("blank_image", "an image of several gray values", "Look at these files, and leave them out."),
    "dark": (
        "nearly_black_image",
        "brighter than a quarter of white somewhere",
        "A 16-bit file of fewer bits looks like this: scale the values of these files to 16 bits.",
    ),
    "empty": ("empty_sentence", "of at least one word", "Look at these reports, and label them again."),
    "repeated": ("record_twice", "unique in a split", "Look for rows that the archive lists twice."),
}
_ALLOWED = {("image", "repeated")}  # within a split: archives have such
_NEARLY = "Look at both pictures: leave one out, or keep both in one split."
_SHARED = {
    "patient_id": ("patient", "Split by patient: leave the archive's own split out, or correct its lists."),
    "image": ("image", "The files are copies of each other: leave one out, or keep both in one split."),
    "record_key": ("record", "Look for rows that the archive lists twice."),
}


@dataclass(frozen=True)
class Anomaly:
    """An anomaly: its kind, such as "patient_in_two_splits"; its feature; the error sentence."""

    name: str
    feature: str
    sentence: str


@dataclass(frozen=True)
class Comparison:
    """A feature in a split, compared with another sample; the threshold is the schema's."""

    feature: str
    kind: Kind
    split: str
    threshold: float
    difference: Difference

    @property
    def exceeds(self) -> bool:
        """Whether it is an anomaly."""
        return self.difference.exceeds(self.threshold)

    @property
    def reference(self) -> str:
        """Name of the sample that it is compared with."""
        return "train" if self.kind == "skew" else f"{self.split} of the baseline"


def leak(kind: str, feature: str, count: int, where: tuple[str, str], keys: Sequence[str]) -> Anomaly:
    """Anomaly of patients or pictures that stand in different splits of two places.

    `kind` is "patient", "picture" or "nearly_equal"; `keys` are of records in the first place.
    """
    noun, advice = ("nearly equal image", _NEARLY) if kind == "nearly_equal" else _SHARED[feature]
    name = f"{noun.replace(' ', '_')}_in_two_splits"
    received = f"{count} {noun}{'' if count == 1 else 's'} in {where[0]} and {where[1]}"
    requirement = "in one split only, in all folders"
    return _anomaly(name, feature, requirement, f"{received} (records {', '.join(keys)})", advice)


def find_anomalies(
    statistics: Statistics, schema: Schema, comparisons: list[Comparison], num_records: Mapping[str, int]
) -> list[Anomaly]:
    """All anomalies of a dataset, in the order of features.

    `num_records` are those of each split, by the manifest.
    """
    found = [*_against_schema(statistics, schema), *_miscounted(statistics, num_records)]
    for split, own in statistics.items():
        found += _faults(split, own)
    found += map(_differs, filter(lambda one: one.exceeds, comparisons))
    return sorted(found, key=lambda anomaly: (anomaly.feature, anomaly.name, anomaly.sentence))


def _against_schema(statistics: Statistics, schema: Schema) -> Iterator[Anomaly]:
    """Violations of a schema: missing or new features, values and sizes out of bounds."""
    known = {name for split in statistics.values() for name in (*split.lengths, *split.categories)}
    for name in sorted(known - schema.keys()):
        if not name.startswith(_OF_SENTENCES):  # the rule of sentences/label_states holds
            advice = "Add it to the schema, or use the concept table that it was made with."
            yield _anomaly("new_feature", name, "a feature of the schema", "an unknown feature", advice)
    for name, rule in schema.items():
        yield from _stated_too_little(statistics, name, rule)
        for split, own in statistics.items():
            yield from _missing_values(split, own, name, rule)
            yield from _unknown_values(split, own, name, rule)
            yield from _wrong_size(split, own, name, rule)


def compare_splits(
    statistics: Statistics, reference: Statistics, schema: Schema, kind: Kind
) -> Iterator[Comparison]:
    """Compare every split with train of `reference` (skew), or with the same split there (drift).

    `reference` is the dataset itself for skew, the baseline for drift. A `max_skew` or `max_drift` in the
    schema selects the features.
    """
    for split, own in statistics.items():
        other = reference.get("train" if kind == "skew" else split)
        if other is None or other is own:
            continue
        for name in sorted(own.categories.keys() | own.numbers.keys()):
            of_sentences = name.startswith(_OF_SENTENCES)
            rule = schema.get(_OF_SENTENCES.rstrip("/") if of_sentences else name, Rule())
            threshold = rule.max_skew if kind == "skew" else rule.max_drift
            difference = _compare_feature(name, own, other, kind)
            if threshold is not None and difference is not None:
                yield Comparison(name, kind, split, threshold, difference)


def _compare_feature(name: str, own: Tally, other: Tally, kind: Kind) -> Difference | None:
    """Compare a feature; of labels "positive" may not vanish, of other categories no value of the baseline.

    Between splits negative and not mentioned count as one state: people label evaluation splits in full,
    reports label train. Unlabelled records do not count.
    """
    patients = own.totals["patient_id"], other.totals["patient_id"]
    if name in own.numbers:
        return compare(_binned(own, name), _binned(other, name), patients)
    counts, other_counts = (one.categories.get(name, Counter()) for one in (own, other))
    if "label_states/" not in name:
        return compare(counts, other_counts, patients, other_counts if kind == "drift" else ())
    counts, other_counts = (_without_unlabelled(one) for one in (counts, other_counts))
    if kind == "skew":
        counts, other_counts = _join_absent(counts), _join_absent(other_counts)
    return compare(counts, other_counts, patients, ("positive",))


def _binned(tally: Tally, name: str) -> dict[str, int]:
    counts = tally.numbers.get(name, Counter())
    return {
        f"{low} to {high}": sum(count for value, count in counts.items() if low <= value < high)
        for low, high in itertools.pairwise((*_EDGES[name], math.inf))
    }


def _without_unlabelled(counts: Counter[str]) -> Counter[str]:
    return Counter({state: count for state, count in counts.items() if state != "unlabelled"})


def _join_absent(counts: Counter[str]) -> Counter[str]:
    absent = counts["negative"] + counts["not_mentioned"]
    return Counter({**counts, "negative": 0, "not_mentioned": 0, "absent or not mentioned": absent})


def _differs(one: Comparison) -> Anomaly:
    difference = one.difference
    within, change = ("", "remove") if difference.vanished else (f", within {one.threshold:g}", "raise")
    requirement = f"in {one.split} about as in {one.reference}{within}"
    share, other_share = (f"{100 * share:.1f} %" for share in (difference.share, difference.other_share))
    cause = "Look for a change in how they were made"
    advice = f"{cause}; if it is intended, {change} max_{one.kind} of this feature in the schema."
    received = f"{share} {difference.value!r}, there {other_share}"
    return _anomaly(one.kind, one.feature, requirement, received, advice)


def _faults(split: str, own: Tally) -> Iterator[Anomaly]:
    """Faults of single records; patients, images and records that two splits share."""
    for feature, counts in own.faults.items():
        for fault, count in counts.items():
            keys = f" (records {', '.join(own.examples[f'{feature} {fault}'])})"
            if fault in _FAULTS and (feature, fault) not in _ALLOWED:
                name, requirement, advice = _FAULTS[fault]
                yield _anomaly(name, feature, requirement, f"{count} in {split} that are not{keys}", advice)
            elif fault.startswith("in_"):
                one, _, other = fault.removeprefix("in_").partition("_and_")
                noun, advice = _SHARED[feature]
                received = f"{count} {noun}{'' if count == 1 else 's'} in {one} and {other}{keys}"
                yield _anomaly(f"{noun}_in_two_splits", feature, "in one split only", received, advice)


def _miscounted(statistics: Statistics, num_records: Mapping[str, int]) -> Iterator[Anomaly]:
    for split, expected in num_records.items():
        found = statistics[split].totals["records"] if split in statistics else 0
        if found != expected:
            requirement = f"{expected} in {split}, as in the manifest"
            yield _anomaly("records_miscounted", "record_key", requirement, f"{found} records", REMAKE)


def _stated_too_little(statistics: Statistics, name: str, rule: Rule) -> Iterator[Anomaly]:
    if not rule.min_count or not name.startswith("label_states"):
        return
    stated = num_stated(statistics, name)
    if stated < rule.min_count:
        concept = "any concept" if name == "label_states" else "this concept"
        requirement = f"stated in at least {rule.min_count} of the records"
        advice = "Look at the archive's label table and the concept table, or lower min_count in the schema."
        received = f"{stated} records with a state of {concept}"
        yield _anomaly("label_never_said", name, requirement, received, advice)


def _missing_values(split: str, own: Tally, name: str, rule: Rule) -> Iterator[Anomaly]:
    present, num_records = own.lengths.get(name, Counter()).total(), own.totals["records"]
    if name.startswith("label_states/") and name not in own.categories:
        advice = "Make the records again with this concept table, or edit the schema."
        yield _anomaly("missing_feature", name, f"in the records of {split}", "none", advice)
    if present < rule.min_fraction * num_records:
        requirement = f"in at least {100 * rule.min_fraction:g} % of the records"
        received = f"{present} of {num_records} records of {split}"
        yield _anomaly("missing_feature", name, requirement, received, REMAKE)


def _unknown_values(split: str, own: Tally, name: str, rule: Rule) -> Iterator[Anomaly]:
    counts = own.categories.get(name, Counter())
    unknown = [f"{value} ({n} times)" for value, n in counts.most_common() if value not in rule.values]
    if rule.values and unknown:
        advice = "Map it in the source, or add it to the feature's values in the schema."
        requirement = f"one of {', '.join(sorted(rule.values))}"
        yield _anomaly("unknown_value", name, requirement, f"{', '.join(unknown[:5])} in {split}", advice)


def _wrong_size(split: str, own: Tally, name: str, rule: Rule) -> Iterator[Anomaly]:
    lengths, size = own.lengths.get(name, Counter()), math.prod(rule.shape)
    if rule.shape and lengths and lengths.keys() != {size}:
        requirement = f"of shape {' x '.join(map(str, rule.shape))}, {size} values"
        received = f"{' to '.join(map(str, sorted({min(lengths), max(lengths)})))} values in {split}"
        advice = "Decode or label again with the schema's sizes, or infer a new schema."
        yield _anomaly("wrong_size", name, requirement, received, advice)


def _anomaly(name: str, feature: str, requirement: str, received: str, advice: str) -> Anomaly:
    return Anomaly(name, feature, f"`{feature}` must be {requirement}. Received: {received}. {advice}")
