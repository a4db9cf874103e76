"""Run as a process of its own: loss and gradients of every objective on two logical CPU devices.

Usage: replica_gradients.py OUTPUT.npz

Each replica holds some images and some texts, gathers what the others hold, computes the loss of the global
batch, and differentiates its share of it (the loss over the number of replicas) by what it holds itself.
"""

import sys

import numpy as np
import tensorflow as tf
from objective_cases import ON_REPLICAS, make_cases

from medclip_keras.config import TrainConfig
from medclip_keras.training.replicas import gather, make_strategy

SHARES = (slice(0, 3), slice(3, None))


def main(output: str) -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = make_strategy(TrainConfig(strategy="mirrored"))
    assert strategy.num_replicas_in_sync == 2
    cases = {name: case for name, case in make_cases().items() if name in ON_REPLICAS}

    def share(x, replica):
        return tf.constant(x[SHARES[replica]] if x.ndim else x)

    batches = {id(case.batch): case.batch for case in cases.values()}
    held = strategy.experimental_distribute_values_from_function(
        lambda context: {
            key: {k: share(x, context.replica_id_in_sync_group) for k, x in batch.items()}
            for key, batch in batches.items()
        }
    )

    def objectives(held):
        found = {}
        with tf.GradientTape(persistent=True) as tape:
            tape.watch([x for mine in held.values() for x in mine.values() if x.dtype.is_floating])
            together = {
                key: {k: gather(x) if x.shape.rank else x for k, x in mine.items()}
                for key, mine in held.items()
            }
            losses = {name: case.ours(**together[id(case.batch)]) for name, case in cases.items()}
            parts = {name: loss / 2 for name, loss in losses.items()}
        for name, case in cases.items():
            mine = held[id(case.batch)]
            found[name] = tape.gradient(parts[name], {k: mine[k] for k in case.learned})
            found[name]["loss"] = losses[name]
        return found

    found = strategy.run(tf.function(objectives), args=(held,))
    arrays = {
        f"{name}/{replica}/{k}": x.numpy()
        for name, values in found.items()
        for k, value in values.items()
        for replica, x in enumerate(strategy.experimental_local_results(value))
    }
    np.savez(output, **arrays)


if __name__ == "__main__":
    main(sys.argv[1])
