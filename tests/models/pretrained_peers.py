"""Writes pretrained_layouts.json and pretrained_expected.npz: what PyTorch's own models compute.

    python tests/models/pretrained_peers.py     in an environment with torch, torchvision, transformers, timm

The weights are not stored: `draw` makes them from the tensors' names and shapes, here and in the tests alike.
"""

import contextlib
import json
import pathlib
import tempfile
import zlib

import numpy as np
from safetensors.numpy import load_file, save_file

with contextlib.suppress(ImportError):  # the tests import `draw` and need no PyTorch
    import timm
    import torch
    import torchvision
    import transformers

FOLDER = pathlib.Path(__file__).parent
LAYOUTS, EXPECTED = FOLDER / "pretrained_layouts.json", FOLDER / "pretrained_expected.npz"
TINY_BERT = {
    "vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2,
    "intermediate_size": 24, "max_position_embeddings": 20,
}  # fmt: skip
TINY_SWIN = {"image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [2, 1], "num_heads": [1, 2]}
TINY_SWIN |= {"window_size": 4, "mlp_ratio": 2.0}
TINY_VIT = {"image_size": 24, "patch_size": 8, "hidden_size": 16, "num_hidden_layers": 2}
TINY_VIT |= {"num_attention_heads": 4, "intermediate_size": 24}
LITE0_SIZE = 96  # at sides 96, 48, 24, 12 and 6, all even, TensorFlow's padding is not PyTorch's
WIDTH = 12  # of the joint space


def draw(key: str, shape, dtype: str = "float32") -> np.ndarray:
    """Numbers for a tensor by its name, of a size with which no layer saturates."""
    rng, shape = np.random.default_rng(zlib.crc32(key.encode())), tuple(shape)
    if dtype.startswith("int"):
        return np.arange(int(np.prod(shape)), dtype=dtype).reshape(shape)
    if key.endswith("running_var"):
        return rng.uniform(0.5, 1.5, shape).astype("float32")
    if len(shape) < 2:
        centre = 1.0 if key.endswith(("weight", "gamma")) else 2.6 if key == "logit_scale" else 0.0
        return (centre + 0.2 * rng.normal(size=shape)).astype("float32")
    fan_in = np.prod(shape[1:]) if "embedding" not in key or len(shape) == 4 else 1
    return (rng.normal(size=shape) / np.sqrt(fan_in)).astype("float32")


def draw_images(size: int, channels: int = 1) -> np.ndarray:
    """Three images, float32 (3, channels, size, size)."""
    return np.random.default_rng(5).normal(size=(3, channels, size, size)).astype("float32")


def draw_tokens() -> tuple[np.ndarray, np.ndarray]:
    """Four sentences, padded: ids and mask (4, 9)."""
    mask = (np.arange(9) < np.array([[9], [3], [6], [5]])).astype("int32")
    return np.random.default_rng(6).integers(1, 40, mask.shape).astype("int32") * mask, mask


def fill(model) -> dict:
    """Draws every tensor of a torch model; returns name → [shape, dtype]."""
    state = model.state_dict()
    for key, value in state.items():
        dtype = str(value.dtype).removeprefix("torch.")
        value.copy_(torch.from_numpy(draw(key, value.shape, dtype)))
    model.load_state_dict(state)
    model.eval()
    return {key: [list(v.shape), str(v.dtype).removeprefix("torch.")] for key, v in state.items()}


def hugging_face(model_class, config, prefix: str):
    """A Hugging Face model with drawn weights under its published names; and those names.

    The names in memory changed with transformers 5, those in its files did not.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "model.safetensors"
        model_class(config).save_pretrained(folder)
        shapes = {key: array.shape for key, array in load_file(file).items()}
        save_file({k: draw(prefix + k, s) for k, s in shapes.items()}, file, {"format": "pt"})
        model = model_class.from_pretrained(folder, dtype=torch.float32).eval()
    return model, {prefix + key: [list(shape), "float32"] for key, shape in shapes.items()}


def text_tower(bias: bool):
    """The released text tower: names and embeddings of `draw_tokens`, of length 1."""
    config = transformers.BertConfig(**TINY_BERT)
    bert, layout = hugging_face(transformers.BertModel, config, "text_model.model.")
    names = ["text_model.projection_head.weight"] + ["text_model.projection_head.bias"] * bias
    for key, shape in zip(names, ([WIDTH, TINY_BERT["hidden_size"]], [WIDTH]), strict=False):
        layout[key] = [shape, "float32"]
    ids, mask = (torch.from_numpy(x) for x in draw_tokens())
    states = bert(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states
    pooled = torch.stack([states[1], states[2], states[-1]]).permute(1, 0, 2, 3).mean(2).mean(1)
    weight, *biases = (torch.from_numpy(draw(key, layout[key][0])) for key in names)
    return layout, unit(torch.nn.functional.linear(pooled, weight, *biases))


def unit(x):
    """Rows of length 1, as NumPy."""
    return (x / x.norm(dim=-1, keepdim=True)).detach().numpy()


def medclip_resnet50() -> tuple[dict, dict]:
    """One block a stage; `position_ids` as old versions of transformers wrote them; no projection bias."""

    class Vision(torch.nn.Module):
        def __init__(self):
            super().__init__()
            block = torchvision.models.resnet.Bottleneck
            self.vision_model = torch.nn.ModuleDict({"model": torchvision.models.ResNet(block, [1, 1, 1, 1])})
            self.vision_model.model.fc = torch.nn.Linear(2048, WIDTH, bias=False)

    vision = Vision()
    layout, (text_layout, text) = fill(vision), text_tower(bias=False)
    images = torch.from_numpy(draw_images(64)).repeat(1, 3, 1, 1)
    layout |= text_layout | {"text_model.model.embeddings.position_ids": [[1, 20], "int64"]}
    layout |= {"logit_scale": [[], "float32"]}
    return layout, {"image": unit(vision.vision_model["model"](images)), "text": text}


def medclip_swin() -> tuple[dict, dict]:
    """With a projection bias, and under DataParallel's `module.`."""
    config = transformers.SwinConfig(**TINY_SWIN)
    swin, layout = hugging_face(transformers.SwinModel, config, "vision_model.model.")
    name, indices = "vision_model.projection_head.weight", "attention.self.relative_position_index"
    layout |= {name: [[WIDTH, 16], "float32"], "logit_scale": [[], "float32"]}
    layout[f"vision_model.model.encoder.layers.0.blocks.0.{indices}"] = [[16, 16], "int64"]
    text_layout, text = text_tower(bias=True)
    pooled = swin(torch.from_numpy(draw_images(32)).repeat(1, 3, 1, 1)).pooler_output
    image = unit(pooled @ torch.from_numpy(draw(name, (WIDTH, 16))).T)
    return layout | text_layout, {"image": image, "text": text}


def torchvision_resnet50() -> tuple[dict, dict]:
    """Basic blocks, with the classifier."""
    model = torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, [2, 1, 1, 1], num_classes=5)
    layout = fill(model)
    model.fc = torch.nn.Identity()
    return layout, {"pooled": model(torch.from_numpy(draw_images(64, 3))).detach().numpy()}


def timm_resnet() -> tuple[dict, dict]:
    """Bottlenecks, without a classifier."""
    model = timm.models.resnet.ResNet(timm.models.resnet.Bottleneck, (1, 1, 1, 1), num_classes=0)
    layout = fill(model)
    return layout, {"pooled": model(torch.from_numpy(draw_images(64, 3))).detach().numpy()}


def timm_efficientnet_lite0() -> tuple[dict, dict]:
    """The published size, with the classifier."""
    model = timm.create_model("tf_efficientnet_lite0")
    layout = fill(model)
    features = model.forward_features(torch.from_numpy(draw_images(LITE0_SIZE, 3)))
    return layout, {"pooled": features.mean((2, 3)).detach().numpy()}


def hf_swin() -> tuple[dict, dict]:
    """For classification: a prefix, and a classifier beside it."""
    config = transformers.SwinConfig(**TINY_SWIN)
    model, layout = hugging_face(transformers.SwinForImageClassification, config, "")
    states = model.swin(torch.from_numpy(draw_images(32, 3))).last_hidden_state
    return layout, {"tokens": states.detach().numpy()}


def hf_vit() -> tuple[dict, dict]:
    """The bare model, with its pooler."""
    model, layout = hugging_face(transformers.ViTModel, transformers.ViTConfig(**TINY_VIT), "")
    states = model(torch.from_numpy(draw_images(24, 3))).last_hidden_state
    return layout, {"tokens": states.detach().numpy()}


def hf_bert() -> tuple[dict, dict]:
    """With the heads of its pretraining."""
    config = transformers.BertConfig(**TINY_BERT)
    model, layout = hugging_face(transformers.BertForPreTraining, config, "")
    ids, mask = (torch.from_numpy(x) for x in draw_tokens())
    outputs = model.bert(input_ids=ids, attention_mask=mask)
    parts = {"tokens": outputs.last_hidden_state, "pooled": outputs.pooler_output}
    return layout, {name: part.detach().numpy() for name, part in parts.items()}


PEERS = (
    medclip_resnet50, medclip_swin, torchvision_resnet50, timm_resnet, timm_efficientnet_lite0, hf_swin,
    hf_vit, hf_bert,
)  # fmt: skip


def main() -> None:
    """Writes both files."""
    layouts, expected = {}, {}
    for peer in PEERS:
        layouts[peer.__name__], answers = peer()
        expected |= {f"{peer.__name__}/{name}": array for name, array in answers.items()}
    lines = [f"{json.dumps(name)}: {json.dumps(layout)}" for name, layout in layouts.items()]
    LAYOUTS.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    np.savez_compressed(EXPECTED, **expected)


if __name__ == "__main__":
    main()
