"""The architectures that convert from PyTorch, a row each, and the published layouts of their state dicts.

An architecture reads its sizes off the tensors' shapes, builds the Keras backbone of those sizes, and pairs
tensors with variables. Adding one is its two functions here and in `key_maps`, and a row of `ARCHITECTURES`.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import keras_hub

from medclip_keras.errors import refusal, require
from medclip_keras.models import key_maps
from medclip_keras.models.key_maps import Entry, count
from medclip_keras.models.sizes import EFFICIENTNET_LITE0, efficientnet, resnet_sizes


@dataclass(frozen=True)
class Checkpoint:
    """Tensor shapes and settings that determine a backbone's sizes."""

    shapes: Mapping[str, tuple[int, ...]]  # tensor → its shape
    settings: Mapping[str, Any]  # of the config.json beside the weights; empty without one
    image_size: int = 224  # side of the images that an image tower will see
    num_heads: int = 0  # of a ViT or BERT; 0: that of the settings, else heads of 64

    def shape(self, key: str) -> tuple[int, ...]:
        """Shape of a tensor; ValueError if it is missing."""
        require(key in self.shapes, "weights", "complete", f"no {key}", "Fetch the file again.")
        return self.shapes[key]


def _resnet_sizes(given: Checkpoint) -> dict[str, Any]:
    """He et al., CVPR 2016."""
    num_stages = count(given.shapes, r"layer(\d)\.") - 1
    blocks = [count(given.shapes, rf"layer{n}\.(\d+)\.") for n in range(1, num_stages + 1)]
    missing = [f"layer{n}.0.conv1.weight" for n, number in enumerate(blocks, 1) if not number]
    require(bool(blocks) and not missing, "weights", "complete", f"no {', '.join(missing or ['layer1'])}")
    bottleneck = "layer1.0.conv3.weight" in given.shapes
    sizes = resnet_sizes("bottleneck_block" if bottleneck else "basic_block", blocks)
    return {"image_shape": (given.image_size, given.image_size, 3), **sizes}


def _lite0_sizes(given: Checkpoint) -> dict[str, Any]:
    """Tan and Le, ICML 2019, and TensorFlow's release of the lite models: one published size."""
    return {"image_shape": (given.image_size, given.image_size, 3), **EFFICIENTNET_LITE0}


def _swin_sizes(given: Checkpoint) -> dict[str, Any]:
    """Liu et al., ICCV 2021; refuses an image size at which PyTorch and keras-hub pad windows differently."""
    settings = given.settings
    _only(settings, hidden_act="gelu", layer_norm_eps=1e-5, use_absolute_embeddings=False)
    embed_dim, *_, patch = given.shape("embeddings.patch_embeddings.projection.weight")
    num_stages = len(settings.get("depths", ())) or count(given.shapes, r"encoder\.layers\.(\d+)\.")
    blocks = [f"encoder.layers.{stage}.blocks" for stage in range(num_stages)]
    depths = [count(given.shapes, rf"{re.escape(stage)}\.(\d+)\.") for stage in blocks]
    tables = [given.shape(f"{stage}.0.attention.self.relative_position_bias_table") for stage in blocks]
    window = (math.isqrt(tables[0][0]) + 1) // 2
    unit = patch * 2 ** (num_stages - 1) * window
    whole = f"a multiple of {unit}, so that windows of {window} need no padding"
    require(given.image_size % unit == 0, "--image_size", whole, given.image_size)
    return {
        "image_shape": (given.image_size, given.image_size, 3),
        "embed_dim": embed_dim,
        "depths": tuple(settings.get("depths", depths)),
        "num_heads": tuple(table[-1] for table in tables),
        "window_size": window,
        "patch_size": patch,
        "mlp_ratio": given.shape(f"{blocks[0]}.0.intermediate.dense.bias")[0] / embed_dim,
        "qkv_bias": f"{blocks[0]}.0.attention.self.query.bias" in given.shapes,
    }


def _vit_sizes(given: Checkpoint) -> dict[str, Any]:
    """Dosovitskiy et al., ICLR 2021; the image shape follows from the position embeddings."""
    _only(given.settings, hidden_act="gelu")
    width, *_, patch = given.shape("embeddings.patch_embeddings.projection.weight")
    positions = given.shape("embeddings.position_embeddings")
    side = math.isqrt(max(positions[1] - 1, 0))
    square = side > 0 and side * side == positions[1] - 1
    require(square, "embeddings.position_embeddings", "a class token and a square of patches", positions)
    sizes = _transformer_sizes(given, width)
    return {
        "image_shape": (side * patch, side * patch, 3),
        "patch_size": patch,
        "mlp_dim": sizes.pop("intermediate_dim"),
        "layer_norm_epsilon": given.settings.get("layer_norm_eps", 1e-12),
        "use_mha_bias": True,
        **sizes,
    }


def bert_sizes(given: Checkpoint) -> dict[str, Any]:
    """Constructor arguments of BertBackbone, or ValueError if it has none such; Devlin et al., NAACL 2019."""
    _only(given.settings, hidden_act="gelu", layer_norm_eps=1e-12, position_embedding_type="absolute")
    vocabulary_size, width = given.shape("embeddings.word_embeddings.weight")
    return {
        "vocabulary_size": vocabulary_size,
        "max_sequence_length": given.shape("embeddings.position_embeddings.weight")[0],
        **_transformer_sizes(given, width),
    }


def _transformer_sizes(given: Checkpoint, width: int) -> dict[str, Any]:
    num_layers = count(given.shapes, r"encoder\.layer\.(\d+)\.")
    said = given.num_heads or given.settings.get("num_attention_heads", 0)
    num_heads = said or (width // 64 if width % 64 == 0 else 0)
    divisor = f"a divisor of the width {width} (published models have heads of 64)"
    advice = "Shapes do not contain the number of heads: give it, or a config.json beside the weights."
    require(num_heads > 0 and width % num_heads == 0, "--num_heads", divisor, said, advice)
    return {
        "num_layers": given.settings.get("num_hidden_layers", num_layers),
        "num_heads": num_heads,
        "hidden_dim": width,
        "intermediate_dim": given.shape("encoder.layer.0.intermediate.dense.bias")[0],
    }


def _only(settings: Mapping[str, Any], **needed: Any) -> None:
    """Refuse settings of a config.json that the Keras backbone does not implement."""
    for name, value in needed.items():
        require(settings.get(name, value) == value, f"config.json: {name}", f"{value!r}", settings.get(name))


@dataclass(frozen=True)
class Architecture:
    """Conversion of a PyTorch model to a backbone of keras-hub."""

    backbone: Callable[..., keras.Model]  # constructor
    sizes: Callable[[Checkpoint], dict[str, Any]]  # its arguments, from shapes and settings
    entries: Callable[[keras.Model], list[Entry]]  # which tensor fills which of its variables
    # pattern → replacement that bring other names to those of `entries`
    renamed: Sequence[tuple[str, str]] = ()
    # pattern of whole names → why those tensors of a single tower are left out
    ignored: Mapping[str, str] = dataclasses.field(default_factory=dict)


_CLASSIFIER = {r"classifier\.(weight|bias)": "the classifier"}
_PRETRAINING = {
    r"decoder\.0\.(weight|bias)": "a head of its pretraining",
    r"embeddings\.mask_token": "a token of its pretraining",
}
ARCHITECTURES = {
    "resnet": Architecture(
        keras_hub.models.ResNetBackbone,
        _resnet_sizes,
        key_maps.resnet_entries,
        ignored={r"fc\.(weight|bias)": "the classifier"},
    ),
    "efficientnet_lite0": Architecture(
        efficientnet,
        _lite0_sizes,
        key_maps.efficientnet_entries,
        key_maps.TO_EFFICIENTNET_LITE0,
        _CLASSIFIER,
    ),
    "swin": Architecture(
        keras_hub.models.SwinTransformerBackbone,
        _swin_sizes,
        key_maps.swin_entries,
        key_maps.TO_SWIN,
        _CLASSIFIER | _PRETRAINING,
    ),
    "vit": Architecture(
        keras_hub.models.ViTBackbone,
        _vit_sizes,
        key_maps.vit_entries,
        key_maps.TO_VIT,
        _CLASSIFIER | _PRETRAINING | {r"pooler\.dense\.(weight|bias)": "the pooler of the class token"},
    ),
    "bert": Architecture(
        keras_hub.models.BertBackbone,
        bert_sizes,
        key_maps.bert_entries,
        key_maps.TO_BERT,
        {
            r"cls\.(predictions|seq_relationship)\..*": "a head of its pretraining",
            r"(classifier|qa_outputs)\.(weight|bias)": "a head of another task",
        },
    ),
}


@dataclass(frozen=True)
class Kind:
    """A published layout of state dicts."""

    architecture: str  # of its only tower, or of its image tower
    key: str  # pattern at the start of a name that no other kind has
    # field of config.json, and the pattern of its values. Others have tensors of the same names and compute
    # something else (RoBERTa's positions, the blurred strides of timm's resnetaa50).
    named_by: tuple[str, str] | None = None
    must_be_named: bool = False  # whether the names alone do not tell it from another architecture


_RESNET_KEY = r"layer\d\.\d+\.conv\d\.weight"
KINDS = {
    "medclip_resnet50": Kind("resnet", rf"vision_model\.model\.{_RESNET_KEY}"),
    "medclip_swin": Kind("swin", r"vision_model\.model\.(swin\.)?encoder\.layers\.\d+\.blocks\."),
    "resnet": Kind("resnet", _RESNET_KEY, ("architecture", r"resnet\d+")),  # torchvision's and timm's
    # The names of timm's efficientnet_lite0, of PyTorch's padding, are those of its tf_efficientnet_lite0.
    "timm_efficientnet_lite0": Kind(
        "efficientnet_lite0",
        r"conv_stem\.weight",
        ("architecture", "tf_efficientnet_lite0"),
        must_be_named=True,
    ),
    "efficientnet_lite0": Kind("efficientnet_lite0", r"_conv_stem\.weight"),
    "hf_swin": Kind("swin", r"(swin\.)?encoder\.layers\.\d+\.blocks\.", ("model_type", "swin")),
    "hf_vit": Kind("vit", r"(vit\.)?embeddings\.cls_token"),
    "hf_bert": Kind("bert", r"(bert\.)?embeddings\.word_embeddings\.", ("model_type", "bert")),
}


def detect_kind(keys: Iterable[str]) -> str:
    """The kind of a state dict by its names; ValueError for an unknown layout.

    >>> detect_kind(["bert.embeddings.word_embeddings.weight", "bert.pooler.dense.bias"])
    'hf_bert'
    """
    keys = list(keys)
    for name, kind in KINDS.items():
        if any(re.match(kind.key, key) for key in keys):
            return name
    received = f"{len(keys)} tensors, such as {', '.join(sorted(keys)[:4])}"
    raise refusal("weights", f"of a known layout ({', '.join(KINDS)})", received)


def canonical(key: str, architecture: str) -> str:
    """The name that `entries` use for a tensor of that architecture.

    >>> canonical("layers.3.mlp.fc1.bias", "vit")
    'encoder.layer.3.intermediate.dense.bias'
    """
    for pattern, replacement in ARCHITECTURES[architecture].renamed:
        key = re.sub(pattern, replacement, key)
    return key
