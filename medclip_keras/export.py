"""python -m medclip_keras.export: a trained model to a validated version for TensorFlow Serving.

MODELS_DIR/<version>/ has every endpoint and needs tensorflow-text's operations to load;
MODELS_DIR/tokens_only/<version>/ has the endpoints that TensorFlow alone can serve. Both folders of versions
are model base paths.
"""

import json
import os
import pathlib
import sys
import tempfile
from collections.abc import Sequence

from etils import epath
from rich.console import Console

from medclip_keras.command import new_parser, run_command
from medclip_keras.errors import require, require_no_pattern
from medclip_keras.serving.signatures import RUN_FILE, TOKENS_ONLY, Endpoints, export_model
from medclip_keras.serving.validate import TOLERANCE, validate
from medclip_keras.training.restore import LoadedModel, load_model


def export_workdir(
    workdir: epath.PathLike,
    output: epath.PathLike,
    *,
    loaded: LoadedModel | None = None,
    console: Console | None = None,
) -> pathlib.Path:
    """Write the next version of a model; a version that fails the validation never appears.

    Both SavedModels are written under a temporary name, called in a clean process, and renamed if their
    answers equal the trained model's.

    Args:
        workdir: of the trained run.
        output: the folder of the versions, on a local file system; TensorFlow Serving's model base path.
        loaded: the workdir's model, if already loaded.
        console: receives the outcome.

    Returns:
        output/<version>, the largest integer version plus 1; output/tokens_only/<version> is its twin.

    Raises:
        ValueError: no trained model in the workdir, or the SavedModel's answers differ from the model's.
    """
    require_no_pattern("--output", output)
    require("://" not in str(output), "output", "a local folder (a bucket has no atomic rename)", str(output))
    console, output = console or Console(), pathlib.Path(output)
    loaded = loaded or load_model(workdir)
    run = json.loads((epath.Path(workdir) / RUN_FILE).read_text()) | {"step": loaded.step}
    endpoints = Endpoints(loaded.model, loaded.tokenizer)
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".exporting-", dir=output) as temporary:
        differences = []
        for name in (TOKENS_ONLY, "model"):
            written, options = f"{temporary}/{name}", {"text_operations": name != TOKENS_ONLY}
            export_model(endpoints, loaded.table, written, run, **options)
            differences.append(validate(written, endpoints, **options))
        version = _push(pathlib.Path(temporary), output)
    console.print(
        f"Exported {version}; in a clean process it differs from the trained model by {max(differences):.1e} "
        f"(allowed: {TOLERANCE:.0e}).",
        highlight=False,
    )
    return version


def next_version(output: pathlib.Path) -> int:
    """The largest integer among the folder's entries plus 1; 1 for an empty folder."""
    return 1 + max((int(entry.name) for entry in output.iterdir() if entry.name.isdigit()), default=0)


def _push(temporary: pathlib.Path, output: pathlib.Path) -> pathlib.Path:
    """Rename both models to the next version of either."""
    twins = output / TOKENS_ONLY
    twins.mkdir(exist_ok=True)
    while True:
        version = output / str(max(next_version(output), next_version(twins)))
        try:
            os.rename(temporary / "model", version)
        except OSError:
            if not version.exists():  # otherwise a concurrent export took this version: take the next one
                raise
            continue
        os.rename(temporary / TOKENS_ONLY, twins / version.name)
        return version


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = new_parser("medclip_keras.export", __doc__.partition(":")[2])
    parser.add_argument("--workdir", required=True, help="folder of the trained run")
    parser.add_argument("--output", required=True, help="folder of the versions (MODELS_DIR)")
    options = parser.parse_args(argv)

    def work() -> None:
        export_workdir(options.workdir, options.output)

    return run_command("medclip_keras.export", work)


if __name__ == "__main__":
    sys.exit(main())
