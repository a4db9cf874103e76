"""python -m medclip_keras.export: a trained model to a validated version for TensorFlow Serving.

MODELS_DIR/<version>/ has every endpoint and needs tensorflow-text's operations to load;
MODELS_DIR/tokens_only/<version>/ has those that TensorFlow alone can serve. Both are model base paths.
"""

import argparse
import json
import os
import pathlib
import shutil
import sys
import tempfile

from etils import epath
from rich.console import Console

from medclip_keras.errors import require
from medclip_keras.serving.signatures import RUN_FILE, Endpoints, export_model
from medclip_keras.serving.validate import TOLERANCE, validate
from medclip_keras.training.restore import LoadedModel, load_model

TOKENS_ONLY = "tokens_only"  # TensorFlow Serving takes no such name for a version


def export_workdir(
    workdir: epath.PathLike,
    output: epath.PathLike,
    *,
    loaded: LoadedModel | None = None,
    console: Console | None = None,
) -> pathlib.Path:
    """Writes the next version of a model; a version that the validation refuses never appears.

    Both SavedModels are written under a temporary name, asked in a clean process, and renamed when their
    answers equal the trained model's.

    Args:
        workdir: of the trained run.
        output: the folder of the versions, on a local file system; TensorFlow Serving's model base path.
        loaded: the workdir's model where the caller has it already.
        console: where progress is printed.

    Returns:
        output/<version>, the largest integer version there plus 1; output/tokens_only/<version> is its twin.

    Raises:
        ValueError: no trained model in the workdir, or the SavedModel does not answer as the model does.
    """
    require("://" not in str(output), "output", "a local folder (a bucket has no atomic rename)", str(output))
    console, output = console or Console(), pathlib.Path(output)
    loaded = loaded or load_model(workdir)
    run = json.loads((epath.Path(workdir) / RUN_FILE).read_text())
    run["step"] = loaded.step
    output.mkdir(parents=True, exist_ok=True)
    temporary = pathlib.Path(tempfile.mkdtemp(prefix=".exporting-", dir=output))
    try:
        differences = []
        for name in (TOKENS_ONLY, "model"):
            text_operations, written = name != TOKENS_ONLY, str(temporary / name)
            parts = (loaded.model, loaded.tokenizer, loaded.table)
            export_model(*parts, written, run, text_operations=text_operations)
            endpoints = Endpoints(loaded.model, loaded.tokenizer)
            differences.append(validate(written, endpoints, text_operations=text_operations))
        version = _push(temporary, output)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
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
    """Renames both models to the next version of either."""
    twins = output / TOKENS_ONLY
    twins.mkdir(exist_ok=True)
    while True:
        version = output / str(max(next_version(output), next_version(twins)))
        try:
            os.rename(temporary / "model", version)
        except OSError:
            if not version.exists():  # else another export was faster: take the next number
                raise
            continue
        os.rename(temporary / TOKENS_ONLY, twins / version.name)
        return version


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m medclip_keras.export", description=__doc__)
    parser.add_argument("--workdir", required=True, help="folder of the trained run")
    parser.add_argument("--output", required=True, help="folder of the versions (MODELS_DIR)")
    options = parser.parse_args(argv)
    try:
        export_workdir(options.workdir, options.output)
    except ValueError as error:
        sys.exit(f"{error}")


if __name__ == "__main__":
    main()
