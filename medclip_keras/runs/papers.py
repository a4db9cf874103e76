"""MedCLIP and the methods of its comparison with the settings of their papers, on records of your own."""

import dataclasses

from medclip_keras.config import (
    AugmentConfig,
    DataConfig,
    ImageEncoderConfig,
    ModelConfig,
    ObjectiveConfig,
    RunConfig,
    TextEncoderConfig,
    TrainConfig,
)

CLINICAL_BERT = "$MEDCLIP_WEIGHTS/Bio_ClinicalBERT"  # a local folder; see `medclip_resnet50`
IMAGENET_RESNET50 = "resnet_50_imagenet"


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
