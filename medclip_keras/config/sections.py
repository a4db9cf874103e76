"""The sections of a run's configuration: every field with its default and its meaning."""

from dataclasses import field
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from medclip_keras.config.validation import (
    Count,
    ImageSide,
    NotNegative,
    Positive,
    PositiveCount,
    PositiveShare,
    Share,
    ascending,
    section,
    sum_to_one,
)
from medclip_keras.errors import require
from medclip_keras.objectives.catalogue import OBJECTIVES


def _known_objective(name: str) -> str:
    if name not in OBJECTIVES:
        raise ValueError(f"one of {', '.join(OBJECTIVES)}")
    return name


@section("data.raw")
class RawInput:
    """Raw files of one archive, input of the pipeline. `$NAME` in a path is expanded."""

    source: str
    images: str = ""  # file or folder of the images; empty: no images
    reports: str = ""  # file or folder of the reports; empty: no reports
    hold_out: tuple[str, ...] = ()  # evaluation sets whose patients are excluded, NAME or NAME=PATH


@section("data.phantom")
class PhantomConfig:
    """Counts of synthetic studies that the pipeline draws first; see `sources.phantom`."""

    num_paired: Count = 1200
    num_image_only: Count = 400
    num_text_only: Count = 400
    image_size: ImageSide = 80  # side of the drawn images


@section("data")
class DataConfig:
    """Records, and how batches are drawn from them."""

    phantom: PhantomConfig | None = None  # synthetic studies that `pipeline` makes
    raw: tuple[RawInput, ...] = ()  # raw archives that `pipeline` starts from
    images: tuple[str, ...] = ()  # folders of image records
    texts: tuple[str, ...] = ()  # folders of report records
    concepts: str = "chest21"  # a concept table's name or file
    split_fractions: Annotated[tuple[Share, Share, Share], AfterValidator(sum_to_one)] = (
        0.8,
        0.1,
        0.1,
    )  # train, valid, test; by patient
    stored_image_size: ImageSide = 256  # side of the decoded images in the shards
    balance: bool = True  # repeat-factor draws, so that rare findings are seen as often as common ones
    shuffle_buffer: PositiveCount = 2048  # records held in memory to shuffle
    # independent: sentences are drawn independently of images. own_report: a random sentence of the image's
    # own report, if any. label_overlap: own_report; an image without a report gets a sentence that shares a
    # finding, as in MedCLIP's released code. pairs: skip images without a report. auto: by objective.
    pairing: Literal["auto", "independent", "own_report", "label_overlap", "pairs"] = "auto"
    patient_share: PositiveShare = 1.0  # share of the training patients to learn from, chosen by hash
    paired_share: PositiveShare = 1.0  # share of the paired studies to train on, chosen by hash
    text_unit: Literal["sentence", "report"] = "sentence"  # report: all sentences of the own report as one
    uncertain: Literal["positive", "negative", "half", "ignored"] = "positive"
    # labelled: concepts that an image's archive does not label leave both label vectors of a pair, as
    # uncertain ones do with `ignored`. all: they count as not mentioned.
    known_concepts: Literal["labelled", "all"] = "labelled"
    coding: Literal["multi_hot", "signed"] = "multi_hot"
    closure: bool = False  # a present child makes its parent present, an absent parent its children absent
    unlabelled_sentence: Literal["zero", "no_finding"] = "zero"
    min_words: Count = 3  # shorter sentences are skipped
    max_tokens: Annotated[int, Field(ge=3)] = 77  # [CLS], at least one word piece, [SEP]
    allow_anomalies: bool = False  # train on records in which validate_records finds anomalies


@section("augment")
class AugmentConfig:
    """Random changes of training images; the defaults are MedCLIP's released ones."""

    flip: Share = 0.5  # probability of a horizontal flip; it mirrors the heart
    brightness: Share = 0.2  # up to this share of the value range is added
    contrast: Share = 0.2  # factor drawn from [1 - contrast, 1 + contrast]
    rotation_degrees: Annotated[float, Field(ge=0, le=180)] = 10.0
    translation: Share = 0.0625  # share of the side
    scale: Annotated[tuple[Positive, Positive], AfterValidator(ascending)] = (0.8, 1.1)
    crop: bool = True  # random crop of image_size from the stored side; False: resize
    # Share of the crop's side that is cut out and enlarged.
    crop_share: Annotated[tuple[PositiveShare, PositiveShare], AfterValidator(ascending)] = (1.0, 1.0)
    # Gaussian, pixels of an image of side 224.
    blur_sigma: Annotated[tuple[NotNegative, NotNegative], AfterValidator(ascending)] = (0.0, 0.0)


# Statistics of images, gray or red, green and blue, in [0, 1]: mean and standard deviation.
IMAGE_STATISTICS = {
    "medclip": ((0.5863,), (0.2795,)),  # released code: Wang et al., EMNLP 2022
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),  # torchvision's and most of timm's weights
    "half": ((0.5,), (0.5,)),  # TensorFlow's weights: x in [-1, 1]
}


@section("model.image")
class ImageEncoderConfig:
    """The image tower."""

    backbone: str = "resnet50"  # a name of models.image_encoder.BACKBONES
    # Anything keras-hub loads, a local folder of Hugging Face weights too, or efficientnet_lite0 of the extra
    # `pretrained`; empty: random weights.
    preset: str = ""
    image_size: ImageSide = 224  # side of the encoder's input
    upsampled_size: Count = 0  # side of the backbone's input; 0: image_size
    pooling: Literal["mean", "mean_max"] = "mean"  # of the feature map over space, before the projection
    frozen_stages: Count = 0  # of the backbone, from the input: levels of its feature pyramid
    width: Annotated[int, Field(ge=8, multiple_of=8)] = 32  # first stage's channels, small_resnet only
    # Statistics of the backbone's input, of IMAGE_STATISTICS. auto: those that the weights of an installed
    # package were trained with; for every other backbone medclip, as in MedCLIP's released code.
    statistics: Literal["auto", "medclip", "imagenet", "half"] = "auto"


@section("model.text")
class TextEncoderConfig:
    """The text tower."""

    # Anything keras-hub's BertBackbone loads, or minilm of the extra `pretrained`; empty: random weights of
    # the sizes below.
    preset: str = ""
    num_layers: PositiveCount = 12
    num_heads: PositiveCount = 12
    hidden_dim: PositiveCount = 768
    intermediate_dim: PositiveCount = 3072
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    max_positions: Count = 0  # rows of the position table; 0: data.max_tokens
    hidden_states: Literal["first_two_and_last", "last", "last_four"] = "first_two_and_last"
    pooling: Literal["masked_mean", "padded_mean", "max"] = "masked_mean"
    frozen_layers: Count = 0  # number of frozen transformer layers; above 0, the embeddings are frozen too
    projection_bias: bool = False  # some released weights have one
    vocabulary: str = ""  # wordpiece file; empty: the preset's, or learned from the training split
    vocabulary_size: Annotated[int, Field(ge=10)] = 8000  # of a learned vocabulary
    lower_case: bool = True


@section("model")
class ModelConfig:
    """The dual encoder."""

    image: ImageEncoderConfig = field(default_factory=ImageEncoderConfig)
    text: TextEncoderConfig = field(default_factory=TextEncoderConfig)
    projection_dim: PositiveCount = 512
    projection: Literal["linear", "mlp"] = "linear"  # mlp: one hidden layer with a ReLU before it, as ConVIRT
    initial_temperature: Positive = 0.07
    max_logit_scale: Positive = 100.0


@section("objective")
class ObjectiveConfig:
    """The loss (a function of `objectives`) and the switches of label matching (paper against code)."""

    name: Annotated[str, AfterValidator(_known_objective)] = "semantic_matching"
    instance_weight: Share = 0.5  # mixed_matching: weight of the own pair against shared findings
    similarity: Literal["cosine", "dot"] = "cosine"
    target_temperature: Positive = 1.0
    concept_weights: Literal["none", "idf"] = "none"  # idf: rare findings count more; of the training split
    # Images a tile of the loss, each with all texts: no matrix of all images and texts is held; 0: all at
    # once. Not for gloria, whose memory is that of its words and regions.
    tile_size: Count = 0
    tree_closeness: Share = 0.0  # closeness of findings that share an ancestor; 0: unrelated


@section("train")
class TrainConfig:
    """Optimisation."""

    batch_size: Annotated[int, Field(ge=2)] = 100  # images and sentences per step, over all replicas
    # Images and sentences that a device encodes at a time: the loss stays that of the whole batch, in the
    # memory of a chunk, for one more forward pass. 0: all. See training.accumulation.
    chunk_size: Count = 0
    # Passes over the training images, used if `steps` is 0. Images that pairs or shares leave out count too:
    # the kept ones are drawn more often.
    epochs: Positive = 10.0
    # Raised later, training continues after the last checkpoint: the cosine is that of the new total, so its
    # rate rises again, and the result is not that of one run of all steps. The plateau goes on as it was.
    steps: Count = 0
    learning_rate: Positive = 2e-5
    # After the warm-up; plateau: halve the rate when validation stalls.
    schedule: Literal["cosine", "plateau"] = "cosine"
    plateau_patience: PositiveCount = 5  # validations without improvement before the rate is halved
    warmup_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1  # cosine only
    weight_decay: NotNegative = 1e-4
    clip_norm: Positive = 1.0
    # Workdir of an earlier run, or of converted weights, whose best weights this run starts from; its
    # vocabulary is taken too. The schedule and the optimizer are this run's own.
    start_from: str = ""
    # Decay per step of the moving average of the trained weights, such as 0.999; 0: none. The averaged
    # weights are validated, kept as the best, evaluated and exported. Statistics of batch normalisation are
    # not averaged once more.
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    # What the best weights are best by: the lowest KL of the validation batches, at each validation, or the
    # highest zero-shot AUROC of the validation images (of several data sets the mean, over those that have
    # one), at each zero-shot evaluation. `patience` and the plateau schedule count the same.
    best_by: Literal["kl", "zero_shot"] = "kl"
    patience: Count = 0  # validations without improvement after which training stops; 0: all steps are done
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    # multi_worker: one process a machine, each started with its TF_CONFIG; see training.replicas.
    strategy: Literal["auto", "one_device", "mirrored", "multi_worker"] = "auto"
    # Weights that are not trained, as in LiT: of a tower, or of its backbone alone; its projections learn.
    # Features are computed at each step, of augmented images.
    lock: Literal["none", "image", "text", "image_backbone", "text_backbone"] = "none"
    # Backbones that are not trained, and whose features are computed once, of images that are not augmented:
    # the projections alone learn, in minutes. See training.frozen.
    frozen: Literal["none", "image", "text", "both"] = "none"
    feature_cache: str = ""  # folder of those features, which runs can share; empty: features/ of the workdir
    # Factor of the learning rate of each stage (layer of BERT) of a backbone, to that of the stage above it.
    layer_decay: PositiveShare = 1.0
    # Compile the towers with XLA; on several devices only those without batch normalisation.
    jit_compile: bool = False
    validate_every: PositiveCount = 500  # steps
    evaluate_every: Count = 0  # steps between zero-shot evaluations on the validation split; 0: none
    checkpoint_every: PositiveCount = 500  # steps
    keep_checkpoints: PositiveCount = 2  # number of the last checkpoints, beside the best
    log_every: PositiveCount = 20  # steps

    def __post_init__(self) -> None:
        needed = "above 0 with train.best_by=zero_shot, for its figures choose the best weights"
        is_taken = self.best_by == "kl" or self.evaluate_every > 0
        require(is_taken, "train.evaluate_every", needed, self.evaluate_every)


def frozen_towers(config: TrainConfig) -> tuple[str, ...]:
    """Names of the towers whose backbones are frozen.

    >>> frozen_towers(TrainConfig(frozen="both")), frozen_towers(TrainConfig())
    (('image', 'text'), ())
    """
    return {"none": (), "both": ("image", "text")}.get(config.frozen, (config.frozen,))


EvaluationTask = Literal[
    "zero_shot", "retrieval", "probe", "trust", "subgroups", "shortcuts", "leaks", "fine_tune"
]


@section("evaluation")
class EvaluationConfig:
    """Evaluation on the test split at the end of a run."""

    # single_finding: accuracy among images that are positive for exactly one of `findings` (the x200 sets);
    # multi_label: one AUROC a finding over all images ("Abnormal" is: No Finding not positive).
    task: Literal["single_finding", "multi_label"] = "single_finding"
    findings: Annotated[tuple[str, ...], Field(min_length=1)] = (
        "Atelectasis",
        "Cardiomegaly",
        "Consolidation",
        "Edema",
        "Pleural Effusion",
    )
    per_class: PositiveCount = 200  # maximum images per class; single_finding only
    prompts: str = ""  # JSON file {finding: [prompt, …]}; empty: the shipped ones
    num_prompts: PositiveCount = 10  # maximum prompts per finding
    # Random draws of the prompts, `num_prompts` a finding, or half of them if there are no more; 0: none.
    prompt_draws: Annotated[int, Field(ge=0)] = 5
    # What is subtracted from a finding's score in multi_label: that of the normal prompts, or of its own
    # negative prompts ("no Edema" in the file of prompts, else shipped sentences).
    contrast: Literal["normal", "negated"] = "normal"
    # Of zero_shot, which they need: trust (calibration, operating points, conformal sets, negation, prompts),
    # subgroups (by sex, age and view), shortcuts (what else the embeddings tell). leaks: test images that
    # stand among the training images.
    tasks: tuple[EvaluationTask, ...] = ("zero_shot", "retrieval", "trust", "subgroups", "shortcuts", "leaks")
    # Shares of the training images that linear probes learn from.
    probe_fractions: Annotated[tuple[PositiveShare, ...], Field(min_length=1)] = (1.0,)
    probe_seeds: PositiveCount = 5  # draws of a share of the labels, and for fine_tune seeds of each training
    fine_tune_steps: PositiveCount = 500  # of each training of fine_tune; the rest is the run's `train`
    bootstrap: PositiveCount = 1000  # resamples behind the 95 % intervals

    def __post_init__(self) -> None:
        once = len({*self.findings}) == len(self.findings)
        require(once, "evaluation.findings", "names that differ", list(self.findings))


@section("export.thresholds")
class Threshold:
    """Bound on a metric of evaluation/metrics.json, without which `export` pushes no version."""

    metric: str  # TASK.VARIANT.METRIC or TASK.VARIANT.by_class.CLASS.METRIC; with DATA_SET. of that alone
    at_least: Share | None = None
    max_drop: Share | None = None  # below the version served now, on the same records, paired by patient
    # What must keep the bound: the worse end of the 95 % interval, or the value alone.
    decide_by: Literal["interval", "value"] = "interval"

    def __post_init__(self) -> None:
        bounded = self.at_least is not None or self.max_drop is not None
        received = f"{self.metric} without a bound"
        require(bounded, "export.thresholds", "bounds, with at_least or max_drop", received)


@section("export")
class ExportConfig:
    """Conditions for pushing a model, and entries of its model card."""

    thresholds: tuple[Threshold, ...] = ()
    max_latency_ms: NotNegative = 0.0  # of one request of one row, after warm-up, on a CPU; 0: any
    license: str = ""  # of the weights, for the model card
