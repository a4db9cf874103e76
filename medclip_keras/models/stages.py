"""Stages of a backbone from the input to the output, for freezing by depth and rates by depth."""

from collections.abc import Mapping, Sequence

import keras

from medclip_keras.errors import require

Stages = list[list[keras.layers.Layer]]  # of layers with weights, the first at the input

_EMBEDDINGS = ("token_embedding", "position_embedding", "segment_embedding", "embeddings_layer_norm")


def image_stages(backbone: keras.Model) -> Stages:
    """The levels of the backbone's feature pyramid; without one, each of its layers.

    What comes before the first level belongs to it, what comes after the last one to the last.
    """
    pyramid = getattr(backbone, "pyramid_outputs", {})
    levels = [pyramid[name] for name in sorted(pyramid, key=lambda name: int(name[1:]))]
    layers = [layer for layer in backbone.layers if layer.weights]
    if not levels:
        return [[layer] for layer in layers]
    stages: Stages = []
    for level in [*levels[:-1], None]:
        below = layers if level is None else keras.Model(backbone.inputs, level).layers
        known = {id(layer) for stage in stages for layer in stage}
        stages.append([layer for layer in layers if layer in below and id(layer) not in known])
    return [stage for stage in stages if stage]


def text_stages(backbone: keras.Model) -> Stages:
    """BERT's embeddings, then each transformer layer."""
    embeddings = [getattr(backbone, name) for name in _EMBEDDINGS]
    return [embeddings, *([layer] for layer in backbone.transformer_layers)]


def freeze(stages: Stages, number: int, field: str) -> None:
    """Freeze the first stages; batch normalisation in them is in inference mode.

    Raises:
        ValueError: more stages than there are.
    """
    require(number <= len(stages), field, f"at most {len(stages)} stages", number)
    for layer in (layer for stage in stages[:number] for layer in stage):
        layer.trainable = False


def freeze_by_depth(backbone: keras.Model, depth_of: Mapping[str, int], number: int) -> None:
    """Freeze the first stages of a backbone whose `depths` are known."""
    last = max(depth_of.values()) - number  # depth of the lowest stage that learns
    for layer in backbone.layers:
        if layer.weights and depth_of[layer.weights[0].path] > last:
            layer.trainable = False


def depths(stages: Sequence[Sequence[keras.layers.Layer]]) -> dict[str, int]:
    """Map each variable's path to its stage's depth from the top: 1 for the last stage."""
    below = enumerate(reversed(stages), 1)
    return {v.path: depth for depth, stage in below for layer in stage for v in layer.weights}
