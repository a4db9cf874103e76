"""The frame of every command: its parser, its errors as one line, its exit status."""

import argparse
import contextlib
import importlib.abc
import importlib.util
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

from medclip_keras import signals
from medclip_keras.errors import NotSavedError, WorkerLostError, is_of_the_system, system_sentence

FAILED, INTERRUPTED = 1, 130


def start_quietly() -> None:
    """Keep TensorFlow's and CUDA's log lines, and tracebacks of a Ctrl-C during imports, out of the output.

    The packages call it when they are imported, before any framework. A lower TF_CPP_MIN_LOG_LEVEL of the
    user's own is respected. Under `python -m PACKAGE…`, and not in a program that imports the package, Ctrl-C
    or SIGTERM ends the process with one sentence until `run_command` takes over.
    """
    level = os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    is_command = sys.argv[:1] == ["-m"]  # replaced by the module's path after the import of its package
    if is_command and level == "3":
        sys.meta_path.insert(0, _QuietTensorFlow())
    if is_command:
        logging.getLogger().addFilter(_says_nothing_of_optional_packages)
    if is_command:
        signals.end_at_once_before_the_work()


def _says_nothing_of_optional_packages(record: logging.LogRecord) -> bool:
    """Drop Beam's log lines about missing clients of BigQuery and a missing PyTorch, which no job uses."""
    said = record.getMessage()
    return "bigquery client" not in said and "Resource module is not available" not in said


class _QuietTensorFlow(importlib.abc.MetaPathFinder):
    """Imports TensorFlow without the lines that its libraries log before its log level applies."""

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
    """Hold back the output to stderr; write it only after an error."""
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
        loss that is no longer finite and for an error of the system, such as a full disk; after a signal 128
        plus its number, `INTERRUPTED` for Ctrl-C. A process under `python -m` ends here after a signal, so
        that no thread of a broken off library has the last word.
    """
    try:
        with signals.listening(module):
            status = work() or 0
            sys.stdout.flush()
            return status
    except (FloatingPointError, NotSavedError, WorkerLostError) as error:
        print(f"{module}: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt as stop:  # `errors.Interrupted` says after which step
        return _end_interrupted(module, str(stop))
    except Exception as error:
        if signals.STATE.received is not None:  # the broken off work failed
            return _end_interrupted(module)
        return _fail(module, error)


def _end_interrupted(module: str, said: str = "") -> int:
    print(signals.sentence(module, said), file=sys.stderr, flush=True)
    if signals.STATE.is_command:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os._exit(signals.status())
    return signals.status()


def _fail(module: str, error: Exception) -> int:
    """Print the sentence of a failed command, or raise the error again if it is the program's."""
    if isinstance(error, BrokenPipeError):  # the reader, `head` for example, has what it wants
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if not isinstance(error, ValueError) and not is_of_the_system(error):
        raise error
    said = str(error) if isinstance(error, ValueError) else system_sentence(error)
    print(f"{module}: {said}", file=sys.stderr)
    return FAILED
