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
from medclip_keras.serving.signatures import Endpoints, export_model
from medclip_keras.training.model import MedCLIP

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
    """The SavedModel of `tiny`; beside it, in tokens_only/1, the one without text operations."""
    models, run = tmp_path_factory.mktemp("models"), {"config": to_dict(tiny.config)}
    export_model(tiny.endpoints, tiny.table, models / "1", run)
    export_model(tiny.endpoints, tiny.table, models / "tokens_only" / "1", run, text_operations=False)
    return models / "1"


@pytest.fixture(scope="session")
def tokens_only(saved_model):
    """The SavedModel of `tiny` for servers without tensorflow-text."""
    return saved_model.parent / "tokens_only" / "1"
