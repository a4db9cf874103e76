import dataclasses
import json
import pathlib
import subprocess
import sys
import types

import keras
import pytest

from medclip_keras.config import (
    DataConfig,
    ImageEncoderConfig,
    ModelConfig,
    RunConfig,
    TextEncoderConfig,
    to_dict,
)
from medclip_keras.knowledge.concepts import load_table
from medclip_keras.preprocess.text import Tokenizer
from medclip_keras.serving.calibration import Calibration
from medclip_keras.serving.signatures import Endpoints, export_model
from medclip_keras.training.model import MedCLIP

ROOT = pathlib.Path(__file__).parents[2]
LETTERS = "abcdefghijklmnopqrstuvwxyz"
SPECIAL, WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]"), ("edema", "heart", "lung")
VOCABULARY = [*SPECIAL, *WORDS, *LETTERS, *(f"##{c}" for c in LETTERS)]


@pytest.fixture(scope="session")
def tiny():
    """A small dual encoder with random weights, its endpoints, tokeniser and concept table."""
    keras.utils.set_random_seed(3)
    config = RunConfig(
        "tiny",
        data=DataConfig(stored_image_size=40, max_tokens=16),
        model=ModelConfig(
            image=ImageEncoderConfig(backbone="small_resnet", image_size=32, width=8),
            text=TextEncoderConfig(num_layers=1, num_heads=2, hidden_dim=16, intermediate_dim=32),
            projection_dim=16,
        ),
    )
    tokenizer = Tokenizer(VOCABULARY, lower_case=True, max_tokens=16)
    model = MedCLIP(config, len(VOCABULARY)).build_towers()
    parts = {"model": model, "tokenizer": tokenizer, "endpoints": Endpoints(model, tokenizer)}
    return types.SimpleNamespace(**parts, table=load_table("chest21"), config=config)


@pytest.fixture(scope="session")
def saved_model(tiny, tmp_path_factory):
    """The SavedModel of `tiny`; beside it, in tokens_only/1, a calibrated one without text operations."""
    models, run = tmp_path_factory.mktemp("models"), {"config": to_dict(tiny.config)}
    export_model(tiny.endpoints, tiny.table, models / "1", run)
    count = len(tiny.config.evaluation.findings)
    calibration = Calibration("phantom", True, (2.0,) * count, (0.0,) * count)
    calibrated = Endpoints(tiny.model, tiny.tokenizer, calibration=calibration)
    run["calibration"] = dataclasses.asdict(calibration)
    export_model(calibrated, tiny.table, models / "tokens_only" / "1", run, text_operations=False)
    return models / "1"


@pytest.fixture(scope="session")
def tokens_only(saved_model):
    """The SavedModel of `tiny` for servers without tensorflow-text."""
    return saved_model.parent / "tokens_only" / "1"


class Server:
    """The tests' model server in a process of its own; `rest` and `grpc` are its addresses."""

    def __init__(self, config, folder):
        self._config, self._folder = config, folder
        self._start("0", "0")

    def model(self, scheme, model="medclip"):
        """The address of a model."""
        return f"{self.rest if scheme == 'http' else self.grpc}/v1/models/{model}"

    def _start(self, *ports):
        command = [sys.executable, "-m", "tests.serving.model_server", json.dumps(self._config), *ports]
        with open(self._folder / "server.log", "ab") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, cwd=ROOT)
        line = self.process.stdout.readline()
        assert line, (self._folder / "server.log").read_text()[-2000:]
        self.ports = json.loads(line)
        self.rest = f"http://127.0.0.1:{self.ports['rest']}"
        self.grpc = f"grpc://127.0.0.1:{self.ports['grpc']}"

    def stop(self):
        """End the process at once, whatever it does."""
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def start_again(self):
        """A new process on the same ports."""
        self._start(str(self.ports["rest"]), str(self.ports["grpc"]))


@pytest.fixture(scope="session")
def server(saved_model, tokens_only, tmp_path_factory):
    """A server of `saved_model` as versions 1 and 2, of `tokens_only`, and of a batching model."""
    medclip = {"versions": {"1": str(saved_model), "2": str(saved_model)}, "labels": {"stable": 1}}
    config = {
        "medclip": medclip,
        "tokens_only": {"versions": {"1": str(tokens_only)}},
        "joined": {"versions": {"1": str(saved_model)}, "joined_requests": 2},
    }
    running = Server(config, tmp_path_factory.mktemp("server"))
    yield running
    running.stop()
