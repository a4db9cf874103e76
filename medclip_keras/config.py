"""The configuration of a run: frozen dataclasses, validated when built, replayed from `run.json`."""

import dataclasses
import difflib
import json
from dataclasses import dataclass, field
from typing import Any, Literal

import pydantic

from medclip_keras.errors import near_names, require
from medclip_keras.objectives.catalogue import OBJECTIVES

_STRICT = pydantic.ConfigDict(extra="forbid")


@dataclass(frozen=True)
class RawInput:
    """Raw files of one archive, of which the pipeline makes records. `$NAME` in a path is expanded."""

    __pydantic_config__ = _STRICT
    source: str
    images: str = ""  # file or folder that holds the images; empty: none are read
    reports: str = ""  # file or folder that holds the reports; empty: none are read
    hold_out: tuple[str, ...] = ()  # evaluation sets whose patients are left out, NAME or NAME=PATH


@dataclass(frozen=True)
class PhantomConfig:
    """How many synthetic studies the pipeline draws before it starts; see `sources.phantom`."""

    __pydantic_config__ = _STRICT
    num_paired: int = 1200
    num_image_only: int = 400
    num_text_only: int = 400
    image_size: int = 80  # side of the drawn images


@dataclass(frozen=True)
class DataConfig:
    """Which records, and how batches are made of them."""

    __pydantic_config__ = _STRICT
    phantom: PhantomConfig | None = None  # synthetic studies that `pipeline` makes
    raw: tuple[RawInput, ...] = ()  # raw archives that `pipeline` starts from
    images: tuple[str, ...] = ()  # folders of image records
    texts: tuple[str, ...] = ()  # folders of report records
    concepts: str = "chest21"  # a concept table's name or file
    split_fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)  # train, valid, test; by patient
    stored_image_size: int = 256  # side of the decoded images in the shards
    balance: bool = True  # repeat-factor draws, so that rare findings are seen as often as common ones
    shuffle_buffer: int = 2048  # records held in memory to shuffle
    # Which sentence meets which image: independent draws; own_report: a random one of the image's own report,
    # where it has one; label_overlap: the same, and other images meet one that shares a finding with them, as
    # in MedCLIP's released code; pairs: images without a report are left out; auto: what the objective is
    # made for.
    pairing: Literal["auto", "independent", "own_report", "label_overlap", "pairs"] = "auto"
    paired_share: float = 1.0  # of the studies with image and report, those that are trained on; by hash
    text_unit: Literal["sentence", "report"] = "sentence"  # report: all sentences of the own report as one
    uncertain: Literal["positive", "negative", "half", "ignored"] = "positive"
    coding: Literal["multi_hot", "signed"] = "multi_hot"
    closure: bool = False  # a present child makes its parent present, an absent parent its children absent
    unlabelled_sentence: Literal["zero", "no_finding"] = "zero"
    min_words: int = 3  # shorter sentences are left out
    max_tokens: int = 77
    allow_anomalies: bool = False  # train on records in which validate_records finds anomalies

    def __post_init__(self):
        require(self.stored_image_size >= 16, "data.stored_image_size", "at least 16", self.stored_image_size)
        require(
            min(self.split_fractions) >= 0 and abs(sum(self.split_fractions) - 1) < 1e-6,
            "data.split_fractions",
            "three shares that sum to 1",
            self.split_fractions,
        )
        require(self.shuffle_buffer >= 1, "data.shuffle_buffer", "at least 1", self.shuffle_buffer)
        require(0 < self.paired_share <= 1, "data.paired_share", "in (0, 1]", self.paired_share)
        require(self.max_tokens >= 3, "data.max_tokens", "at least 3 ([CLS], a word, [SEP])", self.max_tokens)


@dataclass(frozen=True)
class AugmentConfig:
    """Random changes of training images; the defaults are MedCLIP's released ones."""

    __pydantic_config__ = _STRICT
    flip: float = 0.5  # probability of a horizontal flip; it mirrors the heart
    brightness: float = 0.2  # up to this share of the value range is added
    contrast: float = 0.2  # factor drawn from [1 - contrast, 1 + contrast]
    rotation_degrees: float = 10.0
    translation: float = 0.0625  # share of the side
    scale: tuple[float, float] = (0.8, 1.1)
    crop: bool = True  # random crop of image_size from the stored side; False: resize
    crop_share: tuple[float, float] = (1.0, 1.0)  # share of that crop's side which is kept and enlarged
    blur_sigma: tuple[float, float] = (0.0, 0.0)  # Gaussian, pixels of an image of side 224

    def __post_init__(self):
        low, high = self.crop_share
        require(0 < low <= high <= 1, "augment.crop_share", "two ascending shares in (0, 1]", self.crop_share)
        low, high = self.blur_sigma
        require(0 <= low <= high, "augment.blur_sigma", "two ascending widths, 0 or more", self.blur_sigma)


@dataclass(frozen=True)
class ImageEncoderConfig:
    """The image tower."""

    __pydantic_config__ = _STRICT
    backbone: str = "resnet50"  # a name of models.image_encoder.BACKBONES
    preset: str = ""  # anything keras-hub loads, a local folder of Hugging Face weights too; empty: random
    image_size: int = 224  # side of the images that the encoder is given
    upsampled_size: int = 0  # side the backbone sees, where that is to be another
    width: int = 32  # first stage's channels, small_resnet only


@dataclass(frozen=True)
class TextEncoderConfig:
    """The text tower."""

    __pydantic_config__ = _STRICT
    preset: str = ""  # anything keras-hub's BertBackbone loads; empty: random weights of the sizes below
    num_layers: int = 12
    num_heads: int = 12
    hidden_dim: int = 768
    intermediate_dim: int = 3072
    dropout: float = 0.1
    max_positions: int = 0  # rows of the position table; 0: data.max_tokens
    hidden_states: Literal["first_two_and_last", "last", "last_four"] = "first_two_and_last"
    pooling: Literal["masked_mean", "padded_mean", "max"] = "masked_mean"
    frozen_layers: int = 0  # so many transformer layers, and the embeddings, keep their weights
    projection_bias: bool = False  # some released weights have one
    vocabulary: str = ""  # wordpiece file; empty: the preset's, or learned from the training split
    vocabulary_size: int = 8000  # when learned
    lower_case: bool = True


@dataclass(frozen=True)
class ModelConfig:
    """The dual encoder."""

    __pydantic_config__ = _STRICT
    image: ImageEncoderConfig = field(default_factory=ImageEncoderConfig)
    text: TextEncoderConfig = field(default_factory=TextEncoderConfig)
    projection_dim: int = 512
    projection: Literal["linear", "mlp"] = "linear"  # mlp: one hidden layer with a ReLU before it, as ConVIRT
    initial_temperature: float = 0.07
    max_logit_scale: float = 100.0


@dataclass(frozen=True)
class ObjectiveConfig:
    """The loss (a function of `objectives`) and the switches of label matching (paper against code)."""

    __pydantic_config__ = _STRICT
    name: str = "semantic_matching"  # a row of objectives.catalogue
    instance_weight: float = 0.5  # mixed_matching: how much an own pair counts against shared findings
    similarity: Literal["cosine", "dot"] = "cosine"
    target_temperature: float = 1.0
    concept_weights: Literal["none", "idf"] = "none"  # idf: rare findings count more; of the training split
    tree_closeness: float = 0.0  # 0 to 1: how far findings that share an ancestor count as the same

    def __post_init__(self):
        names = ", ".join(OBJECTIVES)
        known = self.name in OBJECTIVES
        require(known, "objective.name", f"one of {names}", self.name, near_names(self.name, OBJECTIVES))
        require(
            self.target_temperature > 0, "objective.target_temperature", "positive", self.target_temperature
        )
        require(0 <= self.tree_closeness <= 1, "objective.tree_closeness", "in [0, 1]", self.tree_closeness)
        require(
            0 <= self.instance_weight <= 1, "objective.instance_weight", "in [0, 1]", self.instance_weight
        )


@dataclass(frozen=True)
class TrainConfig:
    """Optimisation."""

    __pydantic_config__ = _STRICT
    batch_size: int = 100  # images a step, and sentences a step, over all replicas
    epochs: float = 10.0  # passes over the images; used where `steps` is 0
    steps: int = 0
    learning_rate: float = 2e-5
    schedule: Literal["cosine", "plateau"] = "cosine"  # after the warm-up; plateau: halved where it stalls
    plateau_patience: int = 5  # validations without a better one before the rate is halved
    warmup_fraction: float = 0.1  # cosine only
    weight_decay: float = 1e-4
    clip_norm: float = 1.0
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    strategy: Literal["auto", "one_device", "mirrored"] = "auto"
    validate_every: int = 500  # steps
    checkpoint_every: int = 500  # steps
    log_every: int = 20  # steps

    def __post_init__(self):
        require(self.batch_size >= 2, "train.batch_size", "at least 2", self.batch_size)
        require(self.steps >= 0, "train.steps", "0 (use epochs) or more", self.steps)
        require(self.learning_rate > 0, "train.learning_rate", "positive", self.learning_rate)
        require(0 <= self.warmup_fraction < 1, "train.warmup_fraction", "in [0, 1)", self.warmup_fraction)
        require(self.clip_norm > 0, "train.clip_norm", "positive", self.clip_norm)
        require(self.plateau_patience >= 1, "train.plateau_patience", "at least 1", self.plateau_patience)


@dataclass(frozen=True)
class EvaluationConfig:
    """What is measured at the end of a run, on the test split."""

    __pydantic_config__ = _STRICT
    # single_finding: accuracy among images that are positive for exactly one of `findings` (the x200 sets);
    # multi_label: one AUROC a finding over all images ("Abnormal" is: No Finding not positive).
    task: Literal["single_finding", "multi_label"] = "single_finding"
    findings: tuple[str, ...] = (
        "Atelectasis",
        "Cardiomegaly",
        "Consolidation",
        "Edema",
        "Pleural Effusion",
    )
    per_class: int = 200  # images a class, at most; single_finding only
    prompts: str = ""  # JSON file {finding: [prompt, …]}; empty: the shipped ones
    num_prompts: int = 10  # prompts a finding, at most
    tasks: tuple[Literal["zero_shot", "retrieval", "probe"], ...] = ("zero_shot", "retrieval")
    probe_fractions: tuple[float, ...] = (1.0,)  # shares of the training images that linear probes learn from
    bootstrap: int = 1000  # resamples behind the 95 % intervals

    def __post_init__(self):
        require(
            len(self.probe_fractions) > 0 and all(0 < share <= 1 for share in self.probe_fractions),
            "evaluation.probe_fractions",
            "shares over 0 and up to 1",
            self.probe_fractions,
            "Example: [1.0, 0.1, 0.01].",
        )


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides a run's bytes, but for the input files."""

    __pydantic_config__ = _STRICT
    name: str
    seed: int = 0
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    def __post_init__(self):
        require(
            self.model.image.image_size <= self.data.stored_image_size,
            "model.image.image_size",
            f"at most data.stored_image_size ({self.data.stored_image_size})",
            self.model.image.image_size,
        )
        only_pairs = OBJECTIVES[self.objective.name].pairing == "pairs"
        require(
            not only_pairs or self.pairing == "pairs",
            "data.pairing",
            f"auto or pairs for the objective {self.objective.name}, which learns from pairs alone",
            self.data.pairing,
        )
        require(
            self.data.text_unit == "sentence" or self.pairing == "pairs",
            "data.text_unit",
            "sentence unless data.pairing is pairs: reports are not drawn independently of images",
            self.data.text_unit,
        )

    @property
    def pairing(self) -> str:
        """`data.pairing`; "auto" is what the objective is made for."""
        auto = self.data.pairing == "auto"
        return OBJECTIVES[self.objective.name].pairing if auto else self.data.pairing


_ADAPTER = pydantic.TypeAdapter(RunConfig)


def to_dict(config: RunConfig) -> dict:
    """The configuration as JSON types."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_dict(values: dict) -> RunConfig:
    """Builds a run from JSON types; the inverse of `to_dict`.

    Raises:
        ValueError: an unknown field (with the near names), a wrong type or a value out of range.
    """
    try:
        return _ADAPTER.validate_python(values)
    except pydantic.ValidationError as error:
        raise ValueError(_sentence(error)) from None


def override(config: RunConfig, assignments: list[str]) -> RunConfig:
    """Applies `--set a.b=c` assignments; values are JSON where they parse as JSON, else strings.

    >>> override(RunConfig("mine"), ["train.steps=10"]).train.steps
    10

    Raises:
        ValueError: an assignment without "=", an unknown field (with the near names), a bad value.
    """
    values = to_dict(config)
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        require(bool(equals), "--set", "of the form a.b=c", assignment)
        *parents, leaf = path.split(".")
        node = values
        for name in (*parents, leaf):
            if not isinstance(node, dict) or name not in node:
                raise ValueError(_unknown_field(path))
            node, parent = node[name], node
        try:
            parent[leaf] = json.loads(text)
        except json.JSONDecodeError:
            parent[leaf] = text
    return from_dict(values)


def field_values(config: RunConfig) -> dict[str, Any]:
    """Every field by its path, as JSON types.

    >>> field_values(RunConfig("mine"))["train.batch_size"]
    100
    """
    return _flat(to_dict(config))


def _flat(values: dict, prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def _unknown_field(path: str) -> str:
    known = list(field_values(RunConfig("any")))
    leaf = path.rpartition(".")[2]
    near = difflib.get_close_matches(path, known, 3) or [p for p in known if p.rpartition(".")[2] == leaf]
    near = near or difflib.get_close_matches(leaf, [p.rpartition(".")[2] for p in known], 3)
    advice = f"Near names: {', '.join(near)}." if near else f"Known fields: {', '.join(known)}."
    return f"`{path}` must be a field of the run. {advice}"


def _sentence(error: pydantic.ValidationError) -> str:
    first = error.errors()[0]
    path = ".".join(str(part) for part in first["loc"])
    if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return _unknown_field(path)
    message = first["msg"].removeprefix("Value error, ")
    if message.startswith("`"):
        return message
    return f"`{path}` must be valid: {message}. Received: {first.get('input')!r}."
