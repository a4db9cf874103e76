"""Metrics, plots and a report for a trained model or an exported one.

    python -m medclip_keras.evaluate --workdir DIR
    python -m medclip_keras.evaluate --saved_model MODELS_DIR/N --records DIR …
    python -m medclip_keras.evaluate --compare DIR_1 DIR_2 …

The first two write equal metrics to DIR/evaluation (metrics.json, report.html, figures/). With --manifest CSV
and --prompts JSON the user's own images are evaluated too; --boxes DIR asks whether heat maps point at
radiologists' boxes. The third sets evaluations beside each other, with paired differences.
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from etils import epath
from rich.console import Console

from medclip_keras.command import new_parser, run_command
from medclip_keras.config import override
from medclip_keras.errors import require
from medclip_keras.training.run_json import read_run_json

if TYPE_CHECKING:
    from medclip_keras.subject import Subject

SPLITS = ("train", "valid", "test", "all")
OF_ZERO_SHOT = ("trust", "subgroups", "shortcuts")
TASKS = ("zero_shot", "retrieval", "probe", *OF_ZERO_SHOT, "leaks", "fine_tune")
_RESAMPLES = 1000  # of comparisons


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    options = _parse(argv)
    return run_command("medclip_keras.evaluate", lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    if options.compare:
        return _compare(options)
    tasks, findings, classes = map(_listed, (options.tasks, options.findings, options.classes))
    _check(options, tasks)
    own_images = None
    if options.manifest:
        from medclip_keras.evaluation.image_manifest import read_image_manifest

        own_images = read_image_manifest(options.manifest, options.prompts, classes)
    from medclip_keras.measure import find_records, measure, measure_workdir
    from medclip_keras.subject import subject_of_saved_model, subject_of_workdir

    images, texts = find_records(options.records)
    workdir, saved_model = options.workdir, options.saved_model
    subject = subject_of_workdir(workdir) if workdir else subject_of_saved_model(saved_model)
    subject = _adjusted(subject, options, tasks, findings)
    if options.records:
        subject = subject.with_config("data", images=tuple(images), texts=tuple(texts))
    beside = epath.Path(options.manifest).parent if options.manifest else "."  # not among the boxes
    home = workdir or (options.records or [beside])[0]
    output = options.output or epath.Path(home) / "evaluation"
    asked = {"own_images": own_images, "boxes": options.boxes, "show_data": options.show_data}
    if workdir and not options.output:
        measure_workdir(workdir, subject, split=options.split, **asked)
    else:
        measure(subject, output, split=options.split, **asked)


def _compare(options: argparse.Namespace) -> None:
    from medclip_keras.evaluation.metrics import Bootstrap
    from medclip_keras.evaluation.side_by_side import read_runs, write_comparison

    output = options.output or "comparison"
    write_comparison(read_runs(options.compare), output, Bootstrap(_RESAMPLES, seed=0))
    page = epath.Path(output) / "report.html"
    Console().print(f"Report: {page}", markup=False, highlight=False, soft_wrap=True)


def _check(options: argparse.Namespace, tasks: Sequence[str]) -> None:
    """Refuse options that do not fit each other, before a model is loaded."""
    for task in tasks:
        require(task in TASKS, "--tasks", f"a list of {', '.join(TASKS)}", task)
    for assignment in options.assignments:
        own = assignment.startswith("evaluation.")
        advice = "The other settings are those of the training."
        require(own, "--set", "of the form evaluation.NAME=VALUE", assignment, advice)
    probed = "probe" in tasks and options.split != "test"
    require(not probed, "--tasks", f"without probe for --split {options.split}", options.tasks)
    form = "given with --saved_model or a workdir of converted weights, unless --manifest names images"
    advice = "Name folders of image and report records; a SavedModel and converted weights have none."
    has_images = bool(options.records or options.manifest or options.boxes)
    has_images = has_images or bool(options.workdir and read_run_json(options.workdir).data.images)
    require(has_images, "--records", form, options.records, advice)


def _adjusted(
    subject: "Subject", options: argparse.Namespace, tasks: tuple[str, ...], findings: tuple[str, ...]
) -> "Subject":
    """The model with the settings of its evaluation that the options change."""
    subject = dataclasses.replace(subject, config=override(subject.config, options.assignments))
    if tasks:
        subject = subject.with_config("evaluation", tasks=tasks)
    resolved = subject.config.evaluation.tasks
    needing = [task for task in OF_ZERO_SHOT if task in resolved]
    form = f"with zero_shot, of whose scores are {', '.join(needing)}"
    require(not needing or "zero_shot" in resolved, "--tasks", form, resolved)
    if findings:
        subject = subject.with_config("evaluation", findings=findings, task=options.task or "multi_label")
    elif options.task:
        subject = subject.with_config("evaluation", task=options.task)
    if options.prompts and not options.manifest:
        subject = subject.with_config("evaluation", prompts=options.prompts)
    return subject


def _listed(names: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in names.split(",") if name.strip())


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = new_parser("medclip_keras.evaluate", __doc__)
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--workdir", metavar="DIR", help="of a trained run")
    model.add_argument("--compare", nargs="+", metavar="DIR", help="evaluations, or workdirs that hold one")
    model.add_argument("--saved_model", metavar="MODELS_DIR/N", help="an exported version")
    add = parser.add_argument
    add("--records", nargs="+", default=[], metavar="DIR", help="images and reports (default: the run's)")
    add("--split", default="test", choices=SPLITS, help="records to evaluate on (default %(default)s)")
    add("--findings", default="", metavar="NAME,…", help="findings to evaluate (default: the run's)")
    add(
        "--task",
        default="",
        choices=["multi_label", "single_finding"],
        help="each finding a question of all images, or one choice for images with exactly one of them "
        "(default: the run's; of --findings: multi_label)",
    )
    add("--manifest", default="", metavar="CSV", help="own images: path, optionally patient_id, 0/1 classes")
    add("--classes", default="", metavar="NAME,…", help="columns of --manifest (default: all others)")
    add("--prompts", default="", metavar="JSON", help="{class: [prompt, …]} (default: the shipped ones)")
    add("--tasks", default="", metavar=",".join(TASKS), help="tasks to evaluate (default: the run's)")
    add(
        "--set",
        action="extend",
        nargs="+",
        default=[],
        metavar="evaluation.a=b",
        dest="assignments",
        help="settings of the evaluation, as evaluation.probe_fractions=[0.01,0.1,1]",
    )
    add(
        "--boxes",
        default="",
        metavar="DIR",
        help="NIH ChestX-ray14 or RSNA with boxes: the pointing game",
    )
    add("--show_data", action="store_true", help="show real pictures on the page; drawn ones always are")
    add("--output", default="", metavar="DIR", help="default: evaluation/ in the first folder named above")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
