"""The command line of the named runs: their letters, and every field of one."""

import argparse
import inspect
import json
import sys
from collections.abc import Sequence

from medclip_keras import runs
from medclip_keras.command import new_parser, run_command
from medclip_keras.config import field_values
from medclip_keras.runs import RUNS, get_run


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = new_parser("medclip_keras.runs", runs.__doc__ or "")
    parser.add_argument("run", nargs="?", default="", metavar="NAME", help="a named run, or a run.json")
    options = parser.parse_args(argv)
    return run_command("medclip_keras.runs", lambda: _describe(options))


def _describe(options: argparse.Namespace) -> None:
    config = get_run(options.run) if options.run else None
    for name, run in RUNS.items():
        if options.run in ("", name):
            print(f"{name}\n\n{inspect.getdoc(run)}\n")
    for field, value in field_values(config).items() if config else ():
        print(f"{field}={json.dumps(value)}")


if __name__ == "__main__":
    sys.exit(main())
