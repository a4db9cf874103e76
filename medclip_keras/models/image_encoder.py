"""The image tower: a backbone by name, its feature map pooled over space, and regions for GLoRIA."""

import json
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import keras_hub
import numpy as np
from etils import epath
from keras import layers, ops

from medclip_keras.config import IMAGE_STATISTICS, ImageEncoderConfig
from medclip_keras.errors import near_names, require
from medclip_keras.models.packages import PACKAGES, load_packaged
from medclip_keras.models.sizes import EFFICIENTNET_LITE0, efficientnet, resnet_sizes
from medclip_keras.models.stages import depths, freeze, image_stages
from medclip_keras.objectives.loss import Tensor

# Published backbones: class of keras-hub, and its constructor arguments, image_shape aside.
PUBLISHED: dict[str, tuple[Callable[..., keras.Model], dict[str, Any]]] = {
    "resnet18": (keras_hub.models.ResNetBackbone, resnet_sizes("basic_block", [2, 2, 2, 2])),
    "resnet50": (keras_hub.models.ResNetBackbone, resnet_sizes("bottleneck_block", [3, 4, 6, 3])),
    "efficientnet_lite0": (efficientnet, EFFICIENTNET_LITE0),
    "swin_tiny": (
        keras_hub.models.SwinTransformerBackbone,
        {
            "embed_dim": 96,
            "depths": (2, 2, 6, 2),
            "num_heads": (3, 6, 12, 24),
            "window_size": 7,
            "patch_size": 4,
            "mlp_ratio": 4.0,
            "qkv_bias": True,
        },
    ),
}


def _published(config: ImageEncoderConfig) -> keras.Model:
    backbone, sizes = PUBLISHED[config.backbone]
    return backbone(image_shape=_input_shape(config), **sizes)


def _input_shape(config: ImageEncoderConfig) -> tuple[int, int, int]:
    side = config.upsampled_size or config.image_size
    return (side, side, 3)


def _small_resnet(config: ImageEncoderConfig) -> keras.Model:
    """Four stages of one basic block each, group normalised: for small images and few of them.

    Batch normalisation learned source statistics rather than findings on a few hundred radiographs;
    group normalisation (Wu and He, ECCV 2018) does not depend on the batch.
    """
    width = config.width
    require(width % 8 == 0, "model.image.width", "a multiple of 8 (channels a normalisation group)", width)
    inputs = keras.Input(_input_shape(config), name="images")
    x = layers.Conv2D(width, 5, strides=2, padding="same", use_bias=False, name="stem")(inputs)
    x = layers.GroupNormalization(groups=8, name="stem_norm")(x)
    x = ops.relu(x)
    x = layers.MaxPooling2D(3, strides=2, padding="same", name="stem_pool")(x)
    maps = {}
    for stage in range(4):
        x = _basic_block(x, width * 2**stage, strides=1 if stage == 0 else 2, name=f"stage{stage}")
        maps[f"P{stage + 2}"] = x
    backbone = keras.Model(inputs, x, name="small_resnet")
    backbone.pyramid_outputs = maps
    return backbone


def _basic_block(x, filters: int, strides: int, name: str):
    """relu(norm(conv(relu(norm(conv(x))))) + shortcut), as He et al., CVPR 2016, with group normalisation."""
    shortcut = x
    if strides != 1:  # then the width doubles
        shortcut = layers.AveragePooling2D(strides, name=f"{name}_shortcut_pool")(x)
        shortcut = layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_shortcut")(shortcut)
    x = layers.Conv2D(filters, 3, strides=strides, padding="same", use_bias=False, name=f"{name}_conv1")(x)
    x = ops.relu(layers.GroupNormalization(groups=8, name=f"{name}_norm1")(x))
    x = layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"{name}_conv2")(x)
    x = layers.GroupNormalization(groups=8, name=f"{name}_norm2")(x)
    return ops.relu(x + shortcut)


BACKBONES: dict[str, Callable[[ImageEncoderConfig], keras.Model]] = {
    "small_resnet": _small_resnet,
    **dict.fromkeys(PUBLISHED, _published),
}


def build_backbone(config: ImageEncoderConfig) -> keras.Model:
    """Build the configured backbone, with random weights or those of its preset.

    Returns:
        A model of images (B, S, S, 3) to a feature map (B, h, w, C) or to tokens (B, N, C).

    Raises:
        ValueError: an unknown backbone.
    """
    if config.preset in PACKAGES:
        return load_packaged(config.preset, _input_shape(config)[0])
    if config.preset:
        return _with_shape(config.preset, _input_shape(config))
    check_backbone(config)
    return BACKBONES[config.backbone](config)


def check_backbone(config: ImageEncoderConfig) -> None:
    """Refuse an unknown backbone of a tower without a preset."""
    advice = f"{near_names(config.backbone, BACKBONES)} model.image.preset loads any other of keras-hub."
    known = f"one of {', '.join(BACKBONES)}"
    has_one = bool(config.preset) or config.backbone in BACKBONES
    require(has_one, "model.image.backbone", known, config.backbone, advice)


def _with_shape(preset: str, shape: tuple[int, int, int]) -> keras.Model:
    """Load an image preset for images of that shape."""
    backbone = load_preset(keras_hub.models.Backbone, preset, image_shape=shape)
    if backbone.input_shape[1:] != shape and isinstance(backbone, keras_hub.models.EfficientNetBackbone):
        return load_preset(keras_hub.models.Backbone, preset, input_shape=shape)  # as that class calls it
    return backbone


def load_preset(backbone: type[keras_hub.models.Backbone], preset: str, **options: Any) -> keras.Model:
    """Load a preset of keras-hub; from an architecture file (.json), the backbone with random weights.

    The backbone computes in the global precision, not in that of the run that wrote the file.
    """
    if preset.endswith(".json"):
        architecture = json.loads(epath.Path(preset).read_text(), object_hook=_without_policy)
        return keras.saving.deserialize_keras_object(architecture)
    return backbone.from_preset(preset, **options)


def _without_policy(config: dict[str, Any]) -> dict[str, Any]:
    """Drop the precision of a serialised layer; `dtype` as a plain name is that of an input."""
    return {k: v for k, v in config.items() if k != "dtype" or isinstance(v, str)}


def architecture_of(backbone: keras.Model) -> str:
    """The content of an architecture file for `load_preset`."""
    return json.dumps(keras.saving.serialize_keras_object(backbone), indent=1)


def statistics_of(config: ImageEncoderConfig) -> str:
    """Key of IMAGE_STATISTICS for the backbone's input.

    >>> statistics_of(ImageEncoderConfig(preset="efficientnet_lite0")), statistics_of(ImageEncoderConfig())
    ('half', 'medclip')
    """
    if config.statistics != "auto":
        return config.statistics
    return PACKAGES[config.preset].statistics if config.preset in PACKAGES else "medclip"


def renormalise(images: Tensor, statistics: str) -> Tensor:
    """Gray images (B, S, S, 1) of MedCLIP's statistics as three channels (B, S, S, 3) of others.

    >>> import numpy as np
    >>> black_and_white = np.array([-2.097674, 1.480143])[:, None, None, None]
    >>> [f"{x:.3f}" for x in np.ravel(renormalise(black_and_white, "half"))]
    ['-1.000', '-1.000', '-1.000', '1.000', '1.000', '1.000']
    """
    images = ops.repeat(images, 3, axis=-1)
    if statistics == "medclip":
        return images
    (mean,), (deviation,) = IMAGE_STATISTICS["medclip"]
    means, deviations = (np.array(values) for values in IMAGE_STATISTICS[statistics])
    scale, shift = deviation / deviations, (mean - means) / deviations
    return images * ops.cast(scale, images.dtype) + ops.cast(shift, images.dtype)


class ImageFeatures(NamedTuple):
    """Outputs of the image tower for a batch, not normalised."""

    embeddings_unnormalized: Tensor  # (B, D), of whole images
    # (B, F), the backbone's feature map pooled over space: input of the projection, of linear probes and of
    # classifiers
    pooled: Tensor
    regions: Tensor = None  # (B, num_regions, D), of places in the images; None without local features


class ImageEncoder(keras.Model):
    """Radiographs to embeddings: backbone, mean (and maximum) over space, bias-free projection.

    Follows: Wang et al., EMNLP 2022, section 3.2; with `projection="mlp"` Zhang et al., MLHC 2022, section
    3.1; with `local_features` Huang et al., ICCV 2021 (GLoRIA), section 3.2: regions are the places of the
    feature map at a sixteenth of the side (ResNet's third stage), or of the last map of a backbone without
    that map, each projected by the same matrix.

    `projection_dim` is D; `projection` is "linear", or "mlp" with one hidden layer.
    """

    def __init__(
        self,
        config: ImageEncoderConfig,
        projection_dim: int,
        *,
        projection: str = "linear",
        local_features: bool = False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.image_size, self.upsampled_size = config.image_size, config.upsampled_size
        self.local_features, self.statistics = local_features, statistics_of(config)
        backbone = build_backbone(config)
        self.architecture = architecture_of(backbone) if config.preset else ""
        stages = image_stages(backbone)
        freeze(stages, config.frozen_stages, "model.image.frozen_stages")
        self.pooling, self.depths = config.pooling, depths(stages)
        if local_features:
            region_map = getattr(backbone, "pyramid_outputs", {}).get("P4", backbone.output)
            backbone = keras.Model(backbone.inputs, [backbone.output, region_map], name=backbone.name)
            self.region_projection = layers.Dense(projection_dim, use_bias=False, name="region_projection")
        self.backbone = backbone
        width = backbone.outputs[0].shape[-1] * (2 if config.pooling == "mean_max" else 1)
        self.hidden = hidden_layer(width) if projection == "mlp" else None
        self.projection = layers.Dense(projection_dim, use_bias=False, name="projection")

    def call(self, images, training=False) -> ImageFeatures:
        """Embed images; with local features their regions too.

        Args:
            images: float (B, S, S, 1), normalised grey values.
            training: whether to use batch statistics and dropout.
        """
        maps = self.backbone(self.prepare(images), training=training and self.backbone.trainable)
        last, region_map = maps if self.local_features else (maps, None)  # (B, h, w, C) or (B, N, C)
        embeddings, pooled = self.embed_map(last)
        if region_map is None:
            return ImageFeatures(embeddings, pooled)
        places = ops.reshape(region_map, (-1, math.prod(region_map.shape[1:-1]), region_map.shape[-1]))
        return ImageFeatures(embeddings, pooled, self.region_projection(places))

    def prepare(self, images):
        """The backbone's input (B, S', S', 3) of normalised images (B, S, S, 1)."""
        if self.upsampled_size:
            side = (self.upsampled_size, self.upsampled_size)
            images = ops.image.resize(images, side, interpolation="bilinear")
        return renormalise(images, self.statistics)

    def features(self, images):
        """Pooled features (B, F) of normalised images (B, S, S, 1), as inference computes them."""
        maps = self.backbone(self.prepare(images), training=False)
        return self.pool(maps[0] if self.local_features else maps)

    def pool(self, last):
        """Pool maps (B, h, w, C) or (B, N, C) over space: the mean (B, C), or mean and maximum (B, 2C)."""
        places = tuple(range(1, len(last.shape) - 1))
        mean = ops.mean(last, axis=places)
        if self.pooling == "mean":
            return mean
        return ops.concatenate([mean, ops.max(last, axis=places)], axis=-1)

    def project(self, pooled):
        """Embeddings (B, D), not normalised, of pooled features (B, F)."""
        return self.projection(pooled if self.hidden is None else self.hidden(pooled))

    def embed_map(self, last):
        """Embeddings (B, D), not normalised, and pooled features (B, F) of maps (B, h, w, C) or (B, N, C)."""
        pooled = self.pool(last)
        return self.project(pooled), pooled


def hidden_layer(width: int) -> layers.Dense:
    """The hidden layer of an "mlp" projection, as wide as its input."""
    return layers.Dense(width, activation="relu", name="projection_hidden")
