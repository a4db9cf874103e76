"""The frame of every command: its parser, its errors as one line, its exit status."""

import argparse
import contextlib
import errno
import importlib.abc
import importlib.util
import logging
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import Any

FAILED, INTERRUPTED = 1, 130
SECONDS_TO_RAISE_AGAIN = 0.5  # of processor time


def start_quietly() -> None:
    """Keep TensorFlow's and CUDA's log lines, and tracebacks of a Ctrl-C during imports, out of the output.

    The packages call it when they are imported, before any framework. A lower TF_CPP_MIN_LOG_LEVEL of the
    user's own is respected. Under `python -m PACKAGE…`, and not in a program that imports the package, Ctrl-C
    ends the process without a traceback until `run_command` takes over.
    """
    level = os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    is_command = sys.argv[:1] == ["-m"]  # replaced by the module's path after the import of its package
    if is_command and level == "3":
        sys.meta_path.insert(0, _QuietTensorFlow())
    if is_command:
        logging.getLogger().addFilter(_says_nothing_of_optional_packages)
    if is_command and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _says_nothing_of_optional_packages(record: logging.LogRecord) -> bool:
    """Drop what Beam says without clients of BigQuery and without PyTorch, which no job here uses."""
    said = record.getMessage()
    return "bigquery client" not in said and "Resource module is not available" not in said


class _QuietTensorFlow(importlib.abc.MetaPathFinder):
    """Imports TensorFlow without what its libraries log before its log level is in force."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != "tensorflow":
            return None
        sys.meta_path.remove(self)
        spec: Any = importlib.util.find_spec(name)
        if spec:
            execute = spec.loader.exec_module
            spec.loader.exec_module = _held_stderr()(execute)
        return spec


@contextlib.contextmanager
def _held_stderr() -> Iterator[None]:
    """Hold back what is written to stderr, and write it only after an error."""
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(stderr, held.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


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
        The status of `work`; `FAILED` with one line on stderr for a caller's mistake (ValueError), for a
        loss that is no longer finite and for an error of the system, such as a full disk; `INTERRUPTED` for
        Ctrl-C.
    """
    try:
        with _persistent_interrupts():
            status = work() or 0
            sys.stdout.flush()
            return status
    except (ValueError, FloatingPointError) as error:
        print(f"{module}: {error}", file=sys.stderr)
        return FAILED
    except BrokenPipeError:  # the reader, `head` for example, has what it wants
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # TensorFlow has errors of its own for a full disk
        full = os.strerror(errno.ENOSPC)
        if not getattr(error, "errno", None) and full not in str(error):
            raise
        said = f"{full}. Make room, and start the same command again." if full in str(error) else error
        print(f"{module}: {said}", file=sys.stderr)
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
