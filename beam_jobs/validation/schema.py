"""The schema of a dataset as JSON: a rule for each field and each derived feature.

    {"image": {"min_fraction": 1.0, "shape": [256, 256, 1]}, "view": {"values": ["frontal", "lateral"], …}, …}

A derived feature is a concept (`label_states/Edema`) or a number (`image/brightness`, `sentences/words`,
`sentences/number`); the rule of `sentences/label_states` holds for each concept of the sentences.
"""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Annotated

from etils import epath
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from beam_jobs.validation.facts import BRIGHTNESS, NUMBER, WORDS, fields_of
from beam_jobs.validation.statistics import Statistics
from medclip_keras.errors import refusal, require
from medclip_keras.records.manifest import Manifest
from medclip_keras.records.splits import SPLITS

SCHEMA_NAME, OLD_SCHEMA_NAME = "schema.json", "schema.pbtxt"
VIEWS = ("frontal", "lateral")
DEFAULT_THRESHOLD = 0.1  # a smaller difference of shares does not matter
VIEW_SKEW_THRESHOLD = 0.5  # many evaluation sets have frontal images alone
_ALWAYS = ("record_key", "study_id", "patient_id", "split", "image", "label_states")

Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Rule:
    """Rule for one feature."""

    min_fraction: Share = 0.0  # share of a split's records that must have the field
    # records of the dataset that must state the concept; of `label_states`, any concept
    min_count: Annotated[int, Field(ge=0)] = 0
    shape: tuple[Annotated[int, Field(ge=1)], ...] = ()  # of a record's values; () is free
    values: tuple[str, ...] = ()  # allowed values; () is free
    # allowed difference between a split and train (see `comparison`); None is free
    max_skew: Share | None = None
    max_drift: Share | None = None  # allowed difference between a split and the same split of the baseline


Schema = dict[str, Rule]
_AS_JSON = TypeAdapter(Schema)


def infer_schema(manifest: Manifest, concepts: Sequence[str], statistics: Statistics) -> Schema:
    """Schema of this project's records, with the sizes and the concepts of this dataset.

    It is not fitted to values: an unknown view stays unknown however often it occurs.
    """
    compared = Rule(max_skew=DEFAULT_THRESHOLD, max_drift=DEFAULT_THRESHOLD)
    side = manifest.image_size
    special = {
        "split": Rule(values=SPLITS),
        "view": Rule(values=VIEWS, max_skew=VIEW_SKEW_THRESHOLD, max_drift=DEFAULT_THRESHOLD),
        "view_position": Rule(values=("AP", "PA", "LATERAL")),
        "sex": Rule(values=("F", "M")),
        "image": Rule(shape=(side, side, 1) if side else ()),
        "label_states": Rule(shape=(manifest.num_findings,), min_count=1),
        "sentences/section": compared,
        "sentences/label_states": compared,
    }
    schema = {}
    for name in fields_of(manifest.kind, manifest.num_findings):
        always = name in _ALWAYS or (manifest.kind == "reports" and name.startswith("sentences/"))
        schema[name] = dataclasses.replace(special.get(name, Rule()), min_fraction=float(always))
    numbers = (WORDS, NUMBER) if manifest.kind == "reports" else (BRIGHTNESS, WORDS, NUMBER)
    schema |= dict.fromkeys(numbers, compared)
    for name in (f"label_states/{concept}" for concept in concepts):
        schema[name] = dataclasses.replace(compared, min_count=int(num_stated(statistics, name) > 0))
    return schema


def num_stated(statistics: Statistics, name: str) -> int:
    """Records of the dataset that state a concept; of "label_states", any concept."""
    if name == "label_states":
        return sum(split.totals["labelled"] for split in statistics.values())
    counts = [split.categories.get(name, Counter()) for split in statistics.values()]
    return sum(own.total() - own["not_mentioned"] - own["unlabelled"] for own in counts)


def to_json(schema: Schema) -> str:
    """A schema as the text of its file; defaults are left out."""
    return _AS_JSON.dump_json(schema, indent=1, exclude_defaults=True).decode() + "\n"


def read_schema(path: epath.PathLike) -> Schema:
    """Read a schema that was written, and perhaps edited.

    Raises:
        ValueError: no such file, one of the last version, or not a schema.
    """
    path, requirement = epath.Path(path), f"a {SCHEMA_NAME} of validate_records"
    require(path.exists(), "--schema", requirement, str(path))
    if path.suffix == ".pbtxt":
        advice = (
            "Move it away, validate once without --schema, and repeat your edits in the schema.json that is "
            "written."
        )
        raise refusal(
            "--schema", f"{requirement}; {OLD_SCHEMA_NAME} is of an earlier version", str(path), advice
        )
    try:
        return _AS_JSON.validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        fault = f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}"
        advice = "Correct it, or leave --schema out to have one inferred."
        raise refusal("--schema", "rules by feature, as JSON", fault, advice) from None
