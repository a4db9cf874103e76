"""PyTorch weights into this project's models.

    python -m medclip_keras.convert --weights FILE_OR_FOLDER --vocabulary vocab.txt --workdir DIR

MedCLIP's published state dicts become a workdir for `evaluate` and `export`, with the released pooling and
preprocessing. A single tower (ResNet of torchvision or timm; EfficientNet-lite0 of TensorFlow; Swin, ViT or
BERT of Hugging Face) becomes a folder for `model.image.preset` or `model.text.preset`. The account lists
every tensor, on the screen and in DIR/conversion.json; a file with a tensor missing, left over or of a wrong
shape is refused, and nothing is written.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import shutil
import sys
from collections.abc import Sequence

from medclip_keras.command import new_parser, run_command
from medclip_keras.config import (
    DataConfig,
    ImageEncoderConfig,
    ModelConfig,
    RunConfig,
    TextEncoderConfig,
    override,
)
from medclip_keras.errors import require
from medclip_keras.knowledge.concepts import load_table
from medclip_keras.models.account import TEXT, VISION, Row, Source, as_text, assign, read_source
from medclip_keras.models.architectures import ARCHITECTURES, bert_sizes
from medclip_keras.models.dual_encoder import DualEncoder
from medclip_keras.models.image_encoder import PUBLISHED
from medclip_keras.models.key_maps import Entry
from medclip_keras.models.state_dicts import files_of, find_weights, read_settings
from medclip_keras.models.towers import convert_tower
from medclip_keras.preprocess.text import (
    Tokenizer,
    check_vocabulary,
    find_vocabulary,
    read_vocabulary,
    write_vocabulary,
)
from medclip_keras.provenance import file_sha256, versions
from medclip_keras.training.checkpoints import Checkpoints
from medclip_keras.training.presets import write_architectures
from medclip_keras.training.run_json import write_run_json

MAX_TOKENS = 77  # of the released tokeniser
IMAGE_BACKBONE = "image_backbone"  # in a workdir: the image tower, if config has no name for its sizes
CONVERSION_FILE = "conversion.json"


def convert_dual(
    source: Source,
    num_pieces: int,
    scratch: str | pathlib.Path,
    *,
    image_size: int = 224,
    stored_image_size: int = 0,
    num_heads: int = 0,
    lower_case: bool = True,
) -> tuple[RunConfig, DualEncoder, list[Row]]:
    """Convert MedCLIP's state dict to a dual encoder.

    Follows: the released code of Wang et al., EMNLP 2022: hidden states 1, 2 and last averaged over all
    tokens, padding included; pictures padded to a square, resized once.

    Args:
        source: of a medclip_* kind.
        num_pieces: size of the vocabulary.
        scratch: a folder that receives image_backbone/ if the image tower has no name in the config.
        image_size: side of the images that the image tower sees.
        stored_image_size: side of the records; 0: image_size, so that a picture is resized once.
        num_heads: of BERT; 0: that of config.json, else heads of 64.
        lower_case: of the tokeniser.

    Returns:
        The run, with the released pooling and preprocessing; the model; the account.

    Raises:
        ValueError: the state dict is not that of a MedCLIP, or has another number of word pieces.
    """
    bert = bert_sizes(source.checkpoint(TEXT, num_heads=num_heads))
    num_rows = bert.pop("vocabulary_size")
    fitting = f"the {num_rows} word pieces of {TEXT}embeddings.word_embeddings.weight"
    require(num_pieces == num_rows, "--vocabulary", fitting, num_pieces)
    image = _image_config(source, image_size, pathlib.Path(scratch) / IMAGE_BACKBONE)
    max_positions = bert.pop("max_sequence_length")
    text = TextEncoderConfig(
        **bert,
        max_positions=max_positions,
        pooling="padded_mean",
        projection_bias="text_model.projection_head.bias" in source.tensors,
        lower_case=lower_case,
    )
    config = RunConfig(
        name=f"released_{source.kind}",
        data=DataConfig(
            stored_image_size=stored_image_size or image_size, max_tokens=min(MAX_TOKENS, max_positions)
        ),
        model=ModelConfig(image=image, text=text, projection_dim=_projection_dim(source)),
    )
    model = DualEncoder(config.model, num_pieces, config.data.max_tokens).build_towers()
    rows = assign(source, dual_entries(source, model), model.weights)
    if image.preset:
        model.image_encoder.backbone.save_to_preset(image.preset)
    return config, model, rows


def _image_config(source: Source, image_size: int, preset: pathlib.Path) -> ImageEncoderConfig:
    """Configure the image tower by a backbone's name, or by a preset that is written here."""
    sizes = source.architecture.sizes(source.checkpoint(VISION, image_size=image_size))
    for name, (_, known) in PUBLISHED.items():
        if sizes == {"image_shape": sizes["image_shape"], **known}:
            return ImageEncoderConfig(backbone=name, image_size=image_size)
    source.architecture.backbone(**sizes).save_to_preset(str(preset))
    return ImageEncoderConfig(preset=str(preset), image_size=image_size)


def _image_head(source: Source) -> str:
    """Name of the image projection; the released ResNet's is its classifier layer."""
    is_resnet = source.kind == "medclip_resnet50"
    return f"{VISION}fc.weight" if is_resnet else "vision_model.projection_head.weight"


def _projection_dim(source: Source) -> int:
    dims = {}
    for key in (_image_head(source), "text_model.projection_head.weight"):
        require(key in source.tensors, "weights", "complete", f"{source.file}: 1 missing: {key}")
        shape = source.tensors[key].shape
        require(len(shape) == 2, "weights", f"complete, {key} a matrix", shape)
        dims[key] = shape[0]
    require(len(set(dims.values())) == 1, "weights", "two projections into one space", dims)
    return dims[key]


def dual_entries(source: Source, model: DualEncoder) -> list[Entry]:
    """Pair the tensors of MedCLIP's state dict with variables."""
    image, text = model.image_encoder, model.text_encoder
    towers = ((VISION, source.architecture, image), (TEXT, ARCHITECTURES["bert"], text))
    entries = [
        dataclasses.replace(entry, key=prefix + entry.key)
        for prefix, architecture, tower in towers
        for entry in architecture.entries(tower.backbone)
    ]
    scalar = source.tensors.get("logit_scale")
    entries += [
        Entry(_image_head(source), image.projection.kernel, "dense"),
        Entry("text_model.projection_head.weight", text.projection.kernel, "dense"),
        Entry("logit_scale", model.log_logit_scale, "flat" if scalar is not None and scalar.ndim else "same"),
    ]
    if text.projection.use_bias:
        entries.append(Entry("text_model.projection_head.bias", text.projection.bias))
    return entries


def write_workdir(source: Source, options: argparse.Namespace, folder: pathlib.Path) -> list[Row]:
    """Write MedCLIP's weights as a workdir of step 0: run.json, vocabulary/, checkpoints/."""
    needed = "the word piece file of the text weights (Bio_ClinicalBERT's vocab.txt)"
    require(bool(options.vocabulary), "--vocabulary", needed, options.vocabulary)
    pieces = read_vocabulary(options.vocabulary)
    check_vocabulary(pieces)
    concepts = load_table(options.concepts)
    lower_case = resolve_lower_case(options.lower_case, options.vocabulary)
    sizes = {name: getattr(options, name) for name in ("image_size", "stored_image_size", "num_heads")}
    config, model, rows = convert_dual(source, len(pieces), folder, lower_case=lower_case, **sizes)
    if config.model.image.preset:  # written into `folder`, which is renamed
        preset = pathlib.Path(options.workdir).absolute() / IMAGE_BACKBONE
        config = override(config, [f"model.image.preset={preset}"])
    tokenizer = Tokenizer(pieces, lower_case=lower_case, max_tokens=config.data.max_tokens)
    tokenizer.save(folder / "vocabulary")
    (folder / "vocabulary" / "concepts.jsonl").write_text(concepts.to_jsonl())
    Checkpoints(str(folder / "checkpoints"), model, resumable=False).save(0)
    write_architectures(model, folder)
    write_run_json(config, folder)
    return rows


def write_tower(source: Source, options: argparse.Namespace, folder: pathlib.Path) -> list[Row]:
    """Write a single tower as a keras-hub preset, for `model.image.preset` or `model.text.preset`."""
    backbone, rows = convert_tower(source, image_size=options.image_size, num_heads=options.num_heads)
    backbone.save_to_preset(str(folder))
    is_bert = source.kind == "hf_bert"
    beside = find_vocabulary(find_weights(options.weights).parent) if is_bert else None
    vocabulary = options.vocabulary or beside
    if vocabulary:
        require(is_bert, "--vocabulary", f"left out for a {source.kind}", vocabulary)
        pieces, num_rows = read_vocabulary(vocabulary), backbone.vocabulary_size
        check_vocabulary(pieces)
        require(len(pieces) == num_rows, "--vocabulary", f"of {num_rows} word pieces", len(pieces))
        write_vocabulary(pieces, folder / "vocab.txt")
    return rows


def convert(options: argparse.Namespace) -> list[Row]:
    """Write the result into a temporary folder, rename it when it is complete, and return the account.

    Raises:
        ValueError: weights, vocabulary or options that do not fit; nothing is written then.
    """
    source, workdir = read_source(options.weights), pathlib.Path(options.workdir).absolute()
    empty = not workdir.exists() or (workdir.is_dir() and not any(workdir.iterdir()))
    require(empty, "--workdir", "a folder that does not exist yet, or an empty one", str(workdir))
    temporary = workdir.parent / f".{workdir.name}-{os.getpid()}"
    temporary.mkdir(parents=True)
    try:
        rows = (write_workdir if source.is_medclip else write_tower)(source, options, temporary)
        file = find_weights(options.weights)
        account = {
            "weights": file.name,
            "sha256": {part.name: file_sha256(part) for part in files_of(file)},
            "kind": source.kind,
            "tensors": [dataclasses.asdict(row) for row in rows],
            "versions": versions(),
        }
        (temporary / CONVERSION_FILE).write_text(json.dumps(account, indent=1) + "\n")
        os.replace(temporary, workdir)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return rows


def resolve_lower_case(flag: str, vocabulary: str) -> bool:
    """Resolve lower-casing: flag, tokenizer_config.json beside the vocabulary, BERT's default.

    Bio_ClinicalBERT's folder has no such file: Hugging Face's tokeniser lower-cases then, and so MedCLIP was
    trained, though its vocabulary is cased.
    """
    if flag != "auto":
        return flag == "true"
    settings = read_settings(pathlib.Path(vocabulary), "tokenizer_config.json")
    return bool(settings.get("do_lower_case", True))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = new_parser("medclip_keras.convert", __doc__)
    add = parser.add_argument
    add("--weights", required=True, metavar="PATH", help="file, or folder that holds it")
    add("--vocabulary", default="", metavar="FILE", help="word pieces (vocab.txt) of the text weights")
    add("--workdir", required=True, metavar="DIR", help="receives the result; must not exist")
    add("--concepts", default="chest21", help="concept table of the workdir (name or file)")
    add("--lower_case", default="auto", choices=["auto", "true", "false"], help="auto: tokenizer_config.json")
    add("--image_size", type=int, default=224, help="side that the image tower sees")
    add("--stored_image_size", type=int, default=0, help="side of your records (default: image_size)")
    add("--num_heads", type=int, default=0, help="of the text tower, or ViT (default: heads of 64)")
    options = parser.parse_args(argv)
    return run_command("medclip_keras.convert", lambda: print(as_text(convert(options))))


if __name__ == "__main__":
    sys.exit(main())
