"""Checkpoints of weights, seeds, optimizer and progress; a resumed run equals an unbroken one exactly."""

import contextlib
import dataclasses
import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf
from etils import epath

from medclip_keras.errors import require
from medclip_keras.training.checkpoint_files import CheckpointFolder, SavedCheckpoint, as_state

_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"  # end of a variable's name in TensorFlow's files
_EARLIER_NAMES = {"best_kl": "lowest"}  # of fields of Progress, up to version 0.7
_LOG = logging.getLogger(__name__)


@dataclass
class Progress:
    """Counters in a checkpoint, next to the variables."""

    # Lowest so far: validation KL, or with `train.best_by=zero_shot` minus the zero-shot AUROC.
    lowest: float = math.inf
    best_step: int = 0  # of `lowest`; 0: none
    num_stale: int = 0  # validations without improvement since the last, or since the rate was halved
    num_without_best: int = 0  # validations without improvement, for early stopping
    validated_step: int = 0  # of the last validation of the loss
    evaluated_step: int = 0  # of the last zero-shot evaluation


class Checkpoints:
    """Save and restore the last checkpoints, the best on validation, and the weights before training.

    Model variables include the state of the dropout seeds. Batches need no state: batch k is a function of
    the seed and k. With `train.ema` the best weights are the averaged ones; the last hold both.

    Args:
        directory: receives start/, best/ and last/.
        model: every weight is created.
        resumable: save and restore the optimizer too.
        say: receives a sentence for each damaged checkpoint.
    """

    def __init__(
        self,
        directory: epath.PathLike,
        model: keras.Model,
        resumable: bool = True,
        say: Callable[[str], object] = _LOG.warning,
    ):
        self.progress, self._model, self._say = Progress(), model, say
        run = getattr(model, "run", None)
        about = {"run": [run.name, run.seed]} if run else {}
        self._has_average, keep = bool(run and run.train.ema), run.train.keep_checkpoints if run else 1
        # Track lists of variables: tracking the Keras objects misses some of their state.
        parts = {"weights": [v.value for v in model.variables]}
        self._weights = tf.train.Checkpoint(**parts)
        if resumable:
            parts["optimizer"] = [v.value for v in model.optimizer.variables]
        if resumable and self._has_average:
            parts["average"] = _averages(model)
        self._all = tf.train.Checkpoint(**parts)
        self._shapes = {f"weights/{i}{_VALUE}": v.shape.as_list() for i, v in enumerate(parts["weights"])}
        start, best, last = (epath.Path(directory) / which for which in ("start", "best", "last"))
        self._start, self._best = CheckpointFolder(start, 1, about), CheckpointFolder(best, 1, about)
        self._last, self._about = CheckpointFolder(last, keep, about), about

    def save_start(self) -> None:
        """Save the weights before the first step, once."""
        if self._newest(self._start) is None:
            self._start.write(0, self._weights.write)

    def save(self, step: int) -> None:
        """Save all state that resuming needs.

        Raises:
            NotSavedError: the disk is full or must not be written; what was saved before is kept.
        """
        self._last.write(step, self._all.write, as_state(self.progress))

    def save_if_best(self, step: int, value: float) -> bool:
        """Save the weights if a validation's value is the lowest so far; else count a stale validation.

        Raises:
            NotSavedError: as `save`.
        """
        now = self.progress
        if not value < now.lowest:
            now.num_stale += 1
            now.num_without_best += 1
            return False
        now.lowest, now.best_step, now.num_stale, now.num_without_best = value, step, 0, 0
        self._best.write(step, self._weights.write, as_state(now))
        return True

    def restore_last(self) -> int:
        """Restore the newest whole checkpoint, else the weights before training; return its step.

        Damaged checkpoints are named and moved to checkpoints/damaged.

        Raises:
            ValueError: there are checkpoints, but none is whole.
        """
        found = self._last.find()
        saved = self._newest(self._last, set_aside=True)
        if saved is None:
            needed = "a folder with a whole checkpoint"
            advice = "Copy a checkpoint back, or delete the folder `checkpoints` to start from step 0."
            require(not found, str(self._last.folder), needed, [str(one) for one in found], advice)
            self.restore_start()
            return 0
        self._all.read(saved.prefix).assert_existing_objects_matched().expect_partial()
        self.progress = self._progress_of(saved)
        if self.progress.best_step and self._newest(self._best, set_aside=True) is None:
            self._say(
                f"The best weights, of step {self.progress.best_step}, are lost: the next validation counts "
                "as the best."
            )
            self.progress.lowest, self.progress.best_step = math.inf, 0
        return saved.step

    def restore_start(self) -> None:
        """Restore the weights before training, if they were saved."""
        saved = self._newest(self._start)
        if saved:
            self._read_weights(saved)

    def has_best(self) -> bool:
        """Whether a checkpoint of the best weights is whole."""
        return self._newest(self._best) is not None

    def restore_weights(self, which: str) -> tuple[str, int]:
        """Restore the weights of the "best" or the "last" checkpoint; return which was taken and its step.

        If the best is damaged or missing, the last is taken, and `say` receives a sentence.

        Raises:
            ValueError: there is no whole checkpoint.
        """
        saved = self._newest(self._best) if which == "best" else None
        if saved is None:
            missing = which == "best" and not self._best.find()
            which, saved = "last", self._newest(self._last)
            if missing and saved:
                home = self._last.folder.parents[1]
                said = f"{home} has no best checkpoint, for no validation was done: loading the last."
                self._say(said)
        if saved is None:
            raise ValueError(
                f"`workdir` must hold a whole {which} checkpoint. Received: {str(self._last.folder)!r} "
                "without one. Train first: python -m medclip_keras.fit."
            )
        self._read_weights(saved)
        if which == "last" and self._has_average:
            values = [v.value for v in self._model.trainable_variables]
            average = tf.train.Checkpoint(average=values)
            average.read(saved.prefix).assert_existing_objects_matched().expect_partial()
        return which, saved.step

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Use the averaged weights inside the block; without `train.ema` the weights do not change."""
        variables = self._model.trainable_variables if self._has_average else []
        own = [tf.identity(v.value) for v in variables]
        for variable, average in zip(variables, _averages(self._model) if own else (), strict=True):
            variable.assign(average)
        try:
            yield
        finally:
            for variable, value in zip(variables, own, strict=True):
                variable.assign(value)

    def _read_weights(self, saved: SavedCheckpoint) -> None:
        self._weights.read(saved.prefix).assert_existing_objects_matched().expect_partial()

    def _newest(self, folder: CheckpointFolder, set_aside: bool = False) -> SavedCheckpoint | None:
        """Newest whole checkpoint of this model; each later one is named and, if asked, moved away."""
        later: list[tuple[SavedCheckpoint, str]] = []
        newest = None
        for saved in folder.find():
            fault = saved.fault() or self._misfit(saved)
            if not fault:
                newest = saved
                break
            later.append((saved, fault))
        for saved, fault in later:
            self._say_damaged(saved, fault, newest, folder.set_aside(saved) if set_aside else None)
        return newest

    def _say_damaged(
        self, saved: SavedCheckpoint, fault: str, taken: SavedCheckpoint | None, moved: epath.Path | None
    ) -> None:
        said = f"The checkpoint {saved} is damaged: {fault}."
        if taken:
            said += f" {taken} is taken instead: {saved.step - taken.step} steps are lost."
        if moved:
            said += f" The damaged one was moved to {moved}."
        self._say(said)

    def _misfit(self, saved: SavedCheckpoint) -> str:
        """Say why a whole checkpoint is not of this model; "" if it is."""
        theirs, ours = saved.manifest().get("run"), self._about.get("run")
        if theirs and ours and theirs != ours:
            return f"it is of the run {theirs[0]!r}, seed {theirs[1]}"
        shapes = tf.train.load_checkpoint(saved.prefix).get_variable_to_shape_map()
        found = {name: shape for name, shape in shapes.items() if name.startswith("weights/")}
        return "" if found == self._shapes else "it holds another model"

    def _progress_of(self, saved: SavedCheckpoint) -> Progress:
        if saved.has_manifest:
            known = {field.name for field in dataclasses.fields(Progress)}
            state = {_EARLIER_NAMES.get(k, k): v for k, v in saved.manifest()["state"].items()}
            values: Any = {k: math.inf if v is None else v for k, v in state.items() if k in known}
            return Progress(**values)
        progress = Progress(validated_step=saved.step, evaluated_step=saved.step)
        progress.best_step = max((one.step for one in self._best.find() if one.step <= saved.step), default=0)
        reader = tf.train.load_checkpoint(saved.prefix)  # of an earlier version
        for name in ("best_kl", "num_stale"):
            if reader.has_tensor(name + _VALUE):
                value = reader.get_tensor(name + _VALUE).item()
                setattr(progress, _EARLIER_NAMES.get(name, name), value)
        return progress


def _averages(model: keras.Model) -> list[tf.Variable]:
    """Moving averages of the trainable variables, in their order, as the optimizer keeps them."""
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    return [v.value for v in optimizer._model_variables_moving_average]
