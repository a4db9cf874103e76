"""Which tensor of a PyTorch model is which variable of its Keras twin, and the sizes behind the names.

An architecture is three functions: `*_sizes` reads the sizes off the shapes, `build_*` makes the Keras twin,
`*_entries` pairs names with variables. Names are those of torchvision's ResNet and of transformers 4;
`canonical` brings those of transformers 5 and of old TensorFlow conversions to them.
"""

import collections
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import keras
import keras_hub

from medclip_keras.errors import require

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Layout:
    """How a PyTorch tensor lies in a Keras variable.

    Attributes:
        torch_shape: shape of the variable → shape that the tensor must have.
        convert: (tensor, shape of the variable) → what the variable takes.
    """

    torch_shape: Callable
    convert: Callable


LAYOUTS = {
    "same": Layout(lambda shape: shape, lambda x, shape: x),
    "flat": Layout(lambda shape: (math.prod(shape),), lambda x, shape: x.reshape(shape)),
    # Dense (in, out…) ← Linear (out, in); attention splits `out` into (heads, size)
    "dense": Layout(lambda s: (math.prod(s[1:]), s[0]), lambda x, shape: x.T.reshape(shape)),
    "dense_of_heads": Layout(lambda s: (s[-1], math.prod(s[:-1])), lambda x, shape: x.T.reshape(shape)),
    # (height, width, in, out) ← (out, in, height, width)
    "conv": Layout(lambda s: (s[3], s[2], s[0], s[1]), lambda x, shape: x.transpose(2, 3, 1, 0)),
    "one_row": Layout(lambda shape: (1, *shape), lambda x, shape: x[0]),
}


@dataclass(frozen=True)
class Entry:
    """One tensor and the variable, or the third of a variable's last axis, that it fills.

    Attributes:
        key: name in the state dict.
        variable: of the Keras model.
        layout: a name of LAYOUTS.
        third: 0, 1 or 2 where query, key and value share the variable; None: the whole of it.
    """

    key: str
    variable: keras.Variable
    layout: str = "same"
    third: int | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape that the entry fills."""
        shape = tuple(self.variable.shape)
        return shape if self.third is None else (*shape[:-1], shape[-1] // 3)

    @property
    def torch_shape(self) -> tuple[int, ...]:
        """Shape that the tensor must have."""
        return tuple(LAYOUTS[self.layout].torch_shape(self.shape))


_TO_SWIN = [
    (r"\.attention\.(query|key|value)\.", r".attention.self.\1."),
    (r"\.attention\.q_proj\.", ".attention.self.query."),
    (r"\.attention\.k_proj\.", ".attention.self.key."),
    (r"\.attention\.v_proj\.", ".attention.self.value."),
    (r"\.attention\.o_proj\.", ".attention.output.dense."),
    (r"\.attention\.relative_position_bias\.", ".attention.self."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
]
_TO_VIT = [
    (r"^layers\.", "encoder.layer."),
    (r"\.attention\.q_proj\.", ".attention.attention.query."),
    (r"\.attention\.k_proj\.", ".attention.attention.key."),
    (r"\.attention\.v_proj\.", ".attention.attention.value."),
    *_TO_SWIN[4:5],
    *_TO_SWIN[6:],
]
_TO_BERT = [(r"LayerNorm\.gamma$", "LayerNorm.weight"), (r"LayerNorm\.beta$", "LayerNorm.bias")]
_RENAMED = {"swin": _TO_SWIN, "vit": _TO_VIT, "bert": _TO_BERT, "resnet": []}


def canonical(key: str, architecture: str) -> str:
    """The name that `*_entries` use for a tensor of that architecture.

    >>> canonical("layers.3.mlp.fc1.bias", "vit")
    'encoder.layer.3.intermediate.dense.bias'
    """
    for pattern, replacement in _RENAMED[architecture]:
        key = re.sub(pattern, replacement, key)
    return key


def count(keys: Iterable[str], pattern: str) -> int:
    """1 plus the largest number that the pattern's group takes among the keys; 0 where it never matches."""
    return 1 + max((int(found[1]) for key in keys if (found := re.match(pattern, key))), default=-1)


def resnet_sizes(shapes: Shapes) -> dict:
    """Constructor arguments of ResNetBackbone, image_shape aside; He et al., CVPR 2016."""
    num_stages = count(shapes, r"layer(\d)\.") - 1
    blocks = [count(shapes, rf"layer{n}\.(\d+)\.") for n in range(1, num_stages + 1)]
    missing = [f"layer{n}.0.conv1.weight" for n, number in enumerate(blocks, 1) if not number]
    require(blocks and not missing, "weights", "complete", f"no {', '.join(missing or ['layer1'])}")
    bottleneck = any(re.match(r"layer\d\.\d+\.conv3\.weight", key) for key in shapes)
    return {
        "input_conv_filters": [64],
        "input_conv_kernel_sizes": [7],
        "stackwise_num_filters": [64 * 2**n for n in range(num_stages)],
        "stackwise_num_blocks": blocks,
        "stackwise_num_strides": [1] + [2] * (num_stages - 1),
        "block_type": "bottleneck_block" if bottleneck else "basic_block",
    }


def resnet_entries(backbone: keras.Model) -> list[Entry]:
    """Tensors of torchvision's and timm's ResNet, the classifier aside."""
    entries = _conv_and_norm(backbone, "conv1", "conv1", "bn1")
    bottleneck = backbone.block_type == "bottleneck_block"
    for stack, num_blocks in enumerate(backbone.stackwise_num_blocks):
        for block in range(num_blocks):
            ours, theirs = f"stack{stack}_block{block}", f"layer{stack + 1}.{block}"
            if block == 0 and (bottleneck or stack > 0):
                entries += _conv_and_norm(
                    backbone, f"{ours}_0", f"{theirs}.downsample.0", f"{theirs}.downsample.1"
                )
            for n in range(1, 4 if bottleneck else 3):
                entries += _conv_and_norm(backbone, f"{ours}_{n}", f"{theirs}.conv{n}", f"{theirs}.bn{n}")
    return entries


def _conv_and_norm(backbone, ours: str, conv: str, norm: str) -> list[Entry]:
    batch_norm = backbone.get_layer(f"{ours}_bn")
    return [
        Entry(f"{conv}.weight", backbone.get_layer(f"{ours}_conv").kernel, "conv"),
        Entry(f"{norm}.weight", batch_norm.gamma),
        Entry(f"{norm}.bias", batch_norm.beta),
        Entry(f"{norm}.running_mean", batch_norm.moving_mean),
        Entry(f"{norm}.running_var", batch_norm.moving_variance),
    ]


def swin_sizes(shapes: Shapes, settings: Mapping, image_size: int) -> dict:
    """Constructor arguments of SwinTransformerBackbone, image_shape aside; Liu et al., ICCV 2021.

    Raises:
        ValueError: a shape to read the sizes off is missing, or settings that keras-hub's Swin has not, or an
            image size at which the two pad windows differently.
    """
    _only(settings, hidden_act="gelu", layer_norm_eps=1e-5, use_absolute_embeddings=False)
    patch = _shape(shapes, "embeddings.patch_embeddings.projection.weight")
    num_stages = len(settings.get("depths", ())) or count(shapes, r"encoder\.layers\.(\d+)\.")
    depths = [count(shapes, rf"encoder\.layers\.{s}\.blocks\.(\d+)\.") for s in range(num_stages)]
    tables = [
        _all(shapes, rf"encoder\.layers\.{s}\.blocks\.\d+\.attention\.self\.relative_position_bias_table")
        for s in range(num_stages)
    ]
    require(all(tables) and tables, "weights", "complete", "a stage without any relative_position_bias_table")
    norms = _all(shapes, r"encoder\.layers\.0\.blocks\.\d+\.layernorm_\w+\.(weight|bias)")
    embed_dim = _usual([patch[0], *(shape[0] for shape in norms)])
    window = (math.isqrt(_usual([shape[0] for stage in tables for shape in stage])) + 1) // 2
    inner = _all(shapes, r"encoder\.layers\.0\.blocks\.\d+\.intermediate\.dense\.bias")
    unit = patch[-1] * 2 ** (num_stages - 1) * window
    require(
        image_size % unit == 0,
        "--image_size",
        f"a multiple of {unit}, so that windows of {window} need no padding",
        image_size,
    )
    return {
        "embed_dim": embed_dim,
        "depths": tuple(settings.get("depths", depths)),
        "num_heads": tuple(_usual([shape[-1] for shape in stage]) for stage in tables),
        "window_size": window,
        "patch_size": patch[-1],
        "mlp_ratio": _usual([shape[0] for shape in inner]) / embed_dim if inner else 4.0,
        "qkv_bias": bool(_all(shapes, r".*attention\.self\.(query|key|value)\.bias")),
    }


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


def vit_sizes(shapes: Shapes, settings: Mapping, num_heads: int) -> dict:
    """Constructor arguments of ViTBackbone, Dosovitskiy et al., ICLR 2021; image_shape by the positions."""
    _only(settings, hidden_act="gelu")
    patch = _shape(shapes, "embeddings.patch_embeddings.projection.weight")
    num_patches = _shape(shapes, "embeddings.position_embeddings")[1] - 1
    side = math.isqrt(max(num_patches, 0))
    require(
        side * side == num_patches and side,
        "embeddings.position_embeddings",
        "a class token and a square of patches",
        shapes["embeddings.position_embeddings"],
    )
    inner = [shape[0] for shape in _all(shapes, r"encoder\.layer\.\d+\.intermediate\.dense\.bias")]
    norms = [shape[0] for shape in _all(shapes, r"encoder\.layer\.\d+\.layernorm_\w+\.weight")]
    require(bool(inner and norms), "weights", "complete", "no encoder.layer.0")
    return {
        "image_shape": (side * patch[-1], side * patch[-1], 3),
        "patch_size": patch[-1],
        "num_layers": settings.get("num_hidden_layers", count(shapes, r"encoder\.layer\.(\d+)\.")),
        "num_heads": _heads(_usual(norms), num_heads or settings.get("num_attention_heads", 0)),
        "hidden_dim": _usual(norms),
        "mlp_dim": _usual(inner),
        "layer_norm_epsilon": settings.get("layer_norm_eps", 1e-12),
        "use_mha_bias": True,
    }


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


def bert_sizes(shapes: Shapes, settings: Mapping, num_heads: int) -> dict:
    """Constructor arguments of BertBackbone; Devlin et al., NAACL 2019.

    Raises:
        ValueError: a shape to read the sizes off is missing, or settings that keras-hub's BERT has not.
    """
    _only(settings, hidden_act="gelu", layer_norm_eps=1e-12, position_embedding_type="absolute")
    inner = [shape[0] for shape in _all(shapes, r"encoder\.layer\.\d+\.intermediate\.dense\.bias")]
    norms = [shape[0] for shape in _all(shapes, r"encoder\.layer\.\d+\..*LayerNorm\.weight")]
    require(bool(inner and norms), "weights", "complete", "no encoder.layer.0")
    return {
        "vocabulary_size": _shape(shapes, "embeddings.word_embeddings.weight")[0],
        "num_layers": settings.get("num_hidden_layers", count(shapes, r"encoder\.layer\.(\d+)\.")),
        "num_heads": _heads(_usual(norms), num_heads or settings.get("num_attention_heads", 0)),
        "hidden_dim": _usual(norms),
        "intermediate_dim": _usual(inner),
        "max_sequence_length": _shape(shapes, "embeddings.position_embeddings.weight")[0],
    }


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
        name, block = f"encoder.layer.{i}", layer(f"transformer_layer_{i}")
        attention = block._self_attention_layer
        entries += [
            *_attention(f"{name}.attention.self", f"{name}.attention.output.dense", attention),
            *_norm(f"{name}.attention.output.LayerNorm", block._self_attention_layer_norm),
            *_dense(f"{name}.intermediate.dense", block._feedforward_intermediate_dense),
            *_dense(f"{name}.output.dense", block._feedforward_output_dense),
            *_norm(f"{name}.output.LayerNorm", block._feedforward_layer_norm),
        ]
    return entries


def build_resnet(sizes: dict, image_size: int) -> keras.Model:
    """The twin of a ResNet."""
    return keras_hub.models.ResNetBackbone(image_shape=(image_size, image_size, 3), **sizes)


def build_swin(sizes: dict, image_size: int) -> keras.Model:
    """The twin of a Swin Transformer."""
    return keras_hub.models.SwinTransformerBackbone(image_shape=(image_size, image_size, 3), **sizes)


def _attention(inputs: str, output: str, layer) -> list[Entry]:
    entries = []
    for part in ("query", "key", "value"):
        dense = getattr(layer, f"{part}_dense")
        entries.append(Entry(f"{inputs}.{part}.weight", dense.kernel, "dense"))
        entries.append(Entry(f"{inputs}.{part}.bias", dense.bias, "flat"))
    dense = layer.output_dense
    return [
        *entries,
        Entry(f"{output}.weight", dense.kernel, "dense_of_heads"),
        Entry(f"{output}.bias", dense.bias),
    ]


def _dense(key: str, layer) -> list[Entry]:
    return [Entry(f"{key}.weight", layer.kernel, "dense"), Entry(f"{key}.bias", layer.bias)]


def _norm(key: str, layer) -> list[Entry]:
    return [Entry(f"{key}.weight", layer.gamma), Entry(f"{key}.bias", layer.beta)]


def _shape(shapes: Shapes, key: str) -> tuple[int, ...]:
    require(key in shapes, "weights", "complete", f"no {key}", "Fetch the file again.")
    return shapes[key]


def _all(shapes: Shapes, pattern: str) -> list[tuple[int, ...]]:
    return [shape for key, shape in shapes.items() if re.fullmatch(pattern, key) and shape]


def _usual(values: list[int]) -> int:
    """The most frequent value: one tensor of a wrong shape does not decide, and is then named as wrong."""
    return collections.Counter(values).most_common(1)[0][0]


def _heads(width: int, given: int) -> int:
    number = given or (width // 64 if width % 64 == 0 else 0)
    require(
        number > 0 and width % number == 0,
        "--num_heads",
        f"a divisor of the width {width} (published models have heads of 64)",
        given,
        "Shapes do not tell the number of attention heads: give it, or a config.json beside the weights.",
    )
    return number


def _only(settings: Mapping, **needed) -> None:
    """Refuses settings of a config.json that the Keras twin does not have."""
    for name, value in needed.items():
        require(settings.get(name, value) == value, f"config.json: {name}", f"{value!r}", settings.get(name))
