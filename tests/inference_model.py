"""A tiny dual encoder with random weights, as a workdir and as an exported version."""

import pathlib

import keras

from medclip_keras.config import DataConfig, ImageEncoderConfig, ModelConfig, RunConfig, TextEncoderConfig
from medclip_keras.export import export_workdir
from medclip_keras.knowledge.concepts import load_table
from medclip_keras.preprocess.text import Tokenizer
from medclip_keras.training.checkpoints import Checkpoints
from medclip_keras.training.model import MedCLIP
from medclip_keras.training.run_json import write_run_json

LETTERS = "abcdefghijklmnopqrstuvwxyz"
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *LETTERS, *(f"##{c}" for c in LETTERS)]


def write_workdir(workdir: pathlib.Path) -> pathlib.Path:
    """Write a workdir as training leaves it, without records."""
    config = RunConfig(
        "tiny",
        data=DataConfig(stored_image_size=40, max_tokens=48),
        model=ModelConfig(
            image=ImageEncoderConfig(backbone="small_resnet", image_size=32, width=8),
            text=TextEncoderConfig(num_layers=1, num_heads=2, hidden_dim=16, intermediate_dim=32),
            projection_dim=16,
        ),
    )
    write_run_json(config, workdir)
    Tokenizer(VOCABULARY, lower_case=True, max_tokens=48).save(workdir / "vocabulary")
    (workdir / "vocabulary" / "concepts.jsonl").write_text(load_table("chest21").to_jsonl())
    keras.utils.set_random_seed(3)
    model = MedCLIP(config, len(VOCABULARY)).build_towers()
    Checkpoints(workdir / "checkpoints", model, resumable=False).save(7)
    return workdir


def write_both(root: pathlib.Path) -> dict[str, pathlib.Path]:
    """Write the workdir and its exported version."""
    workdir = write_workdir(root / "workdir")
    return {"workdir": workdir, "saved_model": export_workdir(workdir, root / "models")}
