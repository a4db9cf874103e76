"""Run as a process of its own: one step of AdamWByLayer on as many logical CPU devices as asked.

Usage: rates_on_devices.py NUM_REPLICAS OUTPUT.npz
"""

import sys

import keras
import numpy as np
import tensorflow as tf

from medclip_keras.training.layer_rates import AdamWByLayer

START, RATE, DECAY = [2.0, 4.0, 8.0], 0.1, 0.5
FACTORS = {1: 0.5, 2: 0.25}  # of the second and the third variable


def step(strategy: tf.distribute.Strategy) -> list[float]:
    """Weights of the last replica after a step; gradients are positive, so Adam's step is of length 1."""
    with strategy.scope():
        weights = [keras.Variable(value) for value in START]
        rates = {id(weights[k]): factor for k, factor in FACTORS.items()}
        optimizer = AdamWByLayer(rates, RATE, weight_decay=DECAY)
        optimizer.build(weights)
    gradients = [tf.constant(3.0)] * len(weights)
    strategy.run(tf.function(lambda: optimizer.apply(gradients, weights)))
    return [float(strategy.experimental_local_results(w.value)[-1].numpy()) for w in weights]


def main(num_replicas: int, output: str) -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * num_replicas)
    devices = [device.name for device in tf.config.list_logical_devices("CPU")]
    assert len(devices) == num_replicas
    np.savez(output, weights=step(tf.distribute.MirroredStrategy(devices)))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
