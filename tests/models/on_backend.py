"""Run as a process of its own, under KERAS_BACKEND: what the models and the objectives say on that backend.

Usage: on_backend.py GIVEN.npz OUTPUT.npz (a given file without weights receives those of this process)
"""

import inspect
import pathlib
import sys

import keras
import numpy as np

sys.path.append(str(pathlib.Path(__file__).parents[1] / "objectives"))

from objective_cases import make_cases

from medclip_keras.config import ImageEncoderConfig, ModelConfig, TextEncoderConfig
from medclip_keras.models.dual_encoder import DualEncoder
from medclip_keras.models.image_encoder import BACKBONES
from medclip_keras.objectives.catalogue import OBJECTIVES, objective_function

NAMES = {
    "v": "image_embeddings", "t": "text_embeddings", "scale": "logit_scale", "bias": "logit_bias",
    "a": "image_labels", "b": "text_labels", "mask": "word_mask",
}  # fmt: skip


def normalised(config: ImageEncoderConfig) -> keras.Model:
    """A convolution with batch normalisation."""
    images = keras.Input((config.image_size, config.image_size, 3))
    maps = keras.layers.Conv2D(8, 8, strides=8)(images)
    return keras.Model(images, keras.layers.BatchNormalization()(maps))


BACKBONES["normalised"] = normalised


def make_model(backbone: str) -> DualEncoder:
    text = TextEncoderConfig(num_layers=2, num_heads=2, hidden_dim=16, intermediate_dim=32, dropout=0.1)
    image = ImageEncoderConfig(backbone=backbone, image_size=32, width=8)
    config = ModelConfig(image=image, text=text, projection_dim=12)
    return DualEncoder(config, 40, 9, local_features=True).build_towers()


def make_inputs() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(2)
    mask = np.arange(9) < np.array([[9], [4], [6]])
    return {
        "images": rng.normal(size=(3, 32, 32, 1)).astype("float32"),
        "token_ids": (rng.integers(1, 40, (3, 9)) * mask).astype("int32"),
        "padding_mask": mask.astype("int32"),
        "word_ids": np.where(mask, np.arange(9) // 2, -1).astype("int32"),
    }


def gradient(loss, v: np.ndarray) -> np.ndarray:
    """Of a function of the image embeddings."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(jax.grad(loss))(v)
    x = keras.ops.convert_to_tensor(v)
    if keras.backend.backend() == "torch":
        x.requires_grad_()
        loss(x).backward()
        return x.grad
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(x)
        value = loss(x)
    return tape.gradient(value, x)


def losses() -> dict[str, np.ndarray]:
    """Of every objective, plain and in tiles of two: its value and its gradient."""
    cases, found = make_cases(), {}
    for name in OBJECTIVES:
        objective = objective_function(name)
        parameters = inspect.signature(objective).parameters
        batch = {NAMES.get(k, k): x for k, x in cases[name].batch.items()}
        batch = {k: x.astype("int32" if x.dtype.kind == "i" else "float32") for k, x in batch.items()}
        batch = {k: x for k, x in batch.items() if k in parameters}
        v = batch.pop("image_embeddings")
        for tile_size in (0, 2) if "tile_size" in parameters else (0,):
            options = batch | ({"tile_size": tile_size} if tile_size else {})

            def loss(v, objective=objective, options=options):
                return objective(v, **options).loss

            found[f"{name} {tile_size}"] = loss(v)
            found[f"{name} {tile_size} gradient"] = gradient(loss, v)
    return found


def main(given: pathlib.Path, output: str) -> None:
    models = {name: make_model(name) for name in ("small_resnet", "normalised")}
    if given.exists():
        weights = np.load(given)
        for name, model in models.items():
            model.set_weights([weights[f"{name} {i}"] for i in range(len(model.weights))])
    else:
        np.savez(given, **{f"{n} {i}": w for n, m in models.items() for i, w in enumerate(m.get_weights())})
    found = losses()
    for name, model in models.items():
        outputs = model(make_inputs(), training=False) | {"logit_scale": model.logit_scale()}
        trained = model(make_inputs(), training=True)["image_embeddings"]  # by the batch's own statistics
        found |= {f"{name} {key}": x for key, x in (outputs | {"trained": trained}).items()}
    np.savez(output, **{k: keras.ops.convert_to_numpy(x) for k, x in found.items()})


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), sys.argv[2])
