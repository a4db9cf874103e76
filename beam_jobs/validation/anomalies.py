"""What is wrong with a dataset, found in its statistics: against a schema, between splits, between runs."""

import collections
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2

from beam_jobs.validation.comparison import Difference, compare_histograms, compare_shares
from beam_jobs.validation.schema import num_said
from beam_jobs.validation.statistics_proto import common_stats, custom, features_by_name, value_counts

_Statistics = statistics_pb2.DatasetFeatureStatisticsList
_Type = anomalies_pb2.AnomalyInfo
_JSD = "jensen_shannon_divergence"
POSITIVE = "positive"
# Faults of single records: the anomaly, what a field must be, what to do.
_FAULTS = {
    "wrong_type": ("wrong_type", "of its type in every record", "Run the Beam job that made them again."),
    "wrong_shape": ("wrong_shape", "of the manifest's shape", "Run the Beam job that made them again."),
    "out_of_range": ("out_of_range", "a label state, 0 to 3", "Mend the job that codes the labels."),
    "unlike_shard": ("unlike_shard", "the split of its shard", "Run the Beam job that made them again."),
    "blank": ("blank_image", "a picture, not one shade", "Look at these files, and leave them out."),
    "empty": ("empty_sentence", "of at least one word", "Look at these reports, and label them again."),
    "repeated": ("record_twice", "in a split once", "Look for rows that the archive lists twice."),
}
_TYPES = {
    "wrong_type": _Type.UNEXPECTED_DATA_TYPE,
    "wrong_shape": _Type.INVALID_FEATURE_SHAPE,
    "out_of_range": _Type.INT_TYPE_BIG_INT,
}
# A picture twice in one split is counted and shown; archives hold such.
_ALLOWED = {("image", "repeated")}
_NOUNS = {"patient_id": "patient", "image": "image", "record_key": "record"}
_SHARED_ADVICE = {
    "patient_id": "Split by patient: leave the archive's own split out, or mend its lists.",
    "image": "The files are copies of each other: leave one out, or keep both in one split.",
    "record_key": "Look for rows that the archive lists twice.",
}


@dataclass(frozen=True)
class Anomaly:
    """Something that should not be.

    Attributes:
        name: its kind, such as "patient_in_two_splits".
        feature: of the statistics.
        sentence: what must hold, what was found, what to do.
        type: tensorflow-metadata's code.
    """

    name: str
    feature: str
    sentence: str
    type: int = _Type.CUSTOM_VALIDATION


@dataclass(frozen=True)
class Comparison:
    """A feature in a split, held against another one; what the page shows beside the anomalies.

    Attributes:
        feature: of the statistics.
        kind: "skew" (against train) or "drift" (against the last run).
        split: that is looked at.
        measure: "infinity_norm" or "jensen_shannon_divergence".
        threshold: of the schema.
        difference: see `comparison`.
    """

    feature: str
    kind: str
    split: str
    measure: str
    threshold: float
    difference: Difference

    @property
    def exceeds(self) -> bool:
        """Whether it is an anomaly."""
        return self.difference.exceeds(self.threshold)


def find_anomalies(
    statistics: _Statistics,
    schema: schema_pb2.Schema,
    comparisons: list[Comparison],
    num_records: Mapping[str, int],
) -> list[Anomaly]:
    """All anomalies of a dataset, in the order of features.

    Args:
        statistics: of the dataset.
        schema: inferred or given.
        comparisons: of `compare_splits` and `compare_runs`.
        num_records: of each split, by the manifest.
    """
    found = [*against_schema(statistics, schema), *faults(statistics), *_miscounted(statistics, num_records)]
    found += [_differs(comparison) for comparison in comparisons if comparison.exceeds]
    return sorted(found, key=lambda anomaly: (anomaly.feature, anomaly.name, anomaly.sentence))


def against_schema(statistics: _Statistics, schema: schema_pb2.Schema) -> Iterator[Anomaly]:
    """What the schema does not allow: missing or new features, values and sizes out of bounds."""
    known = {feature.name for feature in schema.feature}
    domains = {domain.name: set(domain.value) for domain in schema.string_domain}
    for name in sorted({name for split in statistics.datasets for name in features_by_name(split)} - known):
        if not name.startswith("sentences/label_states/"):  # these go with label_states/
            advice = "Add it to the schema, or use the concept table that it was made with."
            sentence = _sentence(name, "a feature of the schema", "one that it does not have", advice)
            yield Anomaly("new_feature", name, sentence, _Type.SCHEMA_NEW_COLUMN)
    for feature in schema.feature:
        if feature.lifecycle_stage in (schema_pb2.DEPRECATED, schema_pb2.PLANNED):
            continue
        yield from _said_too_little(statistics, feature)
        for split in statistics.datasets:
            own = features_by_name(split).get(feature.name)
            if own is None:
                advice = "Make the records again with this field and concept table, or edit the schema."
                sentence = _sentence(feature.name, f"in the records of {split.name}", "none", advice)
                yield Anomaly("missing_feature", feature.name, sentence, _Type.SCHEMA_MISSING_COLUMN)
                continue
            yield from _missing_values(split, own, feature)
            yield from _unknown_values(split, own, feature, domains)
            yield from _wrong_size(split, own, feature)


def faults(statistics: _Statistics) -> Iterator[Anomaly]:
    """Faults of single records, and patients, images and records that lie in two splits."""
    for split in statistics.datasets:
        for name, feature in features_by_name(split).items():
            seen = custom(feature)
            for fault, count in seen.items():
                keys = _keys(str(seen.get(f"{fault} examples", "")))
                if fault in _FAULTS and (name, fault) not in _ALLOWED:
                    yield _faulty(name, fault, f"{int(count)} in {split.name} that are not{keys}")
                elif fault.startswith("in_") and not fault.endswith("examples"):
                    one, _, other = fault.removeprefix("in_").partition("_and_")
                    noun = _NOUNS[name]
                    received = f"{int(count)} {noun if count == 1 else noun + 's'} in {one} and {other}{keys}"
                    sentence = _sentence(name, "in one split only", received, _SHARED_ADVICE[name])
                    yield Anomaly(f"{noun}_in_two_splits", name, sentence)


def _faulty(feature: str, fault: str, received: str) -> Anomaly:
    name, must, advice = _FAULTS[fault]
    sentence = _sentence(feature, must, received, advice)
    return Anomaly(name, feature, sentence, _TYPES.get(fault, _Type.CUSTOM_VALIDATION))


def _miscounted(statistics: _Statistics, num_records: Mapping[str, int]) -> Iterator[Anomaly]:
    read = {split.name: split.num_examples for split in statistics.datasets}
    for split, expected in num_records.items():
        if read.get(split, 0) != expected:
            must, found = f"{expected} in {split}, as in the manifest", f"{read.get(split, 0)} records"
            sentence = _sentence("record_key", must, found, "Run the Beam job that made them again.")
            yield Anomaly("records_miscounted", "record_key", sentence)


def compare_splits(statistics: _Statistics, schema: schema_pb2.Schema) -> list[Comparison]:
    """Every split against train, in all features for which the schema has a skew comparator."""
    splits = {split.name: split for split in statistics.datasets}
    if "train" not in splits:
        return []
    others = [split for name, split in splits.items() if name != "train"]
    return [c for split in others for c in _compare(split, splits["train"], schema, "skew")]


def compare_runs(
    statistics: _Statistics, baseline: _Statistics, schema: schema_pb2.Schema
) -> list[Comparison]:
    """Every split against the same one of the last run, in all features with a drift comparator."""
    before = {split.name: split for split in baseline.datasets}
    both = [split for split in statistics.datasets if split.name in before]
    return [c for split in both for c in _compare(split, before[split.name], schema, "drift")]


def to_proto(anomalies: list[Anomaly], comparisons: list[Comparison]) -> anomalies_pb2.Anomalies:
    """The anomalies as tensorflow-metadata writes them, with all measured skews and drifts."""
    result = anomalies_pb2.Anomalies()
    by_feature = collections.defaultdict(list)
    for anomaly in anomalies:
        by_feature[anomaly.feature].append(anomaly)
    for feature, own in by_feature.items():
        info = result.anomaly_info[feature]
        info.path.step.append(feature)
        info.severity = anomalies_pb2.AnomalyInfo.ERROR
        info.short_description = own[0].name if len(own) == 1 else "Multiple errors"
        info.description = " ".join(anomaly.sentence for anomaly in own)
        for anomaly in own:
            info.reason.add(type=anomaly.type, short_description=anomaly.name, description=anomaly.sentence)
    infos = {}
    for one in comparisons:
        if one.feature not in infos:
            infos[one.feature] = result.drift_skew_info.add()
            infos[one.feature].path.step.append(one.feature)
        measurement = getattr(infos[one.feature], f"{one.kind}_measurements").add()
        measurement.type = (
            measurement.JENSEN_SHANNON_DIVERGENCE if one.measure == _JSD else measurement.L_INFTY
        )
        measurement.value = one.difference.distance
        measurement.threshold = one.threshold + one.difference.chance
    return result


def as_text(anomalies: anomalies_pb2.Anomalies) -> str:
    """The text form."""
    return text_format.MessageToString(anomalies)


def num_patients(split: statistics_pb2.DatasetFeatureStatistics) -> int:
    """Different patients of a split."""
    feature = features_by_name(split).get("patient_id")
    return int(feature.string_stats.unique) if feature else 0


def _compare(split, other, schema: schema_pb2.Schema, kind: str) -> Iterator[Comparison]:
    features, others = features_by_name(split), features_by_name(other)
    patients = num_patients(split), num_patients(other)
    for entry in schema.feature:
        comparator = getattr(entry, f"{kind}_comparator")
        measure = next((m for m in ("infinity_norm", _JSD) if comparator.HasField(m)), "")
        if not measure:
            continue
        threshold = getattr(comparator, measure).threshold
        names = [entry.name]
        if entry.name == "sentences/label_states":
            names = [name for name in features if name.startswith("sentences/label_states/")]
        for name in names:
            if name in features and name in others:
                measured = _measure(features[name], others[name], measure, patients, kind)
                if measured is not None:
                    yield Comparison(name, kind, split.name, measure, threshold, measured)


def _measure(feature, other, measure: str, patients: tuple[int, int], kind: str) -> Difference | None:
    if measure == _JSD:
        counts, other_counts = histogram(feature), histogram(other)
        if len(counts) != len(other_counts):  # of an empty sample
            return None
        return compare_histograms(counts, other_counts, *patients)
    may_not_vanish = None
    counts, other_counts = value_counts(feature), value_counts(other)
    if POSITIVE in {*counts, *other_counts}:
        may_not_vanish = (POSITIVE,)
        if kind == "skew":
            counts, other_counts = _join_absent(counts), _join_absent(other_counts)
    elif kind == "skew":
        may_not_vanish = ()
    return compare_shares(counts, other_counts, *patients, may_not_vanish=may_not_vanish)


def _join_absent(counts: Mapping[str, int]) -> dict[str, int]:
    """Negative and not mentioned as one: evaluation splits are often labelled in full, train from reports."""
    joined = {"absent or not mentioned": 0}
    for state, count in counts.items():
        name = state if state in (POSITIVE, "uncertain") else "absent or not mentioned"
        joined[name] = joined.get(name, 0) + count
    return joined


def histogram(feature: statistics_pb2.FeatureNameStatistics) -> list[float]:
    """The counts of a numeric feature's bins; none where it has no values."""
    return [b.sample_count for h in feature.num_stats.histograms[:1] for b in h.buckets]


def _differs(one: Comparison) -> Anomaly:
    difference = one.difference
    other = "train" if one.kind == "skew" else f"{one.split} of the last run"
    if one.measure == _JSD:
        found = f"a Jensen-Shannon divergence of {difference.distance:.3f} bits"
        code = _Type.COMPARATOR_JENSEN_SHANNON_DIVERGENCE_HIGH
    else:
        found = (
            f"{100 * difference.share:.1f} % {difference.value!r}, there {100 * difference.other_share:.1f} %"
        )
        code = _Type.COMPARATOR_L_INFTY_HIGH
    must = f"in {one.split} about what it is in {other}"
    if not difference.vanished:
        must += f", within {one.threshold:g} and {difference.chance:.3f} for chance"
    advice = "Look for what was made in another way; where it is meant, " + (
        f"delete this feature's {one.kind}_comparator from the schema and name it with --schema."
        if difference.vanished
        else f"raise the threshold of this feature's {one.kind}_comparator in the schema."
    )
    return Anomaly(one.kind, one.feature, _sentence(one.feature, must, found, advice), code)


def _said_too_little(statistics: _Statistics, feature: schema_pb2.Feature) -> Iterator[Anomaly]:
    least = feature.presence.min_count
    if not least or not feature.name.startswith("label_states"):
        return
    said = num_said(statistics, feature.name)
    if said < least:
        what = "any concept" if feature.name == "label_states" else "this concept"
        must = f"said in at least {least} of the records"
        advice = "Look at the archive's label table and the concept table, or lower min_count in the schema."
        found = f"{said} records with a state of {what}"
        sentence = _sentence(feature.name, must, found, advice)
        yield Anomaly("label_never_said", feature.name, sentence, _Type.FEATURE_TYPE_LOW_NUMBER_PRESENT)


def _missing_values(split, own, feature: schema_pb2.Feature) -> Iterator[Anomaly]:
    least, present = feature.presence.min_fraction, common_stats(own).num_non_missing
    if least and present < least * split.num_examples:
        must = f"in at least {100 * least:g} % of the records"
        found = f"{present} of {split.num_examples} records of {split.name}"
        sentence = _sentence(feature.name, must, found, "Run the Beam job that made them again.")
        yield Anomaly("missing_feature", feature.name, sentence, _Type.FEATURE_TYPE_LOW_FRACTION_PRESENT)


def _unknown_values(split, own, feature: schema_pb2.Feature, domains: Mapping[str, set]) -> Iterator[Anomaly]:
    allowed = domains.get(feature.domain) or set(feature.string_domain.value)
    if not allowed:
        return
    unknown = {value: n for value, n in value_counts(own).items() if n and value not in allowed}
    if unknown:
        found = ", ".join(f"{value} ({n} times)" for value, n in list(unknown.items())[:5])
        must = f"one of {', '.join(sorted(allowed))}"
        advice = "Map it in the source, or add it to the schema's domain."
        sentence = _sentence(feature.name, must, f"{found} in {split.name}", advice)
        yield Anomaly("unknown_value", feature.name, sentence, _Type.ENUM_TYPE_UNEXPECTED_STRING_VALUES)


def _wrong_size(split, own, feature: schema_pb2.Feature) -> Iterator[Anomaly]:
    size = 1
    for dim in feature.shape.dim:
        size *= dim.size
    if not feature.HasField("shape"):
        return
    if feature.name == "image":
        sizes = {int(own.bytes_stats.min_num_bytes), int(own.bytes_stats.max_num_bytes_int)}
    else:
        sizes = {common_stats(own).min_num_values, common_stats(own).max_num_values}
    if common_stats(own).num_non_missing and sizes != {size}:
        must = f"of shape {' x '.join(str(d.size) for d in feature.shape.dim)}, {size} values"
        found = f"{' to '.join(map(str, sorted(sizes)))} values in {split.name}"
        advice = "Decode or label again with the schema's sizes, or infer a new schema."
        sentence = _sentence(feature.name, must, found, advice)
        yield Anomaly("wrong_size", feature.name, sentence, _Type.INVALID_FEATURE_SHAPE)


def _sentence(feature: str, must: str, received: str, advice: str) -> str:
    return f"`{feature}` must be {must}. Received: {received}. {advice}"


def _keys(examples: str) -> str:
    return f" (records {examples.replace(' ', ', ')})" if examples else ""
