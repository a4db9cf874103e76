"""Supervised training and fine-tuning of the image tower on labels, a peer of zero-shot classification.

    python -m medclip_keras.supervised --workdir DIR --run NAME --images DIR … --start random
    python -m medclip_keras.supervised --workdir DIR --images DIR … --start TRAINED [--freeze]

The image tower learns cross-entropy on the label states of image records, with the run's augmentation,
balance, optimizer and number of steps; sentences are not used. In single_finding it learns from the images
with exactly one of the findings, by softmax; in multi_label from all images, a sigmoid for each concept of
the table. DIR/evaluation holds metrics.json and report.html, measured as zero-shot classification is, on
the same test images.

Follows: Zhang et al., MLHC 2022 (ConVIRT), section 5.1, for the settings: a random, an ImageNet or a
    pretrained start; all weights or the head alone (--freeze); a share of the labels (--labels_share).
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Sequence

from etils import epath
from rich.console import Console

from medclip_keras.command import new_parser, run_command
from medclip_keras.config import RunConfig, override, to_dict
from medclip_keras.errors import Interrupted, require
from medclip_keras.evaluation.report import write
from medclip_keras.evaluation.results import DatasetResult
from medclip_keras.evaluation.supervised import measure_classifier
from medclip_keras.evaluation.table import terminal_table
from medclip_keras.evaluation.tasks import check_findings
from medclip_keras.locks import sole_writer
from medclip_keras.models.image_encoder import ImageEncoder
from medclip_keras.provenance import versions
from medclip_keras.records.batches import evaluation_images
from medclip_keras.records.data_sets import data_sets
from medclip_keras.records.labelled_images import Classes, count_labelled
from medclip_keras.records.manifest import load_concepts, read_manifest
from medclip_keras.records.reading import image_folders
from medclip_keras.runs import get_run
from medclip_keras.training.classifier import Classifier, train_classifier
from medclip_keras.training.restore import load_model
from medclip_keras.training.run_json import read_run_json, require_same_run

SUPERVISED_FILE = "supervised.json"


@dataclasses.dataclass(frozen=True)
class Start:
    """Settings of a supervised run."""

    # "random", "preset" (the run's `model.image.preset`) or the workdir of a trained run
    weights: str = "random"
    freeze: bool = False  # whether only the head learns
    labels_share: float = 1.0  # share of the labelled training images to learn from

    def __post_init__(self):
        require(0 < self.labels_share <= 1, "--labels_share", "over 0 and up to 1", self.labels_share)


def fit_supervised(
    config: RunConfig, start: Start, workdir: epath.PathLike, console: Console | None = None
) -> dict:
    """Train a classifier in `workdir`, or resume it, and evaluate it on the test split; return the metrics.

    The workdir receives run.json, supervised.json, checkpoints/, tensorboard/ and evaluation/.

    Raises:
        ValueError: records that do not fit, nothing to learn or to evaluate, a workdir of another run or
            that another process writes.
        Interrupted: a signal ended the training early.
    """
    with sole_writer(workdir, "--workdir"):
        return _fit_supervised(config, start, epath.Path(workdir), console or Console())


def _fit_supervised(config: RunConfig, start: Start, workdir: epath.Path, console: Console) -> dict:
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, texts=()))
    make_encoder = encoder_maker(config, start.weights)
    image_folders(config.data, "train")
    classes = classes_of(config, start.labels_share)
    num_images = _require_labelled(config, classes, "train")
    _require_labelled(config, classes, "test")
    require_same_run(config, workdir)
    how = f"start: {start.weights}{', frozen' if start.freeze else ''}"
    learned = f"{num_images} labelled images of {len(classes.names)} classes"
    console.print(f"Run {config.name}, supervised, {how}; {learned}.", highlight=False, soft_wrap=True)

    def make_and_note() -> ImageEncoder:
        encoder = make_encoder()  # before the files that claim the workdir
        _write_start(start, classes, workdir)
        return encoder

    classifier, outcome = train_classifier(
        make_and_note, classes, config, workdir, freeze=start.freeze, console=console
    )
    if not outcome.finished:
        raise Interrupted(outcome.step, outcome.total_steps, outcome.step)
    return _evaluate(classifier, start, num_images, workdir / "evaluation", console)


def _require_labelled(config: RunConfig, classes: Classes, split: str) -> int:
    """Number of a split's labelled images; refuse a split without any before the training."""
    num_images = count_labelled(config, classes, split)
    names = ", ".join(classes.names)
    needed = f"folders with images in the split {split!r} that are positive for exactly one of {names}"
    require(num_images > 0, "data.images", needed, list(config.data.images))
    return num_images


def classes_of(config: RunConfig, share: float = 1.0) -> Classes:
    """Classes of a run's classifier: its findings for single_finding, all concepts for multi_label.

    Raises:
        ValueError: a finding that is not in the concept table.
    """
    names = load_concepts(config.data.images[0]).names
    findings = check_findings(config.evaluation, names)
    if config.evaluation.task == "single_finding":
        return Classes(tuple(findings), one_each=True, share=share)
    return Classes(tuple(names), one_each=False, share=share)


def encoder_maker(config: RunConfig, weights: str) -> Callable[[], ImageEncoder]:
    """Return a function that builds the image tower with its initial weights, one of `Start.weights`.

    Raises:
        ValueError: a preset that the run does not name, a folder without a trained run, or of another tower.
    """
    image = config.model.image
    if weights in ("random", "preset"):
        needed = "random or a workdir, for the run names no preset"
        advice = "Name one: --set model.image.preset=NAME or FOLDER."
        require(weights == "random" or bool(image.preset), "--start", needed, weights, advice)
        image = dataclasses.replace(image, preset=image.preset if weights == "preset" else "")
        return lambda: ImageEncoder(image, config.model.projection_dim)
    trained = read_run_json(weights)
    needed = f"a workdir whose image tower is the run's ({image})"
    advice = "Leave out --run to take the run of the workdir."
    require(trained.model.image == image, "--start", needed, trained.model.image, advice)
    return lambda: load_model(weights, precision=config.train.precision).model.image_encoder


def _write_start(start: Start, classes: Classes, workdir: epath.Path) -> None:
    path = workdir / SUPERVISED_FILE
    written = dataclasses.asdict(start) | {"classes": list(classes.names), "one_each": classes.one_each}
    if path.exists():
        earlier = json.loads(path.read_text())  # an earlier version's has no classes
        needed, same = (
            f"empty, or hold this very run; it holds one with {earlier}",
            written | earlier == written,
        )
        require(same, "workdir", needed, written, "Name another --workdir, or delete it.")
        return
    workdir.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(written, indent=2) + "\n")


def _evaluate(
    classifier: Classifier, start: Start, num_images: int, output: epath.Path, console: Console
) -> dict:
    results = _measure(classifier, start.labels_share, num_images)
    config = classifier.run
    made_from = {
        "run": f"{config.name}, supervised",
        "seed": config.seed,
        "split": "test",
        "evaluation": to_dict(config)["evaluation"],
        **dataclasses.asdict(start),
        "records": {path: read_manifest(path).fingerprint for path in config.data.images},
        "versions": versions(),
    }
    metrics = write(results, output, made_from, to_dict(config))
    for name, result in results.items():
        console.print(terminal_table(name, result))
    console.print(f"Report: {output / 'report.html'}", highlight=False, soft_wrap=True)
    return metrics


def _measure(classifier: Classifier, share: float, num_images: int) -> dict[str, DatasetResult]:
    """Results on the test split of each data set, by its name."""
    config, concept_names = classifier.run, load_concepts(classifier.run.data.images[0]).names
    results = {
        name: measure_classifier(
            classifier.score_fn(),
            classifier.classes.names,
            evaluation_images(dataclasses.replace(config, data=data), "test"),
            config.evaluation,
            concept_names,
            num_training_images=num_images,
            share=share,
            seed=config.seed,
        )
        for name, data in data_sets(config.data, "test").items()
    }
    found = any(result.tasks for result in results.values())
    require(found, "data.images", "folders with test images of the task", list(config.data.images))
    return results


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = new_parser("medclip_keras.supervised", __doc__)
    add = parser.add_argument
    add("--workdir", required=True, help="receives the run and its evaluation")
    add("--run", default="", help="a named run or a run.json (default: that of the --start workdir)")
    add("--images", nargs="+", default=[], metavar="DIR", help="image records (default: the run's)")
    add("--start", default="random", metavar="random|preset|WORKDIR", help="weights of the image tower")
    add("--freeze", action="store_true", help="train the head alone")
    add("--labels_share", type=float, default=1.0, metavar="SHARE", help="of the training images (default 1)")
    add("--set", action="extend", nargs="+", default=[], metavar="a.b=c", dest="assignments")
    options = parser.parse_args(argv)

    def work() -> None:
        start = Start(options.start, options.freeze, options.labels_share)
        fit_supervised(_run_of(options), start, options.workdir)

    return run_command("medclip_keras.supervised", work)


def _run_of(options: argparse.Namespace) -> RunConfig:
    """The run of the command line; the run of the --start workdir by default."""
    known = bool(options.run) or options.start not in ("random", "preset")
    needed, advice = "named, unless --start is a workdir", "Name a run, or a run.json."
    require(known, "--run", needed, options.run, advice)
    config = get_run(options.run) if options.run else read_run_json(options.start)
    config = override(config, options.assignments)
    if not options.images:
        return config
    return dataclasses.replace(config, data=dataclasses.replace(config.data, images=tuple(options.images)))


if __name__ == "__main__":
    sys.exit(main())
