"""Writes what `models.pretrained` converted: a workdir as training leaves one, or a tower's preset."""

import argparse
import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Callable

from medclip_keras.config import to_dict
from medclip_keras.errors import require
from medclip_keras.knowledge.concepts import load_table
from medclip_keras.models.account import Row, Source
from medclip_keras.models.pretrained import IMAGE_BACKBONE, convert_dual, convert_tower
from medclip_keras.models.state_dicts import files_of, find_weights, read_settings
from medclip_keras.preprocess.text import Tokenizer, check_vocabulary, read_vocabulary
from medclip_keras.provenance import versions
from medclip_keras.training.checkpoints import Checkpoints

CONVERSION_FILE = "conversion.json"


def write_workdir(source: Source, options: argparse.Namespace) -> list[Row]:
    """MedCLIP's weights to a workdir of step 0: run.json, vocabulary/, checkpoints/, conversion.json.

    Args:
        source: of a medclip_* kind.
        options: the command line of `models.pretrained`.

    Returns:
        The account.

    Raises:
        ValueError: what does not fit; nothing is written then.
    """
    require(
        bool(options.vocabulary),
        "--vocabulary",
        "the word piece file of the text weights (Bio_ClinicalBERT's vocab.txt)",
        options.vocabulary,
    )
    pieces = read_vocabulary(options.vocabulary)
    check_vocabulary(pieces)
    concepts = load_table(options.concepts)
    workdir = pathlib.Path(options.workdir).absolute()

    def fill(folder: pathlib.Path) -> list[Row]:
        dual = convert_dual(
            source,
            len(pieces),
            folder,
            image_size=options.image_size,
            stored_image_size=options.stored_image_size,
            num_heads=options.num_heads,
            lower_case=lower_cases(options),
        )
        config = to_dict(dual.config)
        if config["model"]["image"]["preset"]:
            config["model"]["image"]["preset"] = str(workdir / IMAGE_BACKBONE)
        Tokenizer(
            pieces, lower_case=dual.config.model.text.lower_case, max_tokens=dual.config.data.max_tokens
        ).save(folder / "vocabulary")
        (folder / "vocabulary" / "concepts.jsonl").write_text(concepts.to_jsonl())
        Checkpoints(str(folder / "checkpoints"), dual.model, resumable=False).save(0)
        run = {"config": config, "records": {}, "versions": versions()}
        (folder / "run.json").write_text(json.dumps(run, indent=2) + "\n")
        return dual.rows

    return _write(source, options, workdir, fill)


def write_tower(source: Source, options: argparse.Namespace) -> list[Row]:
    """A single tower's weights to a keras-hub preset, for `model.image.preset` or `model.text.preset`.

    Args:
        source: of a kind with one tower.
        options: the command line of `models.pretrained`.

    Returns:
        The account.

    Raises:
        ValueError: what does not fit; nothing is written then.
    """
    vocabulary = options.vocabulary
    beside = find_weights(options.weights).parent / "vocab.txt"
    if source.kind == "hf_bert" and not vocabulary and beside.is_file():
        vocabulary = str(beside)

    def fill(folder: pathlib.Path) -> list[Row]:
        backbone, rows = convert_tower(source, image_size=options.image_size, num_heads=options.num_heads)
        backbone.save_to_preset(str(folder))
        if vocabulary:
            require(source.kind == "hf_bert", "--vocabulary", f"left out for a {source.kind}", vocabulary)
            pieces = read_vocabulary(vocabulary)
            check_vocabulary(pieces)
            num_rows = backbone.vocabulary_size
            require(len(pieces) == num_rows, "--vocabulary", f"of {num_rows} word pieces", len(pieces))
            shutil.copyfile(vocabulary, folder / "vocab.txt")
        return rows

    return _write(source, options, pathlib.Path(options.workdir).absolute(), fill)


def _write(
    source: Source, options: argparse.Namespace, workdir: pathlib.Path, fill: Callable[..., list[Row]]
) -> list[Row]:
    """Fills a folder under a temporary name, and renames it when all of it is there."""
    empty = not workdir.exists() or (workdir.is_dir() and not any(workdir.iterdir()))
    require(empty, "--workdir", "a folder that does not exist yet, or an empty one", str(workdir))
    temporary = workdir.parent / f".{workdir.name}-{os.getpid()}"
    temporary.mkdir(parents=True)
    try:
        rows = fill(temporary)
        file = find_weights(options.weights)
        account = {
            "weights": file.name,
            "sha256": {part.name: _sha256(part) for part in files_of(file)},
            "kind": source.kind,
            "tensors": [dataclasses.asdict(row) for row in rows],
            "versions": versions(),
        }
        (temporary / CONVERSION_FILE).write_text(json.dumps(account, indent=1) + "\n")
        os.replace(temporary, workdir)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return rows


def _sha256(file: pathlib.Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def lower_cases(options: argparse.Namespace) -> bool:
    """As asked; else as the tokenizer_config.json beside the vocabulary says; else as BERT's tokeniser does.

    Without that file, as in Bio_ClinicalBERT's folder, Hugging Face's tokeniser lower-cases, and so MedCLIP
    was trained, though its vocabulary is cased.
    """
    if options.lower_case != "auto":
        return options.lower_case == "true"
    settings = read_settings(pathlib.Path(options.vocabulary), "tokenizer_config.json")
    return bool(settings.get("do_lower_case", True))
