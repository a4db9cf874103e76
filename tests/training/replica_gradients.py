"""Run as a process of its own: gradients of one global batch on as many logical CPU devices as asked.

Usage: replica_gradients.py NUM_REPLICAS OUTPUT.npz CASE…

A case is BACKBONE/OBJECTIVE/CHUNK_SIZE, or BACKBONE/OBJECTIVE/CHUNK_SIZE/xla with compiled towers.

Of the last case the weights after two steps too.
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
from medclip_keras.training.accumulation import AccumulatedStep
from medclip_keras.training.model import MedCLIP
from medclip_keras.training.replicas import make_strategy, sum_over_replicas

NUM_ITEMS = 7  # no number of replicas shares them evenly
NUM_STEPS = 2


def tiny_resnet(config: ImageEncoderConfig) -> keras.Model:
    """keras-hub's ResNet with its batch normalisation, small enough to trace often in a test."""
    return keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64],
        stackwise_num_blocks=[1],
        stackwise_num_strides=[1],
        block_type="basic_block",
        image_shape=(config.image_size, config.image_size, 3),
    )


def tiny_convolution(config: ImageEncoderConfig) -> keras.Model:
    """One convolution: nothing of it depends on the batch."""
    images = keras.Input((config.image_size, config.image_size, 3))
    return keras.Model(images, keras.layers.Conv2D(8, 8, strides=8, activation="tanh")(images))


BACKBONES |= {"tiny_resnet": tiny_resnet, "tiny_convolution": tiny_convolution}
RELATED = np.diag([1.0, 2, 3, 1, 1]) + 0.5  # labels' kernel, with batch normalisation


def make_run(backbone: str, objective: str, **train) -> RunConfig:
    text = TextEncoderConfig(num_layers=1, num_heads=2, hidden_dim=16, intermediate_dim=32, dropout=0.0)
    image = ImageEncoderConfig(backbone=backbone, image_size=32, width=8)
    return RunConfig(
        "replicas",
        data=DataConfig(stored_image_size=72, max_tokens=9),
        model=ModelConfig(image=image, text=text, projection_dim=12),
        objective=ObjectiveConfig(name=objective),
        train=TrainConfig(batch_size=8, clip_norm=0.05, **train),
    )


def make_batches() -> tf.data.Dataset:
    rng, size = np.random.default_rng(5), NUM_ITEMS * NUM_STEPS
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
    return tf.data.Dataset.from_tensor_slices(batch).batch(NUM_ITEMS)


def make_model(strategy: tf.distribute.Strategy, backbone: str, objective: str, **train) -> MedCLIP:
    keras.utils.set_random_seed(3)
    run = make_run(backbone, objective, **train)
    with strategy.scope():
        model = MedCLIP(run, 40, RELATED if backbone == "tiny_resnet" else None).build_towers()
        model.compile(optimizer=keras.optimizers.SGD(0.1), jit_compile=False)
    return model


def gradients_of(model: MedCLIP, batch) -> tuple:
    """Loss and summed gradients of a distributed batch."""
    strategy = model.distribute_strategy
    if model.chunk_size:
        (loss, _), shares = AccumulatedStep(model, model.chunk_size).gradients(batch)
        return loss, strategy.run(tf.function(lambda g: [sum_over_replicas(x) for x in g]), args=(shares,))

    def direct(batch):
        outcome, gradients = model.global_gradients(batch)
        return outcome.loss, gradients

    return tf.function(lambda b: strategy.run(direct, args=(b,)), autograph=False)(batch)


def main(num_replicas: int, output: str, cases: list[str]) -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * num_replicas)
    strategy = make_strategy(
        TrainConfig(strategy="mirrored" if num_replicas > 1 else "one_device", batch_size=8)
    )
    assert strategy.num_replicas_in_sync == num_replicas
    first = next(iter(strategy.experimental_distribute_dataset(make_batches())))

    def local(x):
        return strategy.experimental_local_results(x)[0].numpy()

    found = {}
    for case in cases:
        backbone, objective, chunk_size, *xla = case.split("/")
        model = make_model(
            strategy, backbone, objective, chunk_size=int(chunk_size), jit_compile=xla == ["xla"]
        )
        loss, gradients = gradients_of(model, first)
        found[f"{backbone}/{objective}/loss"] = local(loss)
        for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
            found[f"{backbone}/{objective}/{variable.path}"] = local(gradient)
    model.make_train_function()
    steps = iter(
        strategy.experimental_distribute_dataset(make_batches())
    )  # `fit` builds of even shares alone
    logs = [model.train_function(steps) for _ in range(NUM_STEPS)]
    found |= {
        f"weight/{i} {v.name}": v.numpy() for i, v in enumerate(model.variables) if "seed" not in v.path
    }
    np.savez(output, **found, **{f"logs/{k}": [float(step[k]) for step in logs] for k in logs[0]})


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
