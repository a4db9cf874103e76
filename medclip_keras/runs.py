"""The named runs: each is a function whose docstring is a letter to whoever wants to repeat it."""

import difflib
import json
from collections.abc import Callable

from etils import epath

from medclip_keras.config import (
    AugmentConfig,
    DataConfig,
    EvaluationConfig,
    ImageEncoderConfig,
    ModelConfig,
    ObjectiveConfig,
    PhantomConfig,
    RawInput,
    RunConfig,
    TextEncoderConfig,
    TrainConfig,
    from_dict,
)

SMALL_TEXT = TextEncoderConfig(
    num_layers=1, num_heads=4, hidden_dim=128, intermediate_dim=256, vocabulary_size=2000
)


def phantom_tiny() -> RunConfig:
    """The default: synthetic radiographs and reports, from nothing to a served model in minutes.

    Command: `python -m medclip_keras.fit`. It needs no data and no GPU.
    Hardware: two CPU cores, 1.3 GiB. Time: 4 min 40 s.
    Measured with seeds 0, 1, 2 (`tests/benchmarks/phantom.py`): zero-shot accuracy, prompt ensemble, .978,
    .961, .946 (chance .20); image to text P@10 .972, .967, .958.
    """
    return RunConfig(
        name="phantom_tiny",
        data=DataConfig(
            phantom=PhantomConfig(num_paired=1000, num_image_only=1500, num_text_only=800),
            uncertain="ignored",
            stored_image_size=72,
            shuffle_buffer=1024,
            max_tokens=32,
        ),
        # The side of a finding says nothing here: the phantom's heart is mirrored too.
        augment=AugmentConfig(rotation_degrees=5.0, scale=(0.9, 1.1)),
        model=ModelConfig(
            image=ImageEncoderConfig(backbone="small_resnet", image_size=64, width=16),
            text=SMALL_TEXT,
        ),
        objective=ObjectiveConfig(target_temperature=0.2),
        train=TrainConfig(
            batch_size=48,
            steps=2800,
            learning_rate=1e-3,
            weight_decay=1e-3,
            validate_every=400,
            checkpoint_every=400,
        ),
        evaluation=EvaluationConfig(per_class=50),
    )


def phantom_small() -> RunConfig:
    """More phantoms at twice the side with a ResNet-18, for a first try of a GPU.

    Command: `python -m medclip_keras.fit --run phantom_small`. Time and metric: not measured.
    """
    return RunConfig(
        name="phantom_small",
        data=DataConfig(
            phantom=PhantomConfig(num_paired=4000, num_image_only=2000, num_text_only=2000, image_size=160),
            stored_image_size=144,
            max_tokens=48,
        ),
        augment=AugmentConfig(rotation_degrees=5.0, scale=(0.9, 1.1)),
        model=ModelConfig(image=ImageEncoderConfig(backbone="resnet18", image_size=128), text=SMALL_TEXT),
        objective=ObjectiveConfig(target_temperature=0.2),
        train=TrainConfig(batch_size=64, steps=3000, learning_rate=5e-4, weight_decay=1e-3),
    )


def real_unpaired_64px() -> RunConfig:
    """Real radiographs and real reports that never met: Open-i sentences, NIH and Kermany images, 64 px.

    Command: `MEDCLIP_DATA=FOLDER python -m medclip_keras.fit --run real_unpaired_64px`, where FOLDER holds
    openi/NLMCXR_reports_dev.tgz (Open-i's report archive, https://openi.nlm.nih.gov), nih_chestxray14/
    (images/ and Data_Entry_2017_v2020.csv of the NIH Clinical Center's ChestX-ray14) and kermany_pneumonia/
    (NORMAL/ and PNEUMONIA/ of Kermany et al., Cell 2018).
    Hardware: two CPU cores. Time: 3 min 26 s beside other work. Measured, seed 0, 39 held-out NIH patients:
    zero-shot AUROC of abnormal .75, effusion .78, cardiomegaly .68, infiltration .52, atelectasis .53. Out of
    fold, beside baselines (`tests/benchmarks/real.py`): macro mean .658 [.586, .688].
    """
    return RunConfig(
        name="real_unpaired_64px",
        data=DataConfig(
            raw=(
                RawInput("openi", reports="$MEDCLIP_DATA/openi/NLMCXR_reports_dev.tgz"),
                RawInput("nih_chestxray14", images="$MEDCLIP_DATA/nih_chestxray14"),
                RawInput("kermany", images="$MEDCLIP_DATA/kermany_pneumonia"),
            ),
            stored_image_size=72,
            shuffle_buffer=2048,
            max_tokens=32,
            split_fractions=(0.7, 0.1, 0.2),
        ),
        augment=AugmentConfig(brightness=0.1, contrast=0.1),
        model=ModelConfig(
            image=ImageEncoderConfig(backbone="small_resnet", image_size=64, width=16),
            text=SMALL_TEXT,
        ),
        objective=ObjectiveConfig(target_temperature=0.2),
        train=TrainConfig(
            batch_size=32,
            steps=1800,
            learning_rate=5e-4,
            weight_decay=1e-3,
            validate_every=300,
            checkpoint_every=300,
        ),
        evaluation=EvaluationConfig(
            task="multi_label",
            findings=("Abnormal", "Pleural Effusion", "Cardiomegaly", "Infiltration", "Atelectasis"),
            num_prompts=2,
            tasks=("zero_shot",),
        ),
    )


def medclip_resnet50() -> RunConfig:
    """MedCLIP-ResNet with the paper's settings, on image and report records of your own.

    Command: `python -m medclip_keras.fit --run medclip_resnet50 --images DIR … --texts DIR …
    --set model.text.preset=FOLDER model.image.preset=resnet_50_imagenet train.precision=mixed_bfloat16`,
    FOLDER being Bio_ClinicalBERT's. Records are 256 px decodings of MIMIC-CXR and CheXpert.
    Hardware: a GPU. Time: not measured, for this run needs data that its authors did not have.
    Expected, by Table 1 of Wang et al., EMNLP 2022: zero-shot accuracy on CheXpert-5x200 .5476 (ensemble
    .5712), MIMIC-5x200 .5022 (.5430).
    """
    return RunConfig(
        name="medclip_resnet50",
        model=ModelConfig(
            image=ImageEncoderConfig(backbone="resnet50"), text=TextEncoderConfig(lower_case=False)
        ),
        train=TrainConfig(batch_size=100, epochs=10.0, learning_rate=2e-5, weight_decay=1e-4),
    )


def medclip_swin_tiny() -> RunConfig:
    """MedCLIP-ViT (a Swin Transformer, tiny) with the paper's settings, on records of your own.

    Command: `python -m medclip_keras.fit --run medclip_swin_tiny --images DIR … --texts DIR …
    --set model.text.preset=FOLDER model.image.preset=swin_tiny_patch4_window7_224
    train.precision=mixed_bfloat16`, FOLDER being Bio_ClinicalBERT's. Hardware: a GPU. Time: not measured.
    Expected, by Table 1 of Wang et al., EMNLP 2022: zero-shot accuracy on CheXpert-5x200 .5942 (ensemble
    .5942), MIMIC-5x200 .5006 (.5024).
    """
    return RunConfig(
        name="medclip_swin_tiny",
        model=ModelConfig(
            image=ImageEncoderConfig(backbone="swin_tiny"), text=TextEncoderConfig(lower_case=False)
        ),
        train=TrainConfig(batch_size=100, epochs=10.0, learning_rate=2e-5, weight_decay=1e-4),
    )


RUNS: dict[str, Callable[[], RunConfig]] = {
    run.__name__: run
    for run in (phantom_tiny, phantom_small, real_unpaired_64px, medclip_resnet50, medclip_swin_tiny)
}


def get_run(name_or_path: str) -> RunConfig:
    """A named run, or the one that a run.json replays.

    Raises:
        ValueError: neither; the sentence gives the near names.
    """
    if name_or_path in RUNS:
        return RUNS[name_or_path]()
    path = epath.Path(name_or_path)
    if name_or_path.endswith(".json") and path.exists():
        values = json.loads(path.read_text())
        return from_dict(values.get("config", values))
    near = difflib.get_close_matches(name_or_path, RUNS, 2)
    raise ValueError(
        f"`--run` must be a named run or a run.json. Received: {name_or_path!r}. "
        + (f"Near names: {', '.join(near)}." if near else f"Named runs: {', '.join(RUNS)}.")
    )
