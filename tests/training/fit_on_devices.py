"""Run in its own process: `medclip_keras.fit` on logical CPU devices, perhaps stopped by Ctrl-C.

Usage: fit_on_devices.py NUM_DEVICES STOP_AFTER_STEP FIT_ARGUMENTS… (STOP_AFTER_STEP 0: do not stop)
"""

import os
import signal
import sys

import tensorflow as tf

from medclip_keras import fit
from medclip_keras.training import callbacks, train


def main(num_devices: int, stop_after: int, arguments: list[str]) -> int:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * num_devices)

    class SendsInterrupt(callbacks.ScalarLog):
        def on_step(self, step, logs):
            super().on_step(step, logs)
            if step == stop_after:
                os.kill(os.getpid(), signal.SIGINT)

    train.ScalarLog = SendsInterrupt
    return fit.main(arguments)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]))
