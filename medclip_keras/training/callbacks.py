"""Callbacks of training: progress bar, TensorBoard, validation, checkpoints, graceful stop."""

import math
import signal
import threading
import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from medclip_keras.config import TrainConfig
from medclip_keras.training.checkpoints import Checkpoints
from medclip_keras.training.model import loss_scale


class StepCallback(keras.callbacks.Callback):
    """Callback that counts the steps of the whole run, those of earlier processes (`start_step`) included."""

    def __init__(self, start_step: int):
        super().__init__()
        self.step = start_step

    def on_train_batch_end(self, batch, logs=None):
        """Count the step, then call `on_step`."""
        self.step += 1
        self.on_step(self.step, logs or {})

    def on_step(self, step: int, logs: dict) -> None:
        """Run after each step; `step` counts from 1."""


class StopOnNaN(StepCallback):
    """Stop before the result of a step that is not finite reaches a checkpoint. First of the callbacks.

    Under mixed_float16 the optimizer skips a step whose scaled gradient overflows, and halves the scale: no
    failure, unless gradients overflow unscaled.
    """

    def on_step(self, step: int, logs: dict) -> None:
        """Raise FloatingPointError naming the step."""
        loss, norm = float(logs["loss"]), float(logs["gradient_norm"])
        if math.isfinite(loss) and (math.isfinite(norm) or float(loss_scale(self.model.optimizer)) > 1):
            return
        raise FloatingPointError(
            f"The loss must be finite. Received: loss {loss}, gradient norm {norm} at step {step}. "
            "The last good checkpoint is kept; lower train.learning_rate, then run again."
        )


class StopOnSignal(StepCallback):
    """Stop gracefully on SIGINT or SIGTERM: after the current step, with a checkpoint.

    A context manager, which restores the handlers. Before the first step is done, while it is traced and
    compiled, there is nothing to save: a signal raises KeyboardInterrupt at once. So does a second Ctrl-C.
    """

    SECONDS_TO_RAISE_AGAIN = 0.5  # Python drops an exception raised inside a finaliser or a weakref callback

    def __init__(self, start_step: int):
        super().__init__(start_step)
        self.interrupted = False
        self._graceful = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopOnSignal":
        if threading.current_thread() is threading.main_thread():  # no other thread may
            numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGVTALRM)
            self._before = {number: signal.signal(number, self._stop) for number in numbers}
        return self

    def __exit__(self, *error: object) -> None:
        if self._before:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _stop(self, number: int, frame: object) -> None:
        at_once = not self._graceful or (self.interrupted and number != signal.SIGTERM)
        self.interrupted = True
        if at_once:
            signal.setitimer(signal.ITIMER_VIRTUAL, self.SECONDS_TO_RAISE_AGAIN)  # until `__exit__`
            raise KeyboardInterrupt

    def on_step(self, step: int, logs: dict) -> None:
        """Ask Keras to stop, once a signal came."""
        self._graceful = True
        if self.interrupted:
            self.model.stop_training = True


class ProgressBar(StepCallback):
    """Show loss, KL, temperature, images per second and time left: a bar, or lines if not a terminal."""

    SECONDS_BETWEEN_LINES = 15

    def __init__(self, start_step: int, total_steps: int, batch_size: int, console: Console):
        super().__init__(start_step)
        self.total_steps, self.batch_size, self.console = total_steps, batch_size, console
        self._first_step = start_step

    def __enter__(self) -> "ProgressBar":
        self._began = self._last_line = time.monotonic()
        columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, TextColumn("{task.fields[figures]}"), console=self.console)
        self._task = self._bar.add_task("", total=self.total_steps, completed=self.step, figures="")
        if self.console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def on_step(self, step, logs):
        """Update the bar."""
        if step == self._first_step + 1:  # exclude the first step, which traces the graph
            self._began = time.monotonic()
            return
        rate = (step - self._first_step - 1) / max(time.monotonic() - self._began, 1e-9)
        figures = (
            f"loss {float(logs['loss']):.3f}  KL {float(logs['kl']):.3f}  "
            f"temperature {float(logs['temperature']):.3f}  {rate * self.batch_size:.0f} images/s"
        )
        self._bar.update(self._task, completed=step, figures=figures)
        quiet_for = time.monotonic() - self._last_line
        if not self.console.is_terminal and (
            quiet_for > self.SECONDS_BETWEEN_LINES or step == self.total_steps
        ):
            left = (self.total_steps - step) / rate
            self.console.print(
                f"step {step}/{self.total_steps}  {figures}  {left:.0f} s left", highlight=False
            )
            self._last_line = time.monotonic()


class TensorBoard(StepCallback):
    """Write scalars every `config.log_every` steps."""

    def __init__(self, start_step: int, writer, config: TrainConfig):
        super().__init__(start_step)
        self.writer, self.config = writer, config
        self._last = time.monotonic()

    def on_step(self, step, logs):
        """Write loss, KL, temperature, gradient norm, learning rate and images per second."""
        if step % self.config.log_every:
            return
        seconds, self._last = time.monotonic() - self._last, time.monotonic()
        with self.writer.as_default(step=step):
            for name, value in logs.items():
                tf.summary.scalar(f"train/{name}", value)
            tf.summary.scalar("train/learning_rate", self.model.optimizer.learning_rate)
            tf.summary.scalar(
                "train/images_per_second", self.config.log_every * self.config.batch_size / seconds
            )


class Validation(StepCallback):
    """Validate on fixed batches, if any, draw the similarity matrices and save checkpoints."""

    def __init__(
        self, start_step: int, total_steps: int, batches: list[dict], checkpoints: Checkpoints, writer: Any
    ):
        super().__init__(start_step)
        self.total_steps, self.batches = total_steps, batches
        self.checkpoints, self.writer = checkpoints, writer
        self.saved_step = start_step
        self._objective: Any = None

    def on_step(self, step: int, logs: dict) -> None:
        """Validate and save on schedule and at the last step; only save after an interruption.

        A validation counts for `best` and for the plateau schedule, so an interruption must not add one.
        """
        config, last = self.model.run.train, step == self.total_steps
        if self.batches and (last or step % config.validate_every == 0):
            self.validate(step)
        if last or self.model.stop_training or step % config.checkpoint_every == 0:
            self.checkpoints.save(step)
            self.saved_step = step

    def validate(self, step: int) -> float:
        """Return the mean KL of the validation batches; save the weights if it is the lowest so far."""
        self._objective = self._objective or tf.function(lambda b: self.model.objective(b, training=False))
        outcomes = [self._objective(batch) for batch in self.batches]
        kl = float(np.mean([o.kl for o in outcomes]))
        with self.writer.as_default(step=step):
            tf.summary.scalar("valid/loss", np.mean([o.loss for o in outcomes]))
            tf.summary.scalar("valid/kl", kl)
            tf.summary.image("valid/predicted_beside_target_similarity", _matrices(outcomes[0]))
        if not self.checkpoints.save_if_best(step, kl) and self.model.run.train.schedule == "plateau":
            self._halve_stale_rate()
        return kl

    def _halve_stale_rate(self) -> None:
        """Halve the learning rate after `plateau_patience` validations without improvement, as ConVIRT."""
        if int(self.checkpoints.num_stale.numpy()) >= self.model.run.train.plateau_patience:
            self.model.optimizer.learning_rate = float(self.model.optimizer.learning_rate) / 2
            self.checkpoints.num_stale.assign(0)


def _matrices(outcome) -> np.ndarray:
    """Draw logits beside label similarities in one image, uint8 (1, H, W, 4)."""
    order = np.argsort(-outcome.similarity.numpy().sum(1), kind="stable")[:64]
    figure = Figure(figsize=(8, 4), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    for axes, values, title in zip(
        figure.subplots(1, 2),
        (outcome.logits, outcome.similarity),
        ("logits", "label similarity"),
        strict=True,
    ):
        shown = axes.imshow(values.numpy()[order][:, :64], aspect="auto")
        axes.set(title=title, xlabel="sentences", ylabel="images")
        figure.colorbar(shown, ax=axes)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[None]
