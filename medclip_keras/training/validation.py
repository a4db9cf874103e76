"""Validation, zero-shot evaluation and checkpoints during training."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Console

from medclip_keras.evaluation.figures.canvas import similar_together
from medclip_keras.training.callbacks import StepCallback, StopOnSignal
from medclip_keras.training.checkpoints import Checkpoints
from medclip_keras.training.run_log import RunLog

DECIDING = "auroc"  # the figure whose mean over the data sets counts with `train.best_by=zero_shot`
ZeroShot = Callable[[Callable[[], bool]], dict[str, float] | None]


@dataclass(frozen=True)
class HeldOut:
    """Data and functions that training is checked with."""

    batches: Sequence[dict] = ()  # validation batches
    # Called with a function that says whether to break off; returns names and figures, or None if broken off.
    zero_shot: ZeroShot | None = None


class Validation(StepCallback):
    """Validate, evaluate, stop early and save checkpoints; the last of the callbacks.

    A signal breaks a validation off. The checkpoint says so, and the resumed run catches up on it: a
    validation counts for the best weights, for the plateau schedule and for `train.patience`.
    """

    log: RunLog  # set by the trainer

    def __init__(self, steps: tuple[int, int], held_out: HeldOut, checkpoints: Checkpoints, console: Console):
        super().__init__(steps[0])
        self.total_steps, self.held_out = steps[1], held_out
        self.checkpoints, self.console, self.saved_step = checkpoints, console, steps[0]
        self.stop: StopOnSignal | None = None  # set by the trainer
        self.listeners: Sequence[
            keras.callbacks.Callback
        ] = ()  # told of each validation by Keras's hooks of tests
        self._objective: Any = None

    def on_step(self, step: int, logs: dict) -> None:
        """Validate, evaluate and save on schedule and at the last step; only save after an interruption."""
        self._check(step)
        if self.stopped_early:
            self._say(f"no improvement for {self.model.run.train.patience} validations: training stops")
            self.model.stop_training = True
        if self._is_interrupted():  # a signal may have come during the check
            self.model.stop_training = True
        every = self.model.run.train.checkpoint_every
        if step == self.total_steps or self.model.stop_training or step % every == 0:
            self._save(step)

    def catch_up(self) -> None:
        """Repeat a validation of the first step that a signal broke off."""
        if self.is_pending:
            self._check(self.step)
            self._save(self.step)

    @property
    def is_pending(self) -> bool:
        """Whether a validation or an evaluation is due at this step and not done."""
        return self._validation_is_due(self.step) or self._evaluation_is_due(self.step)

    @property
    def stopped_early(self) -> bool:
        """Whether `train.patience` stops the training."""
        return stopped_early(self.checkpoints, self.model.run.train.patience)

    def _validation_is_due(self, step: int) -> bool:
        due = step == self.total_steps or step % self.model.run.train.validate_every == 0
        return (
            bool(step and due and self.held_out.batches) and self.checkpoints.progress.validated_step < step
        )

    def _evaluation_is_due(self, step: int) -> bool:
        every = self.model.run.train.evaluate_every
        due = every > 0 and (step == self.total_steps or step % every == 0)
        return (
            bool(step and due and self.held_out.zero_shot) and self.checkpoints.progress.evaluated_step < step
        )

    def _check(self, step: int) -> None:
        if self._is_interrupted() or not self.is_pending:
            return
        with self.checkpoints.averaged():
            if self._validation_is_due(step):
                self.validate(step)
            if self._evaluation_is_due(step) and not self._is_interrupted():
                self.evaluate(step)

    def validate(self, step: int) -> None:
        """Measure the loss and the mean KL of the validation batches."""
        self._objective = self._objective or tf.function(lambda b: self.model.objective(b, training=False))
        outcomes = []
        for batch in self.held_out.batches:
            if self._is_interrupted():
                return
            outcomes.append(self._objective(batch))
        kl, loss = (float(np.mean([getattr(o, name) for o in outcomes])) for name in ("kl", "loss"))
        self._tell({"loss": loss, "kl": kl})
        self.log.scalars("valid", step, {"loss": loss, "kl": kl})
        self.log.image("valid/predicted_beside_target_similarity", step, _matrices(outcomes[0]))
        self.checkpoints.progress.validated_step = step
        best = "" if self._is_by_zero_shot else self._save_if_best(step, kl)
        self._say(f"validation loss {loss:.4f}, KL {kl:.4f}{best}")

    def evaluate(self, step: int) -> None:
        """Measure zero-shot classification of the validation split."""
        assert self.held_out.zero_shot
        figures = self.held_out.zero_shot(self._is_interrupted)
        if figures is not None:
            self._tell(figures)
            self.log.scalars("zero_shot", step, figures)
            self.checkpoints.progress.evaluated_step = step
            named = ", ".join(f"{name} {value:.3f}" for name, value in figures.items())
            best = ""
            if self._is_by_zero_shot:
                deciding = [v for name, v in figures.items() if name.split("/")[-1] == DECIDING]
                best = self._save_if_best(step, -float(np.nanmean(deciding)))  # NaN: no AUROC in a data set
            self._say(f"zero-shot on validation images: {named}{best}")

    @property
    def _is_by_zero_shot(self) -> bool:
        """Whether the zero-shot figures decide which weights are the best; a classifier has none."""
        return self.model.run.train.best_by == "zero_shot" and self.held_out.zero_shot is not None

    def _save_if_best(self, step: int, value: float) -> str:
        """Save the weights if the value is the lowest so far, and return the sentence's end that says it."""
        if self.checkpoints.save_if_best(step, value):
            return "; the best so far"
        if self.model.run.train.schedule == "plateau":
            self._halve_stale_rate()
        progress = self.checkpoints.progress
        best = -progress.lowest if self._is_by_zero_shot else progress.lowest
        return f"; the best is {best:.4f} at step {progress.best_step}"

    def _save(self, step: int) -> None:
        self.log.flush()
        self.checkpoints.save(step)
        self.saved_step = step
        self._say("checkpoint saved")

    def _is_interrupted(self) -> bool:
        return self.stop is not None and self.stop.interrupted

    def _say(self, said: str) -> None:
        self.console.print(f"step {self.step}/{self.total_steps}  {said}", highlight=False, soft_wrap=True)

    def _tell(self, figures: dict[str, float]) -> None:
        for listener in self.listeners:
            listener.on_test_begin()
            listener.on_test_end(figures)

    def _halve_stale_rate(self) -> None:
        """Halve the learning rate after `plateau_patience` validations without improvement, as ConVIRT."""
        if self.checkpoints.progress.num_stale >= self.model.run.train.plateau_patience:
            self.model.optimizer.learning_rate = float(self.model.optimizer.learning_rate) / 2
            self.checkpoints.progress.num_stale = 0


def stopped_early(checkpoints: Checkpoints, patience: int) -> bool:
    """Whether `train.patience` validations in a row brought no improvement."""
    return 0 < patience <= checkpoints.progress.num_without_best


def _matrices(outcome) -> np.ndarray:
    """Draw logits beside label similarities, like labels side by side, in one image uint8 (1, H, W, 4)."""
    similarity = outcome.similarity.numpy()[:64, :64]
    rows, columns = similar_together(similarity), similar_together(similarity.T)
    figure = Figure(figsize=(8, 4), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    for axes, values, title in zip(
        figure.subplots(1, 2),
        (outcome.logits, outcome.similarity),
        ("logits", "label similarity"),
        strict=True,
    ):
        shown = axes.imshow(values.numpy()[np.ix_(rows, columns)], aspect="auto")
        axes.set(title=title, xlabel="sentences", ylabel="images")
        figure.colorbar(shown, ax=axes)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[None]
