"""Constructor arguments of published image backbones of keras-hub, image_shape aside."""

from typing import Any

import keras
import keras_hub


def resnet_sizes(block_type: str, num_blocks: list[int]) -> dict[str, Any]:
    """Constructor arguments of ResNetBackbone, image_shape aside; He et al., CVPR 2016.

    >>> resnet_sizes("basic_block", [2, 2, 2, 2])["stackwise_num_filters"]
    [64, 128, 256, 512]
    """
    return {
        "input_conv_filters": [64],
        "input_conv_kernel_sizes": [7],
        "stackwise_num_filters": [64 * 2**stage for stage in range(len(num_blocks))],
        "stackwise_num_blocks": num_blocks,
        "stackwise_num_strides": [1] + [2] * (len(num_blocks) - 1),
        "block_type": block_type,
    }


# Stages of EfficientNet-B0 without squeeze-and-excitation; Tan and Le, ICML 2019, and TensorFlow's release of
# the lite models. TensorFlow pads a strided convolution at its end ("same"), and its batch normalisation has
# epsilon 1e-3; keras-hub's "v1" block pads both ends, so only the first stage, of stride 1, is one.
EFFICIENTNET_LITE0: dict[str, Any] = {
    "stackwise_width_coefficients": [1.0] * 7,
    "stackwise_depth_coefficients": [1.0] * 7,
    "stackwise_kernel_sizes": [3, 3, 5, 3, 5, 5, 3],
    "stackwise_num_repeats": [1, 2, 2, 3, 3, 4, 1],
    "stackwise_input_filters": [32, 16, 24, 40, 80, 112, 192],
    "stackwise_output_filters": [16, 24, 40, 80, 112, 192, 320],
    "stackwise_expansion_ratios": [1, 6, 6, 6, 6, 6, 6],
    "stackwise_strides": [1, 2, 2, 2, 1, 2, 1],
    "stackwise_squeeze_and_excite_ratios": [0] * 7,
    "stackwise_block_types": ["v1"] + ["unfused"] * 6,
    "include_stem_padding": False,
    "stem_conv_padding": "same",
    "batch_norm_momentum": 0.99,
    "batch_norm_epsilon": 1e-3,
    "activation": "relu6",
    "dropout": 0.0,
}


def efficientnet(image_shape: tuple[int, int, int], **sizes: Any) -> keras.Model:
    """Build EfficientNetBackbone, whose `input_shape` the other backbones call `image_shape`."""
    return keras_hub.models.EfficientNetBackbone(input_shape=image_shape, **sizes)
