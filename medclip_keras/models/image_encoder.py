"""The image tower: a backbone by name, its feature map averaged over space."""

import keras
import keras_hub
from keras import layers, ops

from medclip_keras.config import ImageEncoderConfig, require


def _resnet(config: ImageEncoderConfig, block_type: str, num_blocks: list[int]) -> keras.Model:
    """He et al., CVPR 2016: 18 layers are [2, 2, 2, 2] basic blocks, 50 are [3, 4, 6, 3] bottlenecks."""
    return keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, 128, 256, 512],
        stackwise_num_blocks=num_blocks,
        stackwise_num_strides=[1, 2, 2, 2],
        block_type=block_type,
        image_shape=(config.image_size, config.image_size, 3),
    )


def _swin_tiny(config: ImageEncoderConfig) -> keras.Model:
    return keras_hub.models.SwinTransformerBackbone(
        image_shape=(config.image_size, config.image_size, 3),
        embed_dim=96,
        depths=(2, 2, 6, 2),
        num_heads=(3, 6, 12, 24),
        window_size=7,
    )


def _small_resnet(config: ImageEncoderConfig) -> keras.Model:
    """Four stages of one basic block each, group normalised: for small images and few of them.

    Batch normalisation learned source statistics rather than findings on a few hundred radiographs;
    group normalisation (Wu and He, ECCV 2018) does not depend on the batch.
    """
    width = config.width
    require(width % 8 == 0, "model.image.width", "a multiple of 8 (channels a normalisation group)", width)
    inputs = keras.Input((config.image_size, config.image_size, 3), name="images")
    x = layers.Conv2D(width, 5, strides=2, padding="same", use_bias=False, name="stem")(inputs)
    x = layers.GroupNormalization(groups=8, name="stem_norm")(x)
    x = ops.relu(x)
    x = layers.MaxPooling2D(3, strides=2, padding="same", name="stem_pool")(x)
    for stage in range(4):
        x = _basic_block(x, width * 2**stage, strides=1 if stage == 0 else 2, name=f"stage{stage}")
    return keras.Model(inputs, x, name="small_resnet")


def _basic_block(x, filters: int, strides: int, name: str):
    """relu(norm(conv(relu(norm(conv(x))))) + shortcut), as He et al., CVPR 2016, with group normalisation."""
    shortcut = x
    if strides != 1 or x.shape[-1] != filters:
        shortcut = layers.AveragePooling2D(strides, name=f"{name}_shortcut_pool")(x) if strides != 1 else x
        shortcut = layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_shortcut")(shortcut)
    x = layers.Conv2D(filters, 3, strides=strides, padding="same", use_bias=False, name=f"{name}_conv1")(x)
    x = ops.relu(layers.GroupNormalization(groups=8, name=f"{name}_norm1")(x))
    x = layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"{name}_conv2")(x)
    x = layers.GroupNormalization(groups=8, name=f"{name}_norm2")(x)
    return ops.relu(x + shortcut)


BACKBONES = {
    "small_resnet": _small_resnet,
    "resnet18": lambda config: _resnet(config, "basic_block", [2, 2, 2, 2]),
    "resnet50": lambda config: _resnet(config, "bottleneck_block", [3, 4, 6, 3]),
    "swin_tiny": _swin_tiny,
}


def build_backbone(config: ImageEncoderConfig) -> keras.Model:
    """The backbone that `config` names, with random weights or those of its preset.

    Returns:
        A model of images (B, S, S, 3) to a feature map (B, h, w, C) or to tokens (B, N, C).

    Raises:
        ValueError: an unknown backbone.
    """
    if config.preset:
        return keras_hub.models.Backbone.from_preset(
            config.preset, image_shape=(config.image_size, config.image_size, 3)
        )
    require(
        config.backbone in BACKBONES,
        "model.image.backbone",
        f"one of {', '.join(BACKBONES)}",
        config.backbone,
        "Or name anything that keras-hub loads with model.image.preset.",
    )
    return BACKBONES[config.backbone](config)


def synchronise_batch_normalisation(backbone: keras.Model) -> None:
    """Makes batch statistics those of the global batch, so that the number of replicas changes nothing."""
    for layer in backbone._flatten_layers():
        if isinstance(layer, layers.BatchNormalization):
            layer.synchronized = True


class ImageEncoder(keras.Model):
    """Radiographs to embeddings: backbone, mean over space, bias-free projection.

    Follows: Wang et al., EMNLP 2022, section 3.2.
    """

    def __init__(self, config: ImageEncoderConfig, projection_dim: int, **kwargs):
        super().__init__(**kwargs)
        self.image_size = config.image_size
        self.backbone = build_backbone(config)
        synchronise_batch_normalisation(self.backbone)
        self.projection = layers.Dense(projection_dim, use_bias=False, name="projection")

    def call(self, images, training=False):
        """Embeds images.

        Args:
            images: float (B, S, S, 1), normalised grey values.
            training: whether batch statistics and dropout are those of training.

        Returns:
            float (B, projection_dim), not normalised.
        """
        features = self.backbone(
            ops.repeat(images, 3, axis=-1), training=training
        )  # (B, h, w, C) or (B, N, C)
        pooled = ops.mean(features, axis=tuple(range(1, len(features.shape) - 1)))  # (B, C)
        return self.projection(pooled)  # (B, projection_dim)
