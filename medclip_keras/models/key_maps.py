"""Pairs of PyTorch tensor and Keras variable, and the layout of one in the other.

Names are those of torchvision's ResNet and of transformers 4; `TO_*` bring the names of transformers 5 and of
old TensorFlow conversions to them.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import keras
import numpy as np

from medclip_keras.models.sizes import EFFICIENTNET_LITE0

# Contiguous array of a variable's shape → its view with the shape and order of the PyTorch tensor.
LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "same": lambda x: x,
    "flat": lambda x: x.reshape(-1),
    # Dense (in, out…) → Linear (out, in); attention splits `out` into (heads, size)
    "dense": lambda x: x.reshape(len(x), -1).T,
    "dense_of_heads": lambda x: x.reshape(-1, x.shape[-1]).T,
    # (height, width, in, out) → (out, in, height, width)
    "conv": lambda x: x.transpose(3, 2, 0, 1),
    # of a depthwise convolution: (height, width, channels, 1) → (channels, 1, height, width)
    "depthwise": lambda x: x.transpose(2, 3, 0, 1),
    "one_row": lambda x: x[None],
}


@dataclass(frozen=True)
class Entry:
    """One tensor and the variable, or the third of a variable's last axis, that it fills."""

    key: str  # name in the state dict
    variable: keras.Variable  # of the Keras model
    layout: str = "same"  # a name of LAYOUTS
    third: int | None = None  # 0, 1 or 2 if query, key and value share the variable; None: all of it

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape that the entry fills."""
        shape = tuple(self.variable.shape)
        return shape if self.third is None else (*shape[:-1], shape[-1] // 3)

    @property
    def torch_shape(self) -> tuple[int, ...]:
        """Shape that the tensor must have."""
        return LAYOUTS[self.layout](np.empty(self.shape, np.float32)).shape

    def fill(self, value: np.ndarray, tensor: np.ndarray) -> None:
        """Write the tensor into its part of the variable's value, float32."""
        part = np.empty(self.shape, np.float32)
        LAYOUTS[self.layout](part)[...] = tensor
        (value if self.third is None else np.split(value, 3, axis=-1)[self.third])[...] = part


TO_SWIN = [
    (r"\.attention\.(query|key|value)\.", r".attention.self.\1."),
    (r"\.attention\.q_proj\.", ".attention.self.query."),
    (r"\.attention\.k_proj\.", ".attention.self.key."),
    (r"\.attention\.v_proj\.", ".attention.self.value."),
    (r"\.attention\.o_proj\.", ".attention.output.dense."),
    (r"\.attention\.relative_position_bias\.", ".attention.self."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
]
TO_VIT = [
    (r"^layers\.", "encoder.layer."),
    (r"\.attention\.q_proj\.", ".attention.attention.query."),
    (r"\.attention\.k_proj\.", ".attention.attention.key."),
    (r"\.attention\.v_proj\.", ".attention.attention.value."),
    *TO_SWIN[4:5],
    *TO_SWIN[6:],
]
TO_BERT = [(r"LayerNorm\.gamma$", "LayerNorm.weight"), (r"LayerNorm\.beta$", "LayerNorm.bias")]


def _to_efficientnet(num_blocks: Sequence[int]) -> list[tuple[str, str]]:
    """Names of the first PyTorch implementation, whose blocks are counted through, to timm's."""
    renamed = [(r"^_bn1\.", "bn2."), (r"^_bn0\.", "bn1."), (r"^_fc\.", "classifier.")]
    renamed += [(r"^_conv_(stem|head)\.", r"conv_\1.")]
    blocks = [(stage, block) for stage, number in enumerate(num_blocks) for block in range(number)]
    for n, (stage, block) in enumerate(blocks):
        first = int(stage == 0)  # it has no expansion
        parts = ("dw", "pw") if first else ("pw", "dw", "pwl")
        for i, part in enumerate(parts, start=first):
            theirs, ours = rf"^_blocks\.{n}\._", f"blocks.{stage}.{block}."
            renamed.append((rf"{theirs}{_CONVOLUTIONS[i]}_conv\.", f"{ours}conv_{part}."))
            renamed.append((rf"{theirs}bn{i}\.", f"{ours}bn{i + 1 - first}."))
    return renamed


_CONVOLUTIONS = ("expand", "depthwise", "project")
TO_EFFICIENTNET_LITE0 = _to_efficientnet(EFFICIENTNET_LITE0["stackwise_num_repeats"])


def count(keys: Iterable[str], pattern: str) -> int:
    """1 plus the largest number that the pattern's group takes among the keys; 0 without a match."""
    return 1 + max((int(found[1]) for key in keys if (found := re.match(pattern, key))), default=-1)


def resnet_entries(backbone: keras.Model) -> list[Entry]:
    """Tensors of torchvision's and timm's ResNet, the classifier aside."""
    entries = _conv_and_norm(backbone, "conv1", "conv1", "bn1")
    bottleneck = backbone.block_type == "bottleneck_block"
    for stack, num_blocks in enumerate(backbone.stackwise_num_blocks):
        for block in range(num_blocks):
            ours, theirs = f"stack{stack}_block{block}", f"layer{stack + 1}.{block}"
            if block == 0 and (bottleneck or stack > 0):
                downsample = f"{theirs}.downsample"
                entries += _conv_and_norm(backbone, f"{ours}_0", f"{downsample}.0", f"{downsample}.1")
            for n in range(1, 4 if bottleneck else 3):
                entries += _conv_and_norm(backbone, f"{ours}_{n}", f"{theirs}.conv{n}", f"{theirs}.bn{n}")
    return entries


def _conv_and_norm(backbone, ours: str, conv: str, norm: str) -> list[Entry]:
    kernel, batch_norm = backbone.get_layer(f"{ours}_conv").kernel, backbone.get_layer(f"{ours}_bn")
    return [Entry(f"{conv}.weight", kernel, "conv"), *_batch_norm(norm, batch_norm)]


def efficientnet_entries(backbone: keras.Model) -> list[Entry]:
    """Tensors of timm's EfficientNet without squeeze-and-excitation, the classifier aside."""
    layer = backbone.get_layer
    entries = [*_conv_and_norm(backbone, "stem", "conv_stem", "bn1")]
    for stage, num_blocks in enumerate(backbone.stackwise_num_repeats):
        for block in range(num_blocks):
            ours, theirs = f"block{stage + 1}{chr(ord('a') + block)}_", f"blocks.{stage}.{block}"
            if backbone.stackwise_block_types[stage] == "v1":  # of single layers, without an expansion
                parts = [
                    (layer(f"{ours}{name}"), layer(f"{ours}{name}_bn")) for name in ("dwconv", "project")
                ]
                names = ["dw", "pw"]
            else:
                own = layer(ours)
                parts = [(own.conv1, own.bn1), (own.depthwise, own.bn2), (own.output_conv, own.bn3)]
                names = ["pw", "dw", "pwl"]
            for n, (name, (conv, norm)) in enumerate(zip(names, parts, strict=True), start=1):
                layout = "depthwise" if name == "dw" else "conv"
                entries.append(Entry(f"{theirs}.conv_{name}.weight", conv.kernel, layout))
                entries += _batch_norm(f"{theirs}.bn{n}", norm)
    return [*entries, *_conv_and_norm(backbone, "top", "conv_head", "bn2")]


def _batch_norm(key: str, layer) -> list[Entry]:
    return [
        *_norm(key, layer),
        Entry(f"{key}.running_mean", layer.moving_mean),
        Entry(f"{key}.running_var", layer.moving_variance),
    ]


def swin_entries(backbone: keras.Model) -> list[Entry]:
    """Tensors of Hugging Face's SwinModel."""
    embedding = backbone.patch_embedding
    entries = [
        Entry("embeddings.patch_embeddings.projection.weight", embedding.proj.kernel, "conv"),
        Entry("embeddings.patch_embeddings.projection.bias", embedding.proj.bias),
        *_norm("embeddings.norm", embedding.norm),
    ]
    for s, stage in enumerate(backbone.stages):
        for b, block in enumerate(stage.blocks):
            name = f"encoder.layers.{s}.blocks.{b}"
            for third, part in enumerate(("query", "key", "value")):
                key = f"{name}.attention.self.{part}"
                entries.append(Entry(f"{key}.weight", block.attn.qkv.kernel, "dense", third))
                if block.attn.qkv.bias is not None:
                    entries.append(Entry(f"{key}.bias", block.attn.qkv.bias, "same", third))
            table = block.attn.relative_position_bias_table
            entries += [
                Entry(f"{name}.attention.self.relative_position_bias_table", table),
                *_dense(f"{name}.attention.output.dense", block.attn.proj),
                *_norm(f"{name}.layernorm_before", block.norm1),
                *_norm(f"{name}.layernorm_after", block.norm2),
                *_dense(f"{name}.intermediate.dense", block.mlp.fc1),
                *_dense(f"{name}.output.dense", block.mlp.fc2),
            ]
        if stage.downsample is not None:
            name = f"encoder.layers.{s}.downsample"
            entries.append(Entry(f"{name}.reduction.weight", stage.downsample.reduction.kernel, "dense"))
            entries += _norm(f"{name}.norm", stage.downsample.norm)
    return [*entries, *_norm("layernorm", backbone.norm)]


def vit_entries(backbone: keras.Model) -> list[Entry]:
    """Tensors of Hugging Face's ViTModel, the pooler aside."""
    embedding = backbone.get_layer("vit_patching_and_embedding")
    encoder = backbone.get_layer("vit_encoder")
    entries = [
        Entry("embeddings.cls_token", embedding.class_token),
        Entry("embeddings.position_embeddings", embedding.position_embedding.embeddings, "one_row"),
        Entry("embeddings.patch_embeddings.projection.weight", embedding.patch_embedding.kernel, "conv"),
        Entry("embeddings.patch_embeddings.projection.bias", embedding.patch_embedding.bias),
    ]
    for i, block in enumerate(encoder.encoder_layers):
        name = f"encoder.layer.{i}"
        entries += [
            *_attention(f"{name}.attention.attention", f"{name}.attention.output.dense", block.mha),
            *_norm(f"{name}.layernorm_before", block.layer_norm_1),
            *_norm(f"{name}.layernorm_after", block.layer_norm_2),
            *_dense(f"{name}.intermediate.dense", block.mlp.dense_1),
            *_dense(f"{name}.output.dense", block.mlp.dense_2),
        ]
    return [*entries, *_norm("layernorm", encoder.layer_norm)]


def bert_entries(backbone: keras.Model) -> list[Entry]:
    """Tensors of Hugging Face's BertModel, the pooler aside."""
    layer = backbone.get_layer
    entries = [
        Entry("embeddings.word_embeddings.weight", layer("token_embedding").embeddings),
        Entry("embeddings.position_embeddings.weight", layer("position_embedding").position_embeddings),
        Entry("embeddings.token_type_embeddings.weight", layer("segment_embedding").embeddings),
        *_norm("embeddings.LayerNorm", layer("embeddings_layer_norm")),
    ]
    num_layers = count([layer.name for layer in backbone.layers], r"transformer_layer_(\d+)$")
    for i in range(num_layers):
        name, block = f"encoder.layer.{i}.attention", layer(f"transformer_layer_{i}")
        entries += _attention(f"{name}.self", f"{name}.output.dense", block._self_attention_layer)
        name = f"encoder.layer.{i}"
        entries += [
            *_norm(f"{name}.attention.output.LayerNorm", block._self_attention_layer_norm),
            *_dense(f"{name}.intermediate.dense", block._feedforward_intermediate_dense),
            *_dense(f"{name}.output.dense", block._feedforward_output_dense),
            *_norm(f"{name}.output.LayerNorm", block._feedforward_layer_norm),
        ]
    return entries


def _attention(inputs: str, output: str, layer) -> list[Entry]:
    entries = []
    for part in ("query", "key", "value"):
        dense = getattr(layer, f"{part}_dense")
        entries.append(Entry(f"{inputs}.{part}.weight", dense.kernel, "dense"))
        entries.append(Entry(f"{inputs}.{part}.bias", dense.bias, "flat"))
    dense = layer.output_dense
    kernel = Entry(f"{output}.weight", dense.kernel, "dense_of_heads")
    return [*entries, kernel, Entry(f"{output}.bias", dense.bias)]


def _dense(key: str, layer) -> list[Entry]:
    return [Entry(f"{key}.weight", layer.kernel, "dense"), Entry(f"{key}.bias", layer.bias)]


def _norm(key: str, layer) -> list[Entry]:
    return [Entry(f"{key}.weight", layer.gamma), Entry(f"{key}.bias", layer.beta)]
