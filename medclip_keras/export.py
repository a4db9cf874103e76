"""python -m medclip_keras.export: a trained model to a version for TensorFlow Serving, or back.

    python -m medclip_keras.export --workdir DIR --output MODELS_DIR [--keep N] [--set export.FIELD=VALUE …]
    python -m medclip_keras.export --rollback --output MODELS_DIR

A version is blessed: it keeps the run's `export.thresholds`, on evaluation/metrics.json and beside the served
version. It is validated: in a clean process it answers as the model does, within `export.max_latency_ms`.
Then it is pushed: MODELS_DIR/<version>/ has every endpoint and needs tensorflow-text's operations to load;
MODELS_DIR/tokens_only/<version>/ has the endpoints that TensorFlow alone can serve. Both folders of versions
are model base paths, and may be in a bucket. A refused version does not appear, and the exit status is 1.
`--set 'export.thresholds=[]'` pushes without a blessing; the version's manifest and model card say so.

--rollback takes the served version out of service, into MODELS_DIR/rolled_back/: the one before it is served.
"""

import argparse
import sys
from collections.abc import Sequence

from rich.console import Console

from medclip_keras.command import new_parser, run_command
from medclip_keras.config import override
from medclip_keras.errors import require
from medclip_keras.training.run_json import read_run_json


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    options = _parse(argv)
    return run_command("medclip_keras.export", lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    if options.rollback:
        form = "alone, or with --output"
        require(
            not (options.workdir or options.assignments or options.keep), "--rollback", form, "more options"
        )
        return _roll_back(options.output)
    require(bool(options.workdir), "--workdir", "given, unless --rollback is", options.workdir)
    require(options.keep is None or options.keep >= 1, "--keep", "at least 1", options.keep)
    for assignment in options.assignments:
        form = "a field of export, such as export.max_latency_ms=50"
        require(assignment.startswith("export."), "--set", form, assignment, "Train anew to change others.")
    settings = override(read_run_json(options.workdir), options.assignments).export
    from medclip_keras.release import export_workdir

    export_workdir(options.workdir, options.output, settings=settings, keep=options.keep or 0)


def _roll_back(output: str) -> None:
    from medclip_keras.serving.versions import roll_back

    aside, now = roll_back(output)
    said = (f"Version {aside.name} is out of service, in {aside}.", f"Version {now.name} is served now.")
    Console().print("\n".join(said), highlight=False, soft_wrap=True, markup=False)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = new_parser("medclip_keras.export", (__doc__ or "").partition(": ")[2])
    add = parser.add_argument
    add("--workdir", default="", help="folder of the trained run")
    add("--output", required=True, metavar="MODELS_DIR", help="folder of the versions, or gs://…")
    add("--rollback", action="store_true", help="serve the version before the one that is served now")
    add("--keep", type=int, metavar="N", help="after the push, remove all but the N largest versions and the "
        "one that was served before (default: remove none)")  # fmt: skip
    add("--set", action="extend", nargs="+", default=[], metavar="export.a=b", dest="assignments",
        help="change a field of the run's `export`")  # fmt: skip
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
