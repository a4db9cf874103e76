"""The main job: `python -m medclip_keras.fit` turns records into a trained dual encoder.

Without arguments it needs no data: the run `phantom_tiny` draws its own radiographs and reports, labels and
decodes them with Apache Beam, trains, evaluates, exports, and says where everything is.
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

from etils import epath
from rich.console import Console

from medclip_keras.command import new_parser, run_command
from medclip_keras.config import RunConfig, override
from medclip_keras.errors import Interrupted, require, require_no_pattern
from medclip_keras.locks import sole_writer
from medclip_keras.runs import RUNS, get_run


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    arguments = _parse(argv)
    return run_command("medclip_keras.fit", lambda: _fit(arguments, Console()))


def _fit(arguments: argparse.Namespace, console: Console) -> None:
    config = override(get_run(arguments.run), arguments.assignments)
    workdir = epath.Path(arguments.workdir or f"workdir/{config.name}")
    data = config.data
    if arguments.images or arguments.texts:
        data = dataclasses.replace(data, images=tuple(arguments.images), texts=tuple(arguments.texts))
        config = dataclasses.replace(config, data=data)
    if data.images or data.texts:
        fit_records(config, workdir, console)
    else:
        fit_raw(config, workdir, console)


def fit_records(config: RunConfig, workdir: epath.Path, console: Console) -> None:
    """Validate record folders, train on them and evaluate.

    Raises:
        Interrupted: a signal ended training early.
    """
    from medclip_keras.evaluation.comparison import check_thresholds
    from medclip_keras.measure import evaluate_workdir
    from medclip_keras.pipeline import validate_together
    from medclip_keras.records.reading import image_folders, sentence_folders
    from medclip_keras.training.replicas import is_follower, make_strategy
    from medclip_keras.training.train import train

    require_no_pattern("--workdir", workdir)
    check_thresholds(config)
    make_strategy(config.train)  # several workers meet before TensorFlow computes anything
    if is_follower(config.train):
        _require_finished(train(config, workdir, Console(quiet=True)))
        return
    if config.data.images:  # else `train` refuses
        image_folders(config.data, "train")
        sentence_folders(config.data, "train")
    with sole_writer(workdir, "--workdir"):
        if config.data.images:
            validate_together(config.data, workdir, console)
        evaluable = bool(config.data.images) and _can_be_evaluated(config, console)
        _require_finished(train(config, workdir, console))
        if evaluable:
            evaluate_workdir(workdir, console=console)
    if evaluable:
        _say_where(workdir, console)
    else:
        console.print(f"The model is trained and saved in {workdir}.", highlight=False, soft_wrap=True)
    console.print(f"Export it: python -m medclip_keras.export --workdir {workdir} --output MODELS_DIR")


def _require_finished(outcome: Any) -> None:
    if not outcome.finished:
        raise Interrupted(outcome.step, outcome.total_steps, outcome.step)


def _can_be_evaluated(config: RunConfig, console: Console) -> bool:
    """Say before the training, if so, that the model will not be evaluated after it."""
    from medclip_keras.preflight import require_evaluable

    try:
        require_evaluable(config)
    except ValueError as error:  # of the test split: a model can be trained nevertheless
        console.print(
            f"The model will be trained, but not evaluated: {error}\nWith other records or findings: "
            "python -m medclip_keras.evaluate --workdir DIR --split all --findings …",
            highlight=False,
            soft_wrap=True,
        )
        return False
    return True


def fit_raw(config: RunConfig, workdir: epath.Path, console: Console) -> None:
    """Run all stages of a run that starts from raw files.

    Raises:
        Interrupted: a signal ended training early.
    """
    from medclip_keras.pipeline import Pipeline

    alone, advice = config.train.strategy != "multi_worker", "Make records, and name them with --images."
    require(alone, "train.strategy", "of one process for raw files", config.train.strategy, advice)
    if config.data.phantom:
        console.print(
            f"Run {config.name}: synthetic radiographs and reports, good for learning the tool and not "
            "for any claim about medicine.",
            highlight=False,
        )
    Pipeline(config, workdir, console=console).run()
    _say_where(workdir, console)


def _say_where(workdir: epath.Path, console: Console) -> None:
    places = {
        "records": workdir / "validation",
        "figures": workdir / "evaluation" / "report.html",
        "numbers": workdir / "evaluation" / "metrics.json",
        "model": workdir / "export",
        "curves": f"tensorboard --logdir {workdir / 'tensorboard'}",
    }
    for name, place in places.items():
        if not isinstance(place, epath.Path) or place.exists():
            console.print(f"{name:>8}  {place}", highlight=False, soft_wrap=True)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = new_parser("medclip_keras.fit", __doc__.split("\n")[0])
    parser.add_argument(
        "--run",
        default="phantom_tiny",
        help=f"a run.json, or one of {', '.join(RUNS)} (default phantom_tiny); "
        "python -m medclip_keras.runs describes them",
    )
    parser.add_argument("--images", nargs="+", default=[], metavar="DIR", help="folders of image records")
    parser.add_argument("--texts", nargs="+", default=[], metavar="DIR", help="folders of report records")
    parser.add_argument(
        "--set",
        action="extend",
        nargs="+",
        default=[],
        metavar="a.b=c",
        dest="assignments",
        help="change a field of the run, as train.steps=100; python -m medclip_keras.runs NAME lists all",
    )
    parser.add_argument("--workdir", default="", help="default: workdir/RUN")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
