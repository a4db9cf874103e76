"""Callbacks of training: graceful stop, measured time, progress bar, log."""

import collections
import math
import signal
import threading
import time
from typing import Any

import keras
import tensorflow as tf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from medclip_keras import signals
from medclip_keras.training.model import loss_scale
from medclip_keras.training.replicas import any_worker, has_several_workers
from medclip_keras.training.run_log import RunLog


class StepCallback(keras.callbacks.Callback):
    """Count the steps of the whole run: those of earlier processes, `start_step`, and this process's."""

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
    """Stop at a loss that is not finite, before a checkpoint is saved; the first of the callbacks.

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
    """Stop gracefully on a signal: after the current step, with a checkpoint.

    A context manager, which restores the handlers. Before the first step is done, while it is traced and
    compiled, there is nothing to save: a signal raises KeyboardInterrupt at once. So does a second Ctrl-C.
    Several workers agree after each step, and all stop after the step in which one of them got a signal.
    """

    def __init__(self, start_step: int, strategy: tf.distribute.Strategy):
        super().__init__(start_step)
        self._strategy = strategy
        self._requested = self._agreed = False
        self._graceful = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopOnSignal":
        if threading.current_thread() is threading.main_thread():  # others must not set handlers
            numbers = (*signals.handled(), signal.SIGVTALRM)
            self._before = {number: signal.signal(number, self._stop) for number in numbers}
        return self

    def __exit__(self, *error: object) -> None:
        if self._before:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def interrupted(self) -> bool:
        """Whether training must stop; with several workers, whether all have agreed."""
        return self._agreed or (self._requested and not has_several_workers(self._strategy))

    def _stop(self, number: int, frame: object) -> None:
        raised = number == signal.SIGVTALRM
        at_once = raised or not self._graceful or (self._requested and number == signal.SIGINT)
        self._requested = True
        if not raised:
            signals.note(number)
        if at_once:  # repeated until `__exit__`
            signal.setitimer(signal.ITIMER_VIRTUAL, signals.SECONDS_TO_RAISE_AGAIN)
            raise KeyboardInterrupt

    def on_step(self, step: int, logs: dict) -> None:
        """Ask Keras to stop after a signal."""
        self._graceful = True
        self._agreed = any_worker(self._requested, self._strategy)
        if self._agreed:
            self.model.stop_training = True


class Clock(StepCallback):
    """Measure the time of steps; the second of the callbacks.

    The first step is left out, because it is traced and compiled. Validation and saving count for
    `seconds_left`, not for `images_per_second`.
    """

    NUM_RECENT, FEWEST = 50, 5  # steps that are averaged; steps before a time is estimated

    def __init__(self, start_step: int, total_steps: int, batch_size: int):
        super().__init__(start_step)
        self.total_steps, self.batch_size = total_steps, batch_size
        self._first, self._began, self._measured_since = start_step + 1, 0.0, 0.0
        self._recent: collections.deque[float] = collections.deque(maxlen=self.NUM_RECENT)

    def on_train_batch_begin(self, batch, logs=None):
        """Start the step's time."""
        self._began = time.monotonic()

    def on_step(self, step: int, logs: dict) -> None:
        """End the step's time. The step is complete: `StopOnNaN` has read its loss."""
        now = time.monotonic()
        if step == self._first:
            self._measured_since = now
            return
        self._recent.append(now - self._began)
        signals.STATE.step_seconds = max(signals.STATE.step_seconds, now - self._began)

    @property
    def images_per_second(self) -> float | None:
        """Rate of the recent steps; None before the second step."""
        seconds = sum(self._recent)
        return len(self._recent) * self.batch_size / seconds if seconds else None

    @property
    def seconds_left(self) -> float | None:
        """Estimated seconds to the last step; None while too few steps are measured."""
        done = self.step - self._first
        if done < self.FEWEST:
            return None
        return (self.total_steps - self.step) * (time.monotonic() - self._measured_since) / done


class ProgressBar(StepCallback):
    """Show loss, KL, temperature, rate and time left: a bar on a terminal, else lines."""

    SECONDS_BETWEEN_LINES = 15

    def __init__(self, start_step: int, clock: Clock, console: Console):
        super().__init__(start_step)
        self.clock, self.console = clock, console

    def __enter__(self) -> "ProgressBar":
        self._last_line = time.monotonic()
        columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn())
        self._bar = Progress(*columns, TextColumn("{task.fields[figures]}"), console=self.console)
        self._task = self._bar.add_task("", total=self.clock.total_steps, completed=self.step, figures="")
        if self.console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def on_step(self, step, logs):
        """Update the bar."""
        total, figures = self.clock.total_steps, "  ".join(self._figures(logs))
        self._bar.update(self._task, completed=step, figures=figures)
        quiet_for = time.monotonic() - self._last_line
        if not self.console.is_terminal and (quiet_for > self.SECONDS_BETWEEN_LINES or step == total):
            self.console.print(f"step {step}/{total}  {figures}", highlight=False)
            self._last_line = time.monotonic()

    def _figures(self, logs: dict) -> list[str]:
        """Loss, KL and temperature; rate and time left once they are measured."""
        figures = [f"loss {float(logs['loss']):.3f}", f"KL {float(logs['kl']):.3f}"]
        figures.append(f"temperature {float(logs['temperature']):.3f}")
        rate, left = self.clock.images_per_second, self.clock.seconds_left
        if rate is not None:
            figures.append(f"{rate:.0f} images/s" if rate >= 10 else f"{rate:.2g} images/s")
        if left is not None:
            figures.append(f"{left:.0f} s left")
        return figures


class ScalarLog(StepCallback):
    """Log scalars every `log_every` steps."""

    def __init__(self, start_step: int, log: RunLog, clock: Clock):
        super().__init__(start_step)
        self.log, self.clock = log, clock

    def on_step(self, step, logs):
        """Log loss, KL, temperature, gradient norm, learning rate and images per second."""
        if step % self.model.run.train.log_every:
            return
        values = {**logs, "learning_rate": self.model.optimizer.learning_rate}
        if self.clock.images_per_second is not None:
            values["images_per_second"] = self.clock.images_per_second
        self.log.scalars("train", step, values)
