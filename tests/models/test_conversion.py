"""Conversion of PyTorch's weights: equal embeddings, and refusals that name the tensor."""

import hashlib
import json
import re

import numpy as np
import pytest
import safetensors.numpy
import tensorflow as tf

from medclip_keras import convert
from medclip_keras.config import ImageEncoderConfig, TextEncoderConfig
from medclip_keras.models import image_encoder, text_encoder
from medclip_keras.models.account import assign, read_source
from medclip_keras.models.architectures import detect_kind
from medclip_keras.serving.signatures import Endpoints
from medclip_keras.training.restore import load_model

from . import pretrained_peers as peers

LAYOUTS = json.loads(peers.LAYOUTS.read_text())
EXPECTED = dict(np.load(peers.EXPECTED))
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"w{n}" for n in range(36))]
IMAGE_SIZE = {"medclip_resnet50": 64, "medclip_swin": 32, "torchvision_resnet50": 64, "timm_resnet": 64}
IMAGE_SIZE |= {"hf_swin": 32, "hf_vit": 24, "hf_bert": 24, "timm_efficientnet_lite0": peers.LITE0_SIZE}


def tensors_of(kind: str) -> dict[str, np.ndarray]:
    return {key: peers.draw(key, shape, dtype) for key, (shape, dtype) in LAYOUTS[kind].items()}


def write(folder, tensors, name="model.safetensors", settings=None):
    folder.mkdir(exist_ok=True)
    tensors = {key: np.array(array, order="C") for key, array in tensors.items()}
    safetensors.numpy.save_file(tensors, folder / name)
    if settings:
        (folder / "config.json").write_text(json.dumps(settings))
    (folder / "vocab.txt").write_text("\n".join(PIECES) + "\n")
    return folder / name


def run(file, kind, workdir, *options) -> int:
    """The exit status of the command."""
    options = ["--image_size", str(IMAGE_SIZE[kind]), *options]
    if kind in ("medclip_resnet50", "medclip_swin"):
        options += ["--vocabulary", str(file.parent / "vocab.txt"), "--num_heads", "2"]
    return convert.main(["--weights", str(file), "--workdir", str(workdir), *options])


def converted(file, kind, workdir, *options):
    assert run(file, kind, workdir, *options) == 0
    return workdir


@pytest.fixture(scope="module")
def resnet_tower(tmp_path_factory):
    """The small torch ResNet with basic blocks, as a file."""
    return write(tmp_path_factory.mktemp("resnet") / "weights", tensors_of("torchvision_resnet50"))


@pytest.mark.parametrize("kind", ["medclip_resnet50", "medclip_swin"])
def test_released_layout_gives_the_embeddings_of_the_released_model(kind, tmp_path, capsys):
    tensors = tensors_of(kind)
    if kind == "medclip_swin":
        tensors = {f"module.{key}": array for key, array in tensors.items()}
    else:
        tensors["logit_scale"] = tensors["logit_scale"].reshape(1)
    workdir = converted(write(tmp_path / "weights", tensors), kind, tmp_path / "run")
    printed = capsys.readouterr().out
    assert all(key.removeprefix("module.") in printed for key in tensors)
    model = load_model(workdir.rename(tmp_path / "moved")).model
    images = model.encode_images(peers.draw_images(IMAGE_SIZE[kind]).transpose(0, 2, 3, 1))
    np.testing.assert_allclose(images, EXPECTED[f"{kind}/image"], atol=1e-5)
    texts = model.encode_tokens(*peers.draw_tokens())
    np.testing.assert_allclose(texts, EXPECTED[f"{kind}/text"], atol=1e-5)
    np.testing.assert_allclose(model.logit_scale(), np.exp(peers.draw("logit_scale", ())), rtol=1e-5)


def test_released_workdir_has_the_released_configuration(tmp_path):
    file = write(tmp_path / "weights", tensors_of("medclip_swin"))
    loaded = load_model(converted(file, "medclip_swin", tmp_path / "run"))
    assert loaded.config.name == "released_medclip_swin"
    assert loaded.config.model.text.pooling == "padded_mean"
    assert loaded.config.model.text.projection_bias
    assert loaded.config.data.stored_image_size == loaded.config.model.image.image_size == 32
    assert loaded.tokenizer.lower_case  # as Hugging Face's tokeniser does without a tokenizer_config.json
    assert loaded.tokenizer.vocabulary == tuple(PIECES)
    assert not list(tmp_path.glob(".*"))
    assert json.loads((tmp_path / "run" / "run.json").read_text())["records"] == {}
    # Sentences are padded to the longest of their batch, as in the released code.
    texts = Endpoints(loaded.model, loaded.tokenizer).encode_text(tf.constant(["w1 w2 w3", "w9"]))
    ids, mask = np.array([[2, 5, 6, 7, 3], [2, 13, 3, 0, 0]]), np.array([[1] * 5, [1, 1, 1, 0, 0]])
    expected = loaded.model.encode_tokens(ids, mask)
    np.testing.assert_allclose(texts["text_embeddings"], expected, atol=1e-6)
    account = json.loads((tmp_path / "run" / "conversion.json").read_text())
    assert {row["key"] for row in account["tensors"]} == set(LAYOUTS["medclip_swin"])
    assert account["sha256"] == {file.name: hashlib.sha256(file.read_bytes()).hexdigest()}
    left_out = [row["key"] for row in account["tensors"] if row["target"] == "-"]
    assert all("relative_position_index" in key or ".pooler." in key for key in left_out)
    assert len(left_out) == 3


def test_lower_casing_follows_the_flag_then_tokenizer_config_json(tmp_path):
    flags, vocabulary = ("auto", "false", "true"), str(tmp_path / "vocab.txt")
    assert [convert.resolve_lower_case(flag, vocabulary) for flag in flags] == [True, False, True]
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    assert [convert.resolve_lower_case(flag, vocabulary) for flag in flags] == [False, False, True]


def lukemelas_names() -> list[str]:
    """Names of EfficientNet-lite0 in its first PyTorch implementation, in the order of timm's."""
    norms = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    of_block = [("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")]
    parts = [("_conv_stem", "_bn0")]
    for block in range(16):
        pairs = of_block[1:] if block == 0 else of_block
        parts += [(f"_blocks.{block}.{conv}", f"_blocks.{block}.{norm}") for conv, norm in pairs]
    parts.append(("_conv_head", "_bn1"))
    names = [name for conv, norm in parts for name in (f"{conv}.weight", *(f"{norm}.{x}" for x in norms))]
    return [*names, "_fc.weight", "_fc.bias"]


LITE0 = "timm_efficientnet_lite0"
IMAGE_TOWERS = {
    "torchvision_resnet50": None,
    "timm_resnet": None,
    LITE0: {"architecture": "tf_efficientnet_lite0"},
    "hf_swin": peers.TINY_SWIN,
    "hf_vit": peers.TINY_VIT,
}


@pytest.mark.parametrize("kind", IMAGE_TOWERS)
def test_image_tower_gives_the_features_of_pytorch(kind, tmp_path):
    settings = IMAGE_TOWERS[kind]
    file = write(tmp_path / "weights", tensors_of(kind), settings=settings)
    preset = str(converted(file.parent, kind, tmp_path / "tower"))
    size = IMAGE_SIZE[kind]
    backbone = image_encoder.build_backbone(ImageEncoderConfig(preset=preset, image_size=size))
    features = backbone.predict(peers.draw_images(size, 3).transpose(0, 2, 3, 1), verbose=0)
    found, name = (features, "tokens") if kind.startswith("hf") else (features.mean((1, 2)), "pooled")
    expected = EXPECTED[f"{kind}/{name}"]
    np.testing.assert_allclose(found, expected, atol=1e-5 * max(1, np.abs(expected).max()))


def test_lite0_of_the_first_pytorch_implementation_is_that_of_timm(tmp_path):
    """A tower of its own for images of another side, from the names of the other implementation."""
    tensors = dict(zip(lukemelas_names(), tensors_of(LITE0).values(), strict=True))
    made = converted(write(tmp_path / "weights", tensors), LITE0, tmp_path / "tower", "--image_size", "32")
    config = ImageEncoderConfig(preset=str(made), image_size=peers.LITE0_SIZE)
    backbone = image_encoder.build_backbone(config)
    features = backbone.predict(peers.draw_images(peers.LITE0_SIZE, 3).transpose(0, 2, 3, 1), verbose=0)
    expected = EXPECTED[f"{LITE0}/pooled"]
    np.testing.assert_allclose(features.mean((1, 2)), expected, atol=2e-5)
    assert backbone.pyramid_outputs["P4"].shape == (None, 6, 6, 112)  # GLoRIA's regions


def test_lite0_of_pytorchs_padding_is_refused_under_the_names_that_both_have(tmp_path):
    for settings, received in (
        (None, "None"),
        ({"architecture": "efficientnet_lite0"}, "'efficientnet_lite0'"),
    ):
        file = write(tmp_path / received, tensors_of(LITE0), settings=settings)
        sentence = rf"json: architecture` must be tf_efficientnet_lite0\. Received: {received}\. No backbone"
        with pytest.raises(ValueError, match=sentence):
            read_source(file)


@pytest.mark.parametrize("by", ["conversion", "keras-hub"])
def test_bert_tower_gives_the_tokens_of_pytorch(by, tmp_path):
    """From the names of old TensorFlow conversions, and from a folder that keras-hub loads by itself."""
    tensors = tensors_of("hf_bert")
    if by == "conversion":
        old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
        ends = {key: next((end for end in old if key.endswith(end)), "") for key in tensors}
        tensors = {k.removesuffix(end) + old.get(end, ""): tensors[k] for k, end in ends.items()}
    settings = peers.TINY_BERT | {"model_type": "bert"}
    folder = write(tmp_path / "weights", tensors, settings=settings).parent
    if by == "conversion":
        folder = converted(folder, "hf_bert", tmp_path / "tower")
        assert (folder / "vocab.txt").read_text().split() == PIECES
    backbone = text_encoder.build_backbone(TextEncoderConfig(preset=str(folder)), len(PIECES), 20)
    ids, mask = peers.draw_tokens()
    inputs = {"token_ids": ids, "padding_mask": mask, "segment_ids": np.zeros_like(ids)}
    outputs = backbone.predict(inputs, verbose=0)
    np.testing.assert_allclose(outputs["sequence_output"], EXPECTED["hf_bert/tokens"], atol=1e-5)
    np.testing.assert_allclose(outputs["pooled_output"], EXPECTED["hf_bert/pooled"], atol=1e-5)


def test_names_of_transformers_5_are_converted(tmp_path):
    new = {".attention.self.query.": ".attention.q_proj.", ".attention.self.key.": ".attention.k_proj."}
    new |= {".attention.self.value.": ".attention.v_proj.", ".attention.output.dense.": ".attention.o_proj."}
    new |= {".intermediate.dense.": ".mlp.fc1.", ".output.dense.": ".mlp.fc2."}
    new[".attention.self.relative"] = ".attention.relative_position_bias.relative"
    tensors, names = tensors_of("medclip_swin"), {}
    for key in tensors:
        name = key
        for old, replacement in new.items() if key.startswith("vision_model") else ():
            name = name.replace(old, replacement)
        names[name] = tensors[key]
    assert sum(name not in tensors for name in names) > 20
    source = read_source(write(tmp_path / "weights", names))
    _, model, _ = convert.convert_dual(source, 40, tmp_path, image_size=32, num_heads=2)
    images = model.encode_images(peers.draw_images(32).transpose(0, 2, 3, 1))
    np.testing.assert_allclose(images, EXPECTED["medclip_swin/image"], atol=1e-5)


def without(key):
    return lambda tensors: tensors.pop(key)


def with_tensor(key, shape, value=1, dtype="float32"):
    return lambda tensors: tensors.update({key: np.full(shape, value, dtype)})


ONE = "vision_model.model.encoder.layers.0.blocks.1.attention.self.key.weight"
TWO = "text_model.model.encoder.layer.2.output.LayerNorm.bias"


@pytest.fixture(scope="module")
def swin(tmp_path_factory):
    """The small MedCLIP with a Swin, converted: its model and what fills it."""
    folder = tmp_path_factory.mktemp("swin")
    source = read_source(write(folder / "weights", tensors_of("medclip_swin")))
    _, model, _ = convert.convert_dual(source, 40, folder, image_size=32, num_heads=2)
    return model, convert.dual_entries(source, model)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (without(ONE), f"1 missing: {ONE}"),
        (without(TWO), f"1 missing: {TWO}"),
        (without("logit_scale"), "1 missing: logit_scale"),
        (with_tensor("text_model.extra.weight", 3), "1 not known: text_model.extra.weight"),
        (with_tensor("vision_model.projection_head.bias", 12), "1 not known: vision_model.proj"),
        (with_tensor("module.logit_scale", ()), "1 not known: module.logit_scale"),
        (with_tensor(ONE, (8, 9)), rf"1 of a wrong shape: {ONE} is \(8, 9\) instead of \(8, 8\)"),
        (with_tensor(TWO, 17), rf"{TWO} is \(17,\) instead of \(16,\)"),
        (with_tensor("logit_scale", 2), r"logit_scale is \(2,\) instead of \(\)"),
        (with_tensor(ONE, (8, 8), dtype="int8"), f"1 of whole numbers: {ONE} is int8"),
    ],
)
def test_misfit_tensor_is_refused_by_name_and_no_variable_changes(change, sentence, swin, tmp_path):
    model, entries = swin
    before = model.get_weights()
    tensors = tensors_of("medclip_swin")
    tensors["text_model.model.encoder.layer.0.output.dense.bias"] += 1
    change(tensors)
    source = read_source(write(tmp_path / "weights", tensors))
    with pytest.raises(ValueError, match=sentence):
        assign(source, entries, model.weights)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (with_tensor("text_model.extra.weight", 3), r"1 not known: .*extra\.weight'\. Nothing was written\."),
        (without("text_model.projection_head.weight"), "1 missing: text_model.projection_head.weight"),
        (without("text_model.model.embeddings.word_embeddings.weight"), "no embeddings.word_embeddings.wei"),
        (with_tensor("text_model.projection_head.weight", (9, 16)), "text_model.projection_head.weight': 9"),
        (with_tensor("text_model.model.embeddings.word_embeddings.weight", (41, 16)), "must be the 41 word"),
        (with_tensor(TWO, 16, np.nan), f"`{TWO}` must be finite"),
        (lambda tensors: [tensors.pop(k) for k in list(tensors) if k.startswith("vision")], "a known layout"),
    ],
)
def test_refusal_writes_no_file(change, sentence, tmp_path, capsys):
    tensors = tensors_of("medclip_swin")
    change(tensors)
    file = write(tmp_path / "weights", tensors)
    assert run(file, "medclip_swin", tmp_path / "run") == 1
    assert re.search(sentence, capsys.readouterr().err)
    assert [path.name for path in tmp_path.iterdir()] == ["weights"]


def test_wrapper_prefixes_and_task_heads_are_ignored(tmp_path):
    tensors = tensors_of("medclip_swin")
    inner = {"vision_model.model.": "vision_model.model.swin.", "text_model.model.": "text_model.model.bert."}
    renamed = {}
    for key in tensors:
        prefix = next((prefix for prefix in inner if key.startswith(prefix)), "")
        renamed[key.replace(prefix, inner.get(prefix, ""), 1)] = tensors[key]
    assert sum(name in tensors for name in renamed) < 6
    source = read_source(write(tmp_path / "weights", renamed))
    assert source.tensors.keys() == tensors.keys()
    of_task = {key: x for key, x in tensors_of("hf_bert").items() if not key.startswith("cls.")}
    of_task |= {"classifier.weight": np.ones((3, 16), "float32"), "classifier.bias": np.ones(3, "float32")}
    _, rows = convert.convert_tower(read_source(write(tmp_path / "bert", of_task)), num_heads=2)
    left_out = {row.key for row in rows if row.target == "-"}
    assert left_out == {"classifier.weight", "classifier.bias"}


def test_missing_layer_and_other_settings_of_config_json_are_refused(tmp_path):
    for settings, sentence in (
        (peers.TINY_BERT | {"num_hidden_layers": 5}, r"16 missing: encoder\.layer\.4\.attention"),
        ({"hidden_act": "relu"}, r"`config.json: hidden_act` must be 'gelu'. Received: 'relu'"),
    ):
        source = read_source(write(tmp_path / "weights", tensors_of("hf_bert"), settings=settings))
        with pytest.raises(ValueError, match=sentence):
            convert.convert_tower(source)
    settings = {"architecture": "resnet50"}  # as timm writes it
    read_source(write(tmp_path / "timm", tensors_of("timm_resnet"), settings=settings))


@pytest.mark.parametrize(
    ("kind", "field", "other"),
    [
        ("hf_bert", "model_type", "roberta"),
        ("hf_swin", "model_type", "swinv2"),
        ("timm_resnet", "architecture", "resnetaa50"),
    ],
)
def test_architecture_without_a_backbone_here_is_refused_by_its_config_json(kind, field, other, tmp_path):
    file = write(tmp_path / "weights", tensors_of(kind), settings={field: other})
    with pytest.raises(ValueError, match=rf"json: {field}` must be .*\. Received: '{other}'\. No backb"):
        read_source(file)


def test_unknown_number_of_heads_and_image_size_that_pads_windows_are_refused(tmp_path):
    source = read_source(write(tmp_path / "weights", tensors_of("hf_bert")))
    with pytest.raises(ValueError, match="`--num_heads` must be a divisor of the width 16"):
        convert.convert_tower(source)
    source = read_source(write(tmp_path / "weights", tensors_of("hf_swin")))
    with pytest.raises(ValueError, match="`--image_size` must be a multiple of 32"):
        convert.convert_tower(source, image_size=48)


def test_non_empty_workdir_is_refused_and_unchanged(resnet_tower, tmp_path, capsys):
    (tmp_path / "mine").write_text("x")
    assert run(resnet_tower, "torchvision_resnet50", tmp_path) == 1
    assert "`--workdir` must be a folder that does not exist yet" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_unknown_layout_is_refused_with_some_of_its_names():
    with pytest.raises(ValueError, match=r"must be of a known layout .*2 tensors, such as a\.b, c"):
        detect_kind(["c", "a.b"])
