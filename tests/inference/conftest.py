"""A tiny dual encoder with random weights, as a workdir and as an exported version, and pictures."""

import pathlib
import types

import keras
import numpy as np
import PIL.Image
import pydicom
import pytest
from pydicom.dataset import FileMetaDataset

import medclip_keras
from medclip_keras.config import DataConfig, ImageEncoderConfig, ModelConfig, RunConfig, TextEncoderConfig
from medclip_keras.knowledge.concepts import load_table
from medclip_keras.preprocess.text import Tokenizer
from medclip_keras.release import export_workdir
from medclip_keras.training.checkpoints import Checkpoints
from medclip_keras.training.model import MedCLIP
from medclip_keras.training.run_json import write_run_json

LETTERS = "abcdefghijklmnopqrstuvwxyz"
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *LETTERS, *(f"##{c}" for c in LETTERS)]

GRAY = np.random.default_rng(0).integers(0, 256, (30, 46), np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (46, 30, 3), np.uint8)
DEEP = GRAY.astype(np.uint16) * 257


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


def write_dicom(path, stored):
    file = pydicom.Dataset()
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    file.SOPClassUID, file.SOPInstanceUID = pydicom.uid.SecondaryCaptureImageStorage, "1.2.3"
    file.Rows, file.Columns = stored.shape
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 8, 8, 7, 0
    file.PixelData = stored.tobytes()
    file.save_as(path, enforce_file_format=True)


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> dict[str, pathlib.Path]:
    """The workdir and its exported version."""
    root = tmp_path_factory.mktemp("models")
    workdir = write_workdir(root / "workdir")
    return {"workdir": workdir, "saved_model": export_workdir(workdir, root / "models")}


@pytest.fixture(scope="session")
def model(models):
    return medclip_keras.load(models["workdir"])


@pytest.fixture(scope="session")
def pixels():
    """The pictures of `files`."""
    return types.SimpleNamespace(gray=GRAY, deep=DEEP, colour=COLOUR)


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """The gray picture as three kinds of file, and a colour picture."""
    folder = tmp_path_factory.mktemp("pictures")
    PIL.Image.fromarray(GRAY).save(folder / "gray.png")
    PIL.Image.fromarray(DEEP).save(folder / "deep.png")
    write_dicom(folder / "picture.dcm", GRAY)
    PIL.Image.fromarray(COLOUR).save(folder / "colour.png")
    PIL.Image.fromarray(GRAY).save(folder / "picture.jpg", quality=95)
    return folder
