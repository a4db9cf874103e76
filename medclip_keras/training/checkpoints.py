"""Checkpoints that an unbroken and a resumed run share bit for bit: weights, seeds, optimizer and step."""

import tensorflow as tf
from etils import epath

from medclip_keras.training.model import MedCLIP


class Checkpoints:
    """The last checkpoints of a run, to go on from, and the best one on the validation split, to use.

    TensorFlow writes a checkpoint's files under new names before it points to them: a killed process
    leaves the one before. Model variables hold the state of the dropout seeds too, so dropout goes on where
    it was; the batches need nothing saved, for batch k is a function of the seed and k.

    Args:
        directory: folder of the checkpoints.
        model: the model, with every weight created.
        resumable: False where only weights are wanted (no optimizer is restored then).
    """

    def __init__(self, directory: str, model: MedCLIP, resumable: bool = True):
        self.step = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.best_kl = tf.Variable(float("inf"), dtype=tf.float64, trainable=False)
        self.num_stale = tf.Variable(0, dtype=tf.int64, trainable=False)
        # Lists of variables: tracking the Keras objects themselves leaves some of their state out.
        weights = [v.value for v in model.variables]
        parts = {"step": self.step, "best_kl": self.best_kl, "num_stale": self.num_stale, "weights": weights}
        self._best = tf.train.Checkpoint(step=self.step, weights=weights)
        self._last = tf.train.Checkpoint(
            **parts, **({"optimizer": [v.value for v in model.optimizer.variables]} if resumable else {})
        )
        best, last = (str(epath.Path(directory) / which) for which in ("best", "last"))
        self._best_manager = tf.train.CheckpointManager(self._best, best, max_to_keep=1)
        self._last_manager = tf.train.CheckpointManager(self._last, last, max_to_keep=2)

    def save(self, step: int) -> None:
        """Saves everything that going on needs."""
        self.step.assign(step)
        self._last_manager.save(checkpoint_number=step)

    def save_if_best(self, step: int, kl: float) -> bool:
        """Keeps the weights where the validation KL is the lowest so far; else counts one more stale one."""
        if not kl < float(self.best_kl.numpy()):  # float() refuses a variable of several devices
            self.num_stale.assign_add(1)
            return False
        self.best_kl.assign(kl)
        self.num_stale.assign(0)
        self.step.assign(step)
        self._best_manager.save(checkpoint_number=step)
        return True

    def restore_last(self) -> int:
        """Restores the last checkpoint; returns its step, 0 where there is none."""
        if self._last_manager.latest_checkpoint is None:
            return 0
        self._last.restore(self._last_manager.latest_checkpoint).assert_consumed()
        return int(self.step.numpy())

    def restore_weights(self, which: str) -> int:
        """Restores the weights of the "best" or the "last" checkpoint; returns its step.

        Raises:
            ValueError: there is no such checkpoint.
        """
        manager, checkpoint = {
            "best": (self._best_manager, self._best),
            "last": (self._last_manager, self._last),
        }[which]
        if manager.latest_checkpoint is None:
            raise ValueError(
                f"`workdir` must hold a {which} checkpoint. Received: {manager.directory!r} without one. "
                "Train first: python -m medclip_keras.fit."
            )
        checkpoint.restore(manager.latest_checkpoint).assert_existing_objects_matched().expect_partial()
        return int(self.step.numpy())
