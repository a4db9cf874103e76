"""Signals that end a command: one sentence, status 128 plus the signal's number, and a deadline.

`listening` raises KeyboardInterrupt for the work; training replaces its handlers while steps are done, and
stops after the step. A process that has not ended after `PATIENCE` seconds, in compiled code for example,
is ended here.
"""

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
PATIENCE = 25.0  # seconds from a signal to the end of the process
SECONDS_TO_RAISE_AGAIN = 0.1  # of processor time: Python drops an exception raised inside a finaliser


class _State:
    """The signal received, and the description of the work for the last sentence."""

    is_command = False  # under `python -m`, which may end the process
    stderr = 2  # a duplicate in a command: imports of TensorFlow silence the original
    received: int | None = None  # the first signal
    step_seconds = 0.0  # of the longest step, which must not be broken off
    describe: Callable[[], str] = staticmethod(lambda: "")


STATE = _State()


def status() -> int:
    """Exit status after an interruption: 128 plus the signal's number, that of Ctrl-C by default."""
    return 128 + (STATE.received or signal.SIGINT)


def sentence(module: str, said: str = "") -> str:
    """Format the interruption of a command, with the last saved step."""
    return f"{module}: {said or STATE.describe() or 'interrupted'}. The same command resumes the work."


def note(number: int) -> None:
    """Remember the first signal."""
    STATE.received = STATE.received or number


def handled() -> list[signal.Signals]:
    """Signals to handle: all but a hang-up that `nohup` told the process to ignore."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [n for n in STOPPING if n != signal.SIGHUP or not ignored]


def end_at_once_before_the_work() -> None:
    """End the process with the sentence on a signal during the imports: nothing is to be saved yet."""

    def end(number: int, frame: object) -> None:
        module = dict(zip(sys.orig_argv, sys.orig_argv[1:], strict=False)).get("-m", "medclip_keras")
        os.write(STATE.stderr, f"{sentence(module, 'interrupted')}\n".encode())
        os._exit(128 + number)

    STATE.is_command, STATE.stderr = True, os.dup(2)
    for number in handled():
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, end)


@contextlib.contextmanager
def listening(module: str) -> Iterator[None]:
    """Raise KeyboardInterrupt on a signal, repeatedly until it leaves the context.

    Python drops an exception that is raised inside a finaliser or a weakref callback, such as TensorFlow's.
    While the interrupt is being handled, in a `finally` block for example, only Ctrl-C raises it once more.
    Threads that fail because the work under them ends do so without their tracebacks.
    """
    STATE.received, STATE.describe, STATE.step_seconds = None, lambda: "", 0.0
    if threading.current_thread() is not threading.main_thread():  # others must not set handlers
        yield
        return

    def interrupt(number: int, frame: object) -> None:
        signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS_TO_RAISE_AGAIN)
        if number != signal.SIGVTALRM:
            note(number)
            _silence_threads()
        if number == signal.SIGINT or not isinstance(sys.exc_info()[1], KeyboardInterrupt):
            raise KeyboardInterrupt

    def report(unraisable: Any) -> None:
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            hook(unraisable)

    hook, sys.unraisablehook = sys.unraisablehook, report
    disabled, thread_hook = logging.root.manager.disable, threading.excepthook
    numbers = (*handled(), signal.SIGVTALRM)
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        with _deadline(module):
            yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
        sys.unraisablehook, threading.excepthook = hook, thread_hook
        logging.disable(disabled)


def _silence_threads() -> None:
    logging.disable(logging.CRITICAL)
    threading.excepthook = lambda *_: None


@contextlib.contextmanager
def _deadline(module: str) -> Iterator[None]:
    """End a command that still runs `PATIENCE` seconds after a signal, even inside compiled code."""
    if not STATE.is_command:
        yield
        return
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    before = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_end_late, args=(module, receiver), daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        sender.close()


def _end_late(module: str, receiver: socket.socket) -> None:
    number = signal.SIGVTALRM
    while number not in STOPPING:
        content = receiver.recv(1)
        if not content:  # the work is over
            return
        number = signal.Signals(content[0])
    end, receiver_open = time.monotonic() + max(PATIENCE, 2 * STATE.step_seconds), True
    receiver.settimeout(0.2)
    while time.monotonic() < end and receiver_open:
        with contextlib.suppress(TimeoutError):
            receiver_open = bool(receiver.recv(64))
    if receiver_open:
        os.write(STATE.stderr, f"{sentence(module)}\n".encode())
        os._exit(128 + number)
