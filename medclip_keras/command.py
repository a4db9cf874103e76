"""The frame of every command: its parser, its errors as one line, its exit status."""

import argparse
import os
import sys
from collections.abc import Callable
from typing import Any

# Set before TensorFlow is first imported: its informational lines stay out of the commands' output.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

FAILED, INTERRUPTED = 1, 130


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
        return work() or 0
    except (ValueError, FloatingPointError) as error:
        print(f"{module}: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt as stop:  # `pipeline.Interrupted` says after which step
        print(f"{module}: {str(stop) or 'interrupted'}. The same command resumes the work.", file=sys.stderr)
        return INTERRUPTED
