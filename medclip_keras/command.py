"""The frame of every command: its parser, its errors as one line, its exit status."""

import argparse
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

# Set before TensorFlow is first imported: its informational lines stay out of the commands' output.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

FAILED, INTERRUPTED = 1, 130
SECONDS_TO_RAISE_AGAIN = 0.5  # of processor time


def new_parser(module: str, description: str, **options: Any) -> argparse.ArgumentParser:
    """Return a parser for `python -m module`: no abbreviated options, line breaks of the texts kept."""
    return argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        **options,
    )


def run_command(module: str, work: Callable[[], int | None]) -> int:
    """Run a command's work and return its exit status.

    Args:
        module: name of the command's module, the prefix of an error.
        work: returns an exit status, or None for success.

    Returns:
        The status of `work`; `FAILED` with one line on stderr for a caller's mistake (ValueError) and for a
        loss that is no longer finite; `INTERRUPTED` for Ctrl-C.
    """
    try:
        with _persistent_interrupts():
            return work() or 0
    except (ValueError, FloatingPointError) as error:
        print(f"{module}: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt as stop:  # `pipeline.Interrupted` says after which step
        print(f"{module}: {str(stop) or 'interrupted'}. The same command resumes the work.", file=sys.stderr)
        return INTERRUPTED


@contextlib.contextmanager
def _persistent_interrupts() -> Iterator[None]:
    """Raise KeyboardInterrupt again after a Ctrl-C until it has left the context.

    Python drops an exception that is raised inside a finaliser or a weakref callback, such as TensorFlow's.
    While the interrupt is being handled, in a `finally` block for example, it is not raised a second time.
    """
    if threading.current_thread() is not threading.main_thread():  # no other thread may set handlers
        yield
        return

    def interrupt(number: int, frame: object) -> None:
        signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS_TO_RAISE_AGAIN)
        if number == signal.SIGINT or not isinstance(sys.exc_info()[1], KeyboardInterrupt):
            raise KeyboardInterrupt

    def report(unraisable: Any) -> None:
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            hook(unraisable)

    hook, sys.unraisablehook = sys.unraisablehook, report
    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGVTALRM)}
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
        sys.unraisablehook = hook
