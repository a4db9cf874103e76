"""Run as a process of its own: gradients of one global batch on as many logical CPU devices as asked.

Usage: two_replicas.py NUM_REPLICAS BACKBONE OBJECTIVE OUTPUT.npz
"""

import sys

import keras
import keras_hub
import numpy as np
import tensorflow as tf

from medclip_keras.config import (
    DataConfig,
    ImageEncoderConfig,
    ModelConfig,
    ObjectiveConfig,
    RunConfig,
    TextEncoderConfig,
    TrainConfig,
)
from medclip_keras.models.image_encoder import BACKBONES
from medclip_keras.training.model import MedCLIP
from medclip_keras.training.replicas import make_strategy

NUM_STEPS = 3


def tiny_resnet(config: ImageEncoderConfig) -> keras.Model:
    """keras-hub's ResNet with its batch normalisation, small enough to trace twice in a test."""
    return keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64],
        stackwise_num_blocks=[1],
        stackwise_num_strides=[1],
        block_type="basic_block",
        image_shape=(config.image_size, config.image_size, 3),
    )


BACKBONES["tiny_resnet"] = tiny_resnet
KERNELS = {
    "small_resnet": None,
    "tiny_resnet": np.diag([1.0, 2, 3, 1, 1]) + 0.5,
}  # labels as they are; related


def make_run(backbone: str, objective: str) -> RunConfig:
    return RunConfig(
        "two_replicas",
        data=DataConfig(stored_image_size=72, max_tokens=9),
        model=ModelConfig(
            image=ImageEncoderConfig(backbone=backbone, image_size=32, width=8),
            text=TextEncoderConfig(
                num_layers=3, num_heads=2, hidden_dim=16, intermediate_dim=32, dropout=0.0
            ),
            projection_dim=12,
        ),
        objective=ObjectiveConfig(name=objective),
        train=TrainConfig(batch_size=8, clip_norm=0.05),
    )


def make_batches(rng) -> tf.data.Dataset:
    size = 8 * NUM_STEPS
    masks = np.arange(9) < rng.integers(3, 10, (size, 1))
    batch = {
        "images": rng.normal(size=(size, 32, 32, 1)).astype("float32"),
        "image_labels": rng.integers(0, 2, (size, 5)).astype("float32"),
        "image_known": np.ones((size, 5), "float32"),
        "token_ids": (rng.integers(1, 40, (size, 9)) * masks).astype("int32"),
        "padding_mask": masks.astype("int32"),
        "text_labels": rng.integers(0, 2, (size, 5)).astype("float32"),
        "text_known": rng.integers(0, 2, (size, 5)).astype("float32"),
        "word_ids": np.where(masks, np.arange(9) // 2, -1).astype("int32"),
        "image_study": np.arange(size) // 2,
        "text_study": np.arange(size) // 2 + rng.integers(0, 2, size),
    }
    return tf.data.Dataset.from_tensor_slices(batch).batch(8, drop_remainder=True)


def main(num_replicas: int, backbone: str, objective: str, output: str) -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * num_replicas)
    keras.utils.set_random_seed(3)
    run = make_run(backbone, objective)
    strategy = make_strategy(TrainConfig(strategy="mirrored" if num_replicas > 1 else "one_device"))
    assert strategy.num_replicas_in_sync == num_replicas
    with strategy.scope():
        model = MedCLIP(run, 40, KERNELS[backbone]).build_towers()
        model.compile(optimizer=keras.optimizers.SGD(0.1), jit_compile=False)
    batches = make_batches(np.random.default_rng(5))

    def gradients(batch):
        outcome, grads = model.global_gradients(batch)
        return outcome.loss, grads

    first = next(iter(strategy.experimental_distribute_dataset(batches)))
    loss, grads = strategy.run(tf.function(gradients), args=(first,))

    def local(x):
        return strategy.experimental_local_results(x)[0].numpy()

    found = {
        "loss": local(loss),
        **{f"gradient/{v.path}": local(g) for v, g in zip(model.trainable_variables, grads, strict=True)},
    }
    history = model.fit(batches, epochs=1, verbose=0).history
    found |= {f"weight/{v.path}": v.numpy() for v in model.variables if "seed" not in v.path}
    np.savez(output, **found, **{f"history/{k}": v for k, v in history.items()})


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
