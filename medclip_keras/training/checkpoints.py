"""Checkpoints of weights, seeds, optimizer and step; a resumed run equals an uninterrupted one exactly."""

import tensorflow as tf
from etils import epath

from medclip_keras.training.model import MedCLIP


class Checkpoints:
    """Save the last two checkpoints, to resume from, the best on the validation split, and pretrained starts.

    Saving is atomic: a killed process leaves the previous checkpoint. Model variables include the state of
    the dropout seeds. Batches need no state: batch k is a function of the seed and k. `model` has every
    weight created; `resumable` saves and restores the optimizer too.
    """

    def __init__(self, directory: str, model: MedCLIP, resumable: bool = True):
        self.step = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.best_kl = tf.Variable(float("inf"), dtype=tf.float64, trainable=False)
        self.num_stale = tf.Variable(0, dtype=tf.int64, trainable=False)
        # Track lists of variables: tracking the Keras objects misses some of their state.
        weights = [v.value for v in model.variables]
        parts = {"step": self.step, "best_kl": self.best_kl, "num_stale": self.num_stale, "weights": weights}
        self._best = tf.train.Checkpoint(step=self.step, weights=weights)
        self._last = tf.train.Checkpoint(
            **parts, **({"optimizer": [v.value for v in model.optimizer.variables]} if resumable else {})
        )
        start, best, last = (str(epath.Path(directory) / which) for which in ("start", "best", "last"))
        self._start_manager = tf.train.CheckpointManager(self._best, start, max_to_keep=1)
        self._best_manager = tf.train.CheckpointManager(self._best, best, max_to_keep=1)
        self._last_manager = tf.train.CheckpointManager(self._last, last, max_to_keep=2)

    def save_start(self) -> None:
        """Save the weights before the first step, unless that was done."""
        if self._start_manager.latest_checkpoint is None:
            self._start_manager.save(checkpoint_number=0)

    def save(self, step: int) -> None:
        """Save all state that resuming needs."""
        self.step.assign(step)
        self._last_manager.save(checkpoint_number=step)

    def save_if_best(self, step: int, kl: float) -> bool:
        """Save the weights if the validation KL is the lowest so far; else count a stale validation."""
        if not kl < float(self.best_kl.numpy()):  # float() fails on a mirrored variable
            self.num_stale.assign_add(1)
            return False
        self.best_kl.assign(kl)
        self.num_stale.assign(0)
        self.step.assign(step)
        self._best_manager.save(checkpoint_number=step)
        return True

    def restore_last(self) -> int:
        """Restore the last checkpoint, else the pretrained start, and return the steps done."""
        if self._last_manager.latest_checkpoint is None:
            self.restore_start()
            return 0
        self._last.restore(self._last_manager.latest_checkpoint).assert_consumed()
        return int(self.step.numpy())

    def restore_start(self) -> None:
        """Restore the pretrained start, if any."""
        if self._start_manager.latest_checkpoint:
            self._best.restore(self._start_manager.latest_checkpoint).assert_existing_objects_matched()

    def restore_weights(self, which: str) -> int:
        """Restore the weights of the "best" or the "last" checkpoint and return its step.

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
