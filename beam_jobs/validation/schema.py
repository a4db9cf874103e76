"""The schema of a dataset as tensorflow-metadata writes it: inferred once, then kept and edited by its owner.

Beside the fields it has an entry for each derived feature (see `statistics_proto`). In all of them

- `presence { min_fraction: 1 }` is the share of a split's records that must have the feature;
- `presence { min_count: 1 }` of `label_states/Edema` is how many of the dataset's records must say something
  of Edema; of `label_states`, say something of any concept;
- `string_domain` and `int_domain` list what a value may be; `shape` has the image's sides in pixels;
- `skew_comparator` bounds how far a split may differ from train, `drift_comparator` how far one may differ
  from the same split of the last run: what `anomalies` says of thresholds.
"""

from collections.abc import Sequence

from etils import epath
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from beam_jobs.validation.facts import NUM_STATES, fields_of
from beam_jobs.validation.statistics_proto import (
    BRIGHTNESS,
    NUMBER,
    WORDS,
    common_stats,
    custom,
    features_by_name,
)
from medclip_keras.errors import require
from medclip_keras.records.manifest import Manifest
from medclip_keras.records.splits import SPLITS

SCHEMA_NAME = "schema.pbtxt"
VIEWS = ("frontal", "lateral")
# The least difference between two shares, or the least Jensen-Shannon divergence in bits between two
# histograms, that matters at all; what chance explains is added to it. A tenth of a bit is what two normal
# distributions that lie three quarters of a standard deviation apart differ by.
DEFAULT_THRESHOLD = 0.1
VIEW_SKEW_THRESHOLD = 0.5
# Fields whose every record has exactly one value.
_ALWAYS = ("record_key", "study_id", "patient_id", "split", "image", "label_states")
_HEAD = (
    "# What records of {kind} are allowed to be: python -m beam_jobs.validate_records --schema THIS_FILE.\n"
    "# Edit it: a presence, a domain, a threshold of skew (against train) or drift (against --baseline).\n"
)


def infer_schema(
    manifest: Manifest, statistics: statistics_pb2.DatasetFeatureStatisticsList
) -> schema_pb2.Schema:
    """The schema that this project's records always have, with the sizes and the concepts of these.

    It is not fitted to values: an unknown view stays unknown however often it occurs.
    """
    schema = schema_pb2.Schema()
    schema.string_domain.add(name="split", value=SPLITS)
    schema.string_domain.add(name="view", value=VIEWS)
    for name, (value_type, _) in fields_of(manifest.kind).items():
        feature = schema.feature.add(name=name)
        feature.type = schema_pb2.INT if value_type == "int64_list" else schema_pb2.BYTES
        feature.presence.min_fraction = float(name in _ALWAYS or _is_said(name, manifest.kind))
        _constrain(feature, manifest)
    if manifest.kind == "images":
        _add_derived(schema, BRIGHTNESS, schema_pb2.FLOAT)
    _add_derived(schema, WORDS, schema_pb2.INT)
    _add_derived(schema, NUMBER, schema_pb2.INT)
    for name in _concepts(statistics):
        feature = _add_derived(schema, name, schema_pb2.INT)
        feature.presence.min_count = int(num_said(statistics, name) > 0)
    return schema


def as_text(schema: schema_pb2.Schema, kind: str) -> str:
    """A schema as the text of its file, with a line on how to edit it."""
    return _HEAD.format(kind=kind) + text_format.MessageToString(schema)


def read_schema(path: epath.PathLike) -> schema_pb2.Schema:
    """Reads a schema that was written, and perhaps edited.

    Raises:
        ValueError: no such file, or not a schema; the sentence says where it ends to be one.
    """
    path = epath.Path(path)
    require(path.exists(), "--schema", "a schema.pbtxt that validate_records wrote", str(path))
    try:
        return text_format.Parse(path.read_text(), schema_pb2.Schema())
    except (text_format.ParseError, UnicodeDecodeError) as error:
        where = str(error).splitlines()[0][:120] if isinstance(error, text_format.ParseError) else "not text"
        raise ValueError(
            f"`--schema` must be a tensorflow-metadata Schema as text. Received: {str(path)!r} ({where}). "
            "Mend that line, or leave --schema out to have one inferred."
        ) from None


def _is_said(name: str, kind: str) -> bool:
    return kind == "reports" and name.startswith("sentences/")


def _constrain(feature: schema_pb2.Feature, manifest: Manifest) -> None:
    name = feature.name
    if name in ("split", "view"):
        feature.domain = name
    if name.endswith("label_states"):
        feature.int_domain.min, feature.int_domain.max = 0, NUM_STATES - 1
        feature.int_domain.is_categorical = True
    if name == "label_states":
        feature.presence.min_count = 1
        feature.shape.dim.add(name="concept", size=manifest.num_findings)
    if name == "image":
        feature.image_domain.SetInParent()
        for side, size in (
            ("height", manifest.image_size),
            ("width", manifest.image_size),
            ("channel", 1),
        ):
            feature.shape.dim.add(name=side, size=size)
    if name in ("view", "sentences/section", "sentences/label_states"):
        _compare(feature, "infinity_norm")
    if name == "view":  # many an evaluation set is frontal alone
        feature.skew_comparator.infinity_norm.threshold = VIEW_SKEW_THRESHOLD


def _add_derived(schema: schema_pb2.Schema, name: str, feature_type) -> schema_pb2.Feature:
    feature = schema.feature.add(name=name, type=feature_type)
    source, deriver = name.rsplit("/", 1)
    feature.validation_derived_source.deriver_name = "state" if source == "label_states" else deriver
    feature.validation_derived_source.source_path.add().step.append(
        "sentences/text" if source == "sentences" else source
    )
    if source == "label_states":
        feature.int_domain.min, feature.int_domain.max = 0, NUM_STATES - 1
        feature.int_domain.is_categorical = True
    _compare(feature, "infinity_norm" if source == "label_states" else "jensen_shannon_divergence")
    return feature


def _compare(feature: schema_pb2.Feature, measure: str) -> None:
    for comparator in (feature.skew_comparator, feature.drift_comparator):
        getattr(comparator, measure).threshold = DEFAULT_THRESHOLD


def _concepts(statistics: statistics_pb2.DatasetFeatureStatisticsList) -> Sequence[str]:
    names = {name: None for split in statistics.datasets for name in features_by_name(split)}
    return [name for name in names if name.startswith("label_states/")]


def num_said(statistics: statistics_pb2.DatasetFeatureStatisticsList, name: str) -> int:
    """How many records of the dataset say something of a concept, or of any for "label_states"."""
    own = filter(None, (features_by_name(split).get(name) for split in statistics.datasets))
    if name == "label_states":
        return sum(int(custom(feature).get("labelled_records", 0)) for feature in own)
    return sum(common_stats(feature).num_non_missing for feature in own)
