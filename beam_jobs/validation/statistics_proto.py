"""Tallies to tensorflow-metadata's statistics, the form in which they are kept, compared and shown.

A feature of the statistics is a field of the records, or is derived from one: `label_states/Edema`,
`sentences/label_states/Edema`, `image/brightness`, `sentences/words` and `sentences/number`. What else was
seen of a field stands under its `custom_stats`: faults (`wrong_type`, `blank`, …) with the first record keys,
and for patients, images and records how many lie in two splits (`in_train_and_test`).
"""

import collections
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence

from tensorflow_metadata.proto.v0 import statistics_pb2

from beam_jobs.validation.facts import fields_of
from beam_jobs.validation.tallies import FieldTally, SightingTally, SplitTally
from medclip_keras.knowledge.states import LabelState
from medclip_keras.records.splits import SPLITS

STATES = tuple(state.name.lower() for state in LabelState)
BRIGHTNESS_EDGES = tuple(range(0, 257, 16))
WORD_EDGES = (0, 1, 2, 3, 4, 6, 8, 10, 12, 15, 20, 30, 50, math.inf)
NUMBER_EDGES = (0, 1, 2, 3, 4, 5, 6, 8, 10, 15, 20, math.inf)
WORDS, NUMBER, BRIGHTNESS = "sentences/words", "sentences/number", "image/brightness"
# Fields with few values, which are counted by value.
_COUNTED = ("split", "view", "sentences/section")
_SEEN_ONCE = {"patient": "patient_id", "image": "image", "record": "record_key"}
_Feature = statistics_pb2.FeatureNameStatistics
_INT, _FLOAT, _STRING, _BYTES = _Feature.INT, _Feature.FLOAT, _Feature.STRING, _Feature.BYTES


def to_proto(
    kind: str, concepts: Sequence[str], tallies: Mapping[str, SplitTally], sightings: SightingTally
) -> statistics_pb2.DatasetFeatureStatisticsList:
    """The statistics of a dataset: a `DatasetFeatureStatistics` for each split that has records.

    Args:
        kind: "images" or "reports".
        concepts: names of the concept table.
        tallies: split → its sums.
        sightings: of patients, images and records.
    """
    result = statistics_pb2.DatasetFeatureStatisticsList()
    for split in SPLITS:
        if split in tallies:
            tally = tallies[split]
            own = result.datasets.add(name=split, num_examples=tally.num_records)
            for name in sorted({*fields_of(kind), *tally.fields}):
                _add_field(own, name, kind, tally)
            _add_numbers(own, kind, tally)
            _add_concepts(own, "label_states", concepts, tally.states)
            _add_concepts(own, "sentences/label_states", concepts, tally.sentence_states)
            _add_sightings(own, sightings)
    return result


def features_by_name(
    dataset: statistics_pb2.DatasetFeatureStatistics,
) -> dict[str, statistics_pb2.FeatureNameStatistics]:
    """The features of a split's statistics by their names."""
    return {name_of(feature.path): feature for feature in dataset.features}


def name_of(path) -> str:
    """A path as a name.

    >>> from tensorflow_metadata.proto.v0 import path_pb2
    >>> name_of(path_pb2.Path(step=["label_states", "Edema"]))
    'label_states/Edema'
    """
    return "/".join(path.step)


def common_stats(feature: statistics_pb2.FeatureNameStatistics) -> statistics_pb2.CommonStatistics:
    """Presence and number of values, wherever the feature's type keeps them."""
    return getattr(feature, feature.WhichOneof("stats")).common_stats


def custom(feature: statistics_pb2.FeatureNameStatistics) -> dict[str, float | str]:
    """What else was seen of a feature: counts by name, and "<name> examples" with record keys."""
    return {one.name: one.num if one.WhichOneof("val") == "num" else one.str for one in feature.custom_stats}


def value_counts(feature: statistics_pb2.FeatureNameStatistics) -> dict[str, int]:
    """How often each value of a counted feature occurs."""
    return {bucket.label: int(bucket.sample_count) for bucket in feature.string_stats.rank_histogram.buckets}


def _add_field(dataset, name: str, kind: str, tally: SplitTally) -> None:
    value_type, _ = fields_of(kind).get(name, ("", None))
    feature_type = {"int64_list": _INT, "": _STRING}.get(value_type, _BYTES if name == "image" else _STRING)
    feature = dataset.features.add(type=feature_type)
    feature.path.step.append(name)
    field_tally = tally.fields.get(name, FieldTally())
    stats = {_INT: feature.num_stats, _BYTES: feature.bytes_stats, _STRING: feature.string_stats}[
        feature_type
    ]
    common = stats.common_stats
    common.num_non_missing = field_tally.num_present
    common.num_missing = tally.num_records - field_tally.num_present
    common.tot_num_values = field_tally.num_values
    common.min_num_values, common.max_num_values = field_tally.fewest or 0, field_tally.most
    common.avg_num_values = field_tally.num_values / max(field_tally.num_present, 1)
    if name in _COUNTED:
        _add_values(feature, tally.words.get(name, {}))
    if name == "image" and tally.image_bytes:
        lengths = tally.image_bytes
        stats.min_num_bytes, stats.max_num_bytes = min(lengths), max(lengths)
        stats.max_num_bytes_int = max(lengths)
        stats.avg_num_bytes = _mean(lengths)
    if name == "label_states":
        feature.custom_stats.add(name="labelled_records", num=tally.num_labelled)
    for (field, fault), count in sorted(tally.faults.items()):
        if field == name:
            _add_custom(feature, fault, count, tally.examples[field, fault])


def _add_values(feature, counts: Mapping[str, int]) -> None:
    feature.string_stats.unique = len(counts)
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    for rank, (value, count) in enumerate(ranked):
        feature.string_stats.rank_histogram.buckets.add(
            low_rank=rank, high_rank=rank, label=value, sample_count=count
        )


def _add_numbers(dataset, kind: str, tally: SplitTally) -> None:
    if kind == "images":
        brightness = collections.Counter({k / 16: count for k, count in tally.brightness.items()})
        _add_number(dataset, BRIGHTNESS, _FLOAT, brightness, BRIGHTNESS_EDGES)
    _add_number(dataset, WORDS, _INT, tally.sentence_words, WORD_EDGES)
    _add_number(dataset, NUMBER, _INT, tally.record_sentences, NUMBER_EDGES)


def _add_number(
    dataset, name: str, feature_type, counts: Mapping[float, int], edges: Sequence[float]
) -> None:
    feature = dataset.features.add(type=feature_type)
    feature.path.step.extend(name.rsplit("/", 1))
    stats, total = feature.num_stats, sum(counts.values())
    stats.common_stats.num_non_missing = stats.common_stats.tot_num_values = total
    if not total:
        return
    stats.mean, stats.num_zeros = _mean(counts), counts.get(0, 0)
    squares = sum(value * value * count for value, count in sorted(counts.items())) / total
    stats.std_dev = math.sqrt(max(squares - stats.mean**2, 0.0))
    stats.min, stats.median, stats.max = min(counts), _median(counts), max(counts)
    histogram = stats.histograms.add(type=statistics_pb2.Histogram.STANDARD)
    for low, high in itertools.pairwise(edges):
        inside = sum(count for value, count in counts.items() if low <= value < high)
        histogram.buckets.add(low_value=low, high_value=high, sample_count=inside)


def _add_concepts(dataset, field: str, concepts: Sequence[str], counts) -> None:
    for name, row in zip(concepts, counts, strict=True):
        feature = dataset.features.add(type=_INT)
        feature.path.step.extend((field, name))
        total, silent = int(row.sum()), int(row[LabelState.NOT_MENTIONED])
        feature.string_stats.common_stats.num_non_missing = total - silent
        feature.string_stats.common_stats.num_missing = silent
        _add_values(feature, {state: int(count) for state, count in zip(STATES, row, strict=True)})


def _add_sightings(dataset, sightings: SightingTally) -> None:
    features = features_by_name(dataset)
    for what, name in _SEEN_ONCE.items():
        if name not in features:
            continue
        feature, split = features[name], dataset.name
        unique = sightings.unique[what, split]
        stats = feature.bytes_stats if name == "image" else feature.string_stats
        stats.unique = unique
        if what != "patient":
            keys = sightings.examples.get((what, split), [])
            _add_custom(feature, "repeated", sightings.repeated[what, split], keys)
        for (other, pair), count in sorted(sightings.shared.items()):
            if other == what and split == pair[1]:
                _add_custom(feature, f"in_{pair[0]}_and_{pair[1]}", count, sightings.examples[what, pair])


def _add_custom(feature, name: str, count: int, keys: Iterable[str]) -> None:
    if count:
        feature.custom_stats.add(name=name, num=count)
        feature.custom_stats.add(name=f"{name} examples", str=" ".join(keys))


def _mean(counts: Mapping[float, int]) -> float:
    return sum(value * count for value, count in sorted(counts.items())) / sum(counts.values())


def _median(counts: Mapping[float, int]) -> float:
    half, seen = sum(counts.values()) / 2, 0
    for value, count in sorted(counts.items()):
        seen += count
        if seen >= half:
            return value
    raise ValueError("no values")
