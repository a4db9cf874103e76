"""Pretrained towers: which presets are refused and how, and a workdir that outlives the preset's folder."""

import importlib.util
import json
import pathlib
import shutil

import keras_hub
import numpy as np
import pytest
import safetensors.numpy

from medclip_keras import convert
from medclip_keras.config import ImageEncoderConfig, ModelConfig, TextEncoderConfig, override
from medclip_keras.measure import evaluate_workdir
from medclip_keras.preprocess.text import read_vocabulary
from medclip_keras.training.presets import check_presets
from medclip_keras.training.restore import load_model, load_untrained
from medclip_keras.training.train import train
from medclip_keras.training.vocabulary import make_tokenizer

SCRIPT = pathlib.Path(__file__).parents[1] / "models" / "pretrained_peers.py"
SPEC = importlib.util.spec_from_file_location("peers", SCRIPT)
peers = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(peers)
PIECES = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "heart",
    "lung",
    "effusion",
    "no",
    *(f"w{n}" for n in range(32)),
]


@pytest.fixture
def hugging_face(tmp_path):
    """A small BERT as Hugging Face's folder: config.json, model.safetensors, tokenizer.json, no vocab.txt."""
    folder = tmp_path / "my bert"
    folder.mkdir()
    layout = json.loads(peers.LAYOUTS.read_text())["hf_bert"]
    tensors = {key: peers.draw(key, shape, dtype) for key, (shape, dtype) in layout.items()}
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(peers.TINY_BERT | {"model_type": "bert"}))
    ids = {piece: number for number, piece in reversed(list(enumerate(PIECES)))}
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"type": "WordPiece", "vocab": ids}}))
    return folder


def embeddings(model):
    ids = np.array([[2, 4, 5, 3, 0], [2, 6, 7, 8, 3]])
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 1)).astype("float32")
    return model.encode_images(images).numpy(), model.encode_tokens(ids, np.minimum(ids, 1)).numpy()


def test_a_workdir_loads_evaluates_and_continues_when_the_folders_of_its_presets_are_gone(
    tiny_run, hugging_face, tmp_path
):
    resnet = tmp_path / "resnet"
    keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, 64],
        stackwise_num_blocks=[1, 1],
        stackwise_num_strides=[1, 2],
        block_type="basic_block",
    ).save_to_preset(str(resnet))
    changes = [f"model.text.preset={hugging_face}", f"model.image.preset={resnet}", "data.max_tokens=16"]
    run = override(tiny_run, [*changes, "train.steps=2", "evaluation.task=multi_label"])
    workdir = tmp_path / "run"
    assert train(run, workdir).finished
    before = embeddings(load_model(workdir, "last").model)
    shutil.rmtree(hugging_face)
    shutil.rmtree(resnet)
    workdir = workdir.rename(tmp_path / "moved")
    loaded = load_model(workdir, "last")
    for one, other in zip(embeddings(loaded.model), before, strict=True):
        np.testing.assert_array_equal(one, other)
    assert loaded.tokenizer.vocabulary == tuple(PIECES)
    # The model before training is the pretrained one, and not one of random weights.
    start = load_untrained(workdir, loaded).text_encoder.get_weights()[0]
    name = "bert.embeddings.word_embeddings.weight"
    np.testing.assert_allclose(start, peers.draw(name, (40, 16)), atol=1e-6)
    assert "untrained" in str(evaluate_workdir(workdir))
    assert train(override(run, ["train.steps=3"]), workdir).step == 3


def test_a_folder_with_torch_weights_alone_is_refused_with_the_command_that_converts_it(hugging_face):
    (hugging_face / "model.safetensors").rename(hugging_face / "pytorch_model.bin")
    with pytest.raises(ValueError, match="keras-hub loads") as error:
        check_presets(ModelConfig(text=TextEncoderConfig(preset=str(hugging_face))))
    made = f"{hugging_face}-keras"
    assert str(error.value) == (
        "`model.text.preset` must be a folder that keras-hub loads: its own, or Hugging Face's with "
        f"model.safetensors. Received: '{hugging_face}'. Convert pytorch_model.bin: python -m "
        f"medclip_keras.convert --weights '{hugging_face}' --workdir '{made}'. It needs torch: pip install "
        f"'medclip_keras[torch]'. Then --set 'model.text.preset={made}'."
    )


def test_a_folder_of_a_tf_efficientnet_which_keras_hub_misreads_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"architecture": "tf_efficientnet_lite0"}')
    safetensors.numpy.save_file({"conv_stem.weight": np.ones(2)}, tmp_path / "model.safetensors")
    sentence = (
        r"TensorFlow's EfficientNets aside\. Received: .* Convert model\.safetensors: python -m medclip_k"
    )
    with pytest.raises(ValueError, match=sentence):
        check_presets(ModelConfig(image=ImageEncoderConfig(preset=str(tmp_path))))


def test_a_tower_is_converted_with_the_vocabulary_of_tokenizer_json(hugging_face, tmp_path, capsys):
    made = tmp_path / "made"
    assert convert.main(["--weights", str(hugging_face), "--workdir", str(made), "--num_heads", "2"]) == 0
    assert (made / "vocab.txt").read_text().split() == PIECES
    check_presets(ModelConfig(text=TextEncoderConfig(preset=str(made))))


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (ModelConfig(image=ImageEncoderConfig(backbone="resnet5")), "`model.image.backbone` must be one of"),
        (ModelConfig(image=ImageEncoderConfig(preset="resnet_50_imagent")), "Near names: resnet_50_imagenet"),
        (ModelConfig(text=TextEncoderConfig(preset="bert_base_en_uncase")), "Near names: bert_base_en_uncas"),
        (ModelConfig(text=TextEncoderConfig(preset="no/such/folder")), "must be a local folder of weights"),
        (ModelConfig(text=TextEncoderConfig(preset="$NOWHERE/bert")), "whose environment variables are set"),
    ],
)
def test_misspelled_backbones_and_presets_are_refused(config, sentence):
    with pytest.raises(ValueError, match="must be") as error:
        check_presets(config)
    assert sentence in str(error.value)


def test_a_preset_named_as_keras_hub_has_it_brings_its_vocabulary(tiny_run, tmp_path, monkeypatch):
    """The preset lies in the cache of downloads, as after its first use."""
    version = tmp_path / "models" / "keras" / "bert" / "keras" / "bert_tiny_en_uncased" / "3"
    pieces = [*PIECES, "[MASK]"]  # keras-hub wants all of BERT's
    sizes = {"num_layers": 1, "num_heads": 1, "hidden_dim": 8, "intermediate_dim": 8}
    keras_hub.models.BertBackbone(vocabulary_size=len(pieces), **sizes).save_to_preset(str(version))
    keras_hub.models.BertTokenizer(vocabulary=pieces, lowercase=True).save_to_preset(str(version))
    for file in list(version.rglob("*")):
        mark = version.parent / ".complete" / "3" / f"{file.relative_to(version)}.complete"
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path))
    run = override(tiny_run, ["model.text.preset=bert_tiny_en_uncased"])
    check_presets(run.model)
    assert make_tokenizer(run, None).vocabulary == tuple(pieces)


def test_word_pieces_of_tokenizer_json_are_in_the_order_of_their_ids(hugging_face):
    assert read_vocabulary(hugging_face / "tokenizer.json") == PIECES
    for content in (
        '{"model": {"vocab": [["a", 1.5]]}}',
        '{"model": {"vocab": {"a": 0, "b": 2}}}',
        "{}",
        "[",
    ):
        (hugging_face / "tokenizer.json").write_text(content)
        with pytest.raises(ValueError, match=r"`vocabulary` must be a tokenizer\.json whose model\.vocab"):
            read_vocabulary(hugging_face / "tokenizer.json")
