"""python -m medclip_keras.models.pretrained: PyTorch weights into this project's models.

    python -m medclip_keras.models.pretrained --weights FILE_OR_FOLDER --vocabulary vocab.txt --workdir DIR

MedCLIP's published state dicts become a workdir that `evaluate` and `export` take, with the released pooling
and preprocessing. A single tower (ResNet of torchvision or timm; Swin, ViT or BERT of Hugging Face) becomes a
folder for `model.image.preset` or `model.text.preset`. Every tensor is accounted for, in a printed table and
in DIR/conversion.json; a file with a tensor missing, left over or of a wrong shape is refused, and nothing is
written.
"""

import argparse
import dataclasses
import pathlib
import sys
from dataclasses import dataclass

import keras
import keras_hub

from medclip_keras.config import DataConfig, ImageEncoderConfig, ModelConfig, RunConfig, TextEncoderConfig
from medclip_keras.errors import require
from medclip_keras.models import key_maps
from medclip_keras.models.account import (
    ARCHITECTURES,
    TEXT,
    VISION,
    Row,
    Source,
    assign,
    read_source,
    table,
)
from medclip_keras.models.dual_encoder import DualEncoder
from medclip_keras.models.key_maps import Entry

MAX_TOKENS = 77  # of the released tokeniser
IMAGE_BACKBONE = "image_backbone"  # in a workdir: the image tower, where config has no name for its sizes


@dataclass(frozen=True)
class Dual:
    """A converted dual encoder.

    Attributes:
        config: a run of its architecture, with the released pooling and preprocessing.
        model: with the weights.
        rows: the account.
    """

    config: RunConfig
    model: DualEncoder
    rows: list[Row]


def convert_dual(
    source: Source,
    num_pieces: int,
    scratch: str | pathlib.Path,
    *,
    image_size: int = 224,
    stored_image_size: int = 0,
    num_heads: int = 0,
    lower_case: bool = True,
) -> Dual:
    """MedCLIP's state dict to a dual encoder.

    Follows: the released code of Wang et al., EMNLP 2022: hidden states 1, 2 and last averaged over all
    tokens, padding included; pictures padded to a square, resized once.

    Args:
        source: of a medclip_* kind.
        num_pieces: size of the vocabulary that will be used.
        scratch: a folder that receives image_backbone/ where the image tower has no name in the config.
        image_size: side that the image tower sees.
        stored_image_size: side of the records; 0: image_size, so that a picture is resized once.
        num_heads: of BERT; 0: that of config.json, else heads of 64.
        lower_case: as the tokeniser was used; Bio_ClinicalBERT's default lower-cases its cased vocabulary.

    Raises:
        ValueError: the state dict is not that of a MedCLIP, or the vocabulary is another one.
    """
    bert = key_maps.bert_sizes(source.shapes(TEXT), source.settings, num_heads)
    require(
        num_pieces == bert["vocabulary_size"],
        "--vocabulary",
        f"the {bert['vocabulary_size']} word pieces of {TEXT}embeddings.word_embeddings.weight",
        num_pieces,
    )
    image, head = _image_tower(source, image_size, pathlib.Path(scratch) / IMAGE_BACKBONE)
    text = TextEncoderConfig(
        num_layers=bert["num_layers"],
        num_heads=bert["num_heads"],
        hidden_dim=bert["hidden_dim"],
        intermediate_dim=bert["intermediate_dim"],
        max_positions=bert["max_sequence_length"],
        pooling="padded_mean",
        projection_bias="text_model.projection_head.bias" in source.tensors,
        lower_case=lower_case,
    )
    projection_dim = _projection_dim(source, head)
    config = RunConfig(
        name=f"released_{source.kind}",
        data=DataConfig(
            stored_image_size=stored_image_size or image_size,
            max_tokens=min(MAX_TOKENS, bert["max_sequence_length"]),
        ),
        model=ModelConfig(image=image, text=text, projection_dim=projection_dim),
    )
    model = DualEncoder(config.model, num_pieces, config.data.max_tokens).build_towers()
    rows = assign(source, dual_entries(source, model, head), model.weights)
    if image.preset:
        model.image_encoder.backbone.save_to_preset(image.preset)
    return Dual(config, model, rows)


def _image_tower(source: Source, image_size: int, preset: pathlib.Path) -> tuple[ImageEncoderConfig, str]:
    """The image tower's configuration (writes the preset that it may need), and its projection's name."""
    shapes = source.shapes(VISION)
    if ARCHITECTURES[source.kind] == "resnet":
        head = f"{VISION}fc.weight"
        sizes = key_maps.resnet_sizes(shapes)
        of_blocks = {
            ("bottleneck_block", (3, 4, 6, 3)): "resnet50",
            ("basic_block", (2, 2, 2, 2)): "resnet18",
        }
        name = of_blocks.get((sizes["block_type"], tuple(sizes["stackwise_num_blocks"])))
        build = key_maps.build_resnet
    else:
        head = "vision_model.projection_head.weight"
        sizes = key_maps.swin_sizes(shapes, {}, image_size)
        tiny = {"embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24), "window_size": 7}
        tiny |= {"patch_size": 4, "mlp_ratio": 4.0, "qkv_bias": True}
        name, build = ("swin_tiny" if sizes == tiny else None), key_maps.build_swin
    if name:
        return ImageEncoderConfig(backbone=name, image_size=image_size), head
    build(sizes, image_size).save_to_preset(str(preset))
    return ImageEncoderConfig(preset=str(preset), image_size=image_size), head


def _projection_dim(source: Source, head: str) -> int:
    rows = {}
    for key in (head, "text_model.projection_head.weight"):
        require(key in source.tensors, "weights", "complete", f"{source.file}: 1 missing: {key}")
        require(
            source.tensors[key].ndim == 2, "weights", f"complete, {key} a matrix", source.tensors[key].shape
        )
        rows[key] = source.tensors[key].shape[0]
    require(len(set(rows.values())) == 1, "weights", "two projections into one space", rows)
    return rows[head]


def dual_entries(source: Source, model: DualEncoder, head: str) -> list[Entry]:
    """Which tensor of MedCLIP's state dict fills which variable; `head` is the image projection's name."""
    of_image = key_maps.resnet_entries if ARCHITECTURES[source.kind] == "resnet" else key_maps.swin_entries
    image, text = model.image_encoder, model.text_encoder
    entries = [dataclasses.replace(e, key=VISION + e.key) for e in of_image(image.backbone)]
    entries += [dataclasses.replace(e, key=TEXT + e.key) for e in key_maps.bert_entries(text.backbone)]
    entries += [
        Entry(head, image.projection.kernel, "dense"),
        Entry("text_model.projection_head.weight", text.projection.kernel, "dense"),
        Entry("logit_scale", model.log_logit_scale, "flat" if source.shapes().get("logit_scale") else "same"),
    ]
    if text.projection.use_bias:
        entries.append(Entry("text_model.projection_head.bias", text.projection.bias))
    return entries


def convert_tower(
    source: Source, *, image_size: int = 224, num_heads: int = 0
) -> tuple[keras.Model, list[Row]]:
    """A single tower's state dict to keras-hub's backbone, and the account.

    Raises:
        ValueError: the state dict is not that of such a tower.
    """
    shapes, settings = source.shapes(), source.settings
    architecture = ARCHITECTURES[source.kind]
    if architecture == "resnet":
        backbone = key_maps.build_resnet(key_maps.resnet_sizes(shapes), image_size)
        entries = key_maps.resnet_entries(backbone)
    elif architecture == "swin":
        backbone = key_maps.build_swin(key_maps.swin_sizes(shapes, settings, image_size), image_size)
        entries = key_maps.swin_entries(backbone)
    elif architecture == "vit":
        backbone = keras_hub.models.ViTBackbone(**key_maps.vit_sizes(shapes, settings, num_heads))
        entries = key_maps.vit_entries(backbone)
    else:
        backbone = keras_hub.models.BertBackbone(**key_maps.bert_sizes(shapes, settings, num_heads))
        entries = key_maps.bert_entries(backbone)
        pooler = backbone.pooled_dense
        if any(key.startswith("pooler.") for key in shapes):
            entries += [Entry("pooler.dense.weight", pooler.kernel, "dense")]
            entries += [Entry("pooler.dense.bias", pooler.bias)]
        else:  # this project does not use it
            return backbone, assign(
                source, entries, [w for w in backbone.weights if not any(w is v for v in pooler.weights)]
            )
    return backbone, assign(source, entries, backbone.weights)


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    from medclip_keras.training.converted import write_tower, write_workdir

    parser = argparse.ArgumentParser(
        prog="python -m medclip_keras.models.pretrained",
        description=__doc__.partition(":")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--weights", required=True, metavar="PATH", help="file, or folder that holds it")
    add("--kind", default="auto", choices=["auto", *ARCHITECTURES])
    add("--vocabulary", default="", metavar="FILE", help="word pieces (vocab.txt) of the text weights")
    add("--workdir", required=True, metavar="DIR", help="receives the result; must not exist")
    add("--concepts", default="chest21", help="concept table of the workdir (name or file)")
    add("--lower_case", default="auto", choices=["auto", "true", "false"], help="auto: tokenizer_config.json")
    add("--image_size", type=int, default=224, help="side that the image tower sees")
    add("--stored_image_size", type=int, default=0, help="side of your records (default: image_size)")
    add("--num_heads", type=int, default=0, help="of the text tower, or ViT (default: heads of 64)")
    options = parser.parse_args(argv)
    try:
        source = read_source(options.weights, options.kind)
        write = write_workdir if source.kind.startswith("medclip") else write_tower
        print(table(write(source, options)))
    except ValueError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
