"""python -m medclip_keras.evaluate: every table and figure, for a trained model or an exported one.

    python -m medclip_keras.evaluate --workdir DIR
    python -m medclip_keras.evaluate --saved_model MODELS_DIR/N --records DIR …

Both give equal figures, in DIR/evaluation (metrics.json, report.html, figures/). With --manifest CSV and
--prompts JSON the user's own images are evaluated too.
"""

import argparse
import dataclasses
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import keras
from etils import epath
from rich.console import Console

from medclip_keras.config import RunConfig, to_dict
from medclip_keras.errors import require
from medclip_keras.evaluation.embedder import embed_all_texts
from medclip_keras.evaluation.image_manifest import ImageManifest, embed_files, read_image_manifest
from medclip_keras.evaluation.prompts import ClassPrompts
from medclip_keras.evaluation.report import write
from medclip_keras.evaluation.run import TRAINED, UNTRAINED, DatasetResult, classify, evaluate
from medclip_keras.evaluation.table import terminal_table
from medclip_keras.knowledge.concepts import ConceptTable
from medclip_keras.provenance import versions
from medclip_keras.records.batches import evaluation_images, evaluation_sentences
from medclip_keras.records.data_sets import data_sets
from medclip_keras.records.manifest import MANIFEST_NAME, read_manifest
from medclip_keras.serving.embedders import GraphEmbedder, model_embedder, saved_model_embedder
from medclip_keras.training.model import MedCLIP
from medclip_keras.training.restore import LoadedModel, load_model

SPLIT = "test"
TASKS = ("zero_shot", "retrieval", "probe")


@dataclass(frozen=True)
class Subject:
    """What is evaluated, however it was loaded.

    Attributes:
        config: the run; `config.data` names the records, `config.evaluation` says what is measured on them.
        table: the concepts of the records.
        embedders: "trained", and "untrained" where it can be made.
    """

    config: RunConfig
    table: ConceptTable
    embedders: dict[str, GraphEmbedder]

    def with_data(self, images: Sequence[str], texts: Sequence[str]) -> "Subject":
        """The same model on other folders of records."""
        data = dataclasses.replace(self.config.data, images=tuple(images), texts=tuple(texts))
        return dataclasses.replace(self, config=dataclasses.replace(self.config, data=data))

    def with_evaluation(self, **changes) -> "Subject":
        """The same model, measured otherwise."""
        evaluation = dataclasses.replace(self.config.evaluation, **changes)
        return dataclasses.replace(self, config=dataclasses.replace(self.config, evaluation=evaluation))


def evaluate_workdir(
    workdir: epath.PathLike, *, loaded: LoadedModel | None = None, console: Console | None = None
) -> dict:
    """Evaluates a trained run on its test split, into workdir/evaluation.

    Args:
        workdir: of the run.
        loaded: its model, where the caller has it already.
        console: where the tables are printed.

    Returns:
        The content of metrics.json.

    Raises:
        ValueError: no trained model, or records that do not fit it.
    """
    return measure(subject_of_workdir(workdir, loaded), epath.Path(workdir) / "evaluation", console=console)


def subject_of_workdir(workdir: epath.PathLike, loaded: LoadedModel | None = None) -> Subject:
    """The trained model of a workdir, and the same model before its training."""
    loaded = loaded or load_model(workdir)
    keras.utils.set_random_seed(loaded.config.seed)
    fresh = MedCLIP(loaded.config, len(loaded.tokenizer.vocabulary)).build_towers()
    models = {TRAINED: loaded.model, UNTRAINED: fresh}
    embedders = {who: model_embedder(model, loaded.tokenizer) for who, model in models.items()}
    return Subject(loaded.config, loaded.table, embedders)


def subject_of_saved_model(directory: epath.PathLike) -> Subject:
    """An exported model, without records; no untrained model is in it."""
    embedder, config, table = saved_model_embedder(directory)
    return Subject(config, table, {TRAINED: embedder}).with_data((), ())


def measure(
    subject: Subject,
    output: epath.PathLike,
    *,
    own_images: ImageManifest | None = None,
    console: Console | None = None,
) -> dict:
    """Evaluates a model on the test split of its records, where it has any, and on the user's own images.

    Args:
        subject: the model and its records.
        output: receives metrics.json, figures/ and report.html.
        own_images: from `read_image_manifest`.
        console: where the tables are printed.

    Returns:
        The content of metrics.json.

    Raises:
        ValueError: records that do not fit the model, nothing to evaluate, an image that cannot be decoded.
    """
    console, data = console or Console(), subject.config.data
    results = _measure_records(subject) if data.images else {}
    if own_images:
        results[own_images.name] = _measure_own_images(subject, own_images)
    made_from = {
        "run": subject.config.name,
        "seed": subject.config.seed,
        "split": SPLIT,
        "logit_scale": subject.embedders[TRAINED].logit_scale,
        "evaluation": to_dict(subject.config)["evaluation"],
        "records": {path: read_manifest(path).fingerprint for path in (*data.images, *data.texts)},
        "versions": versions(),
    }
    metrics = write(results, output, made_from)
    for name, result in results.items():
        console.print(terminal_table(name, result.metrics))
        if "probe" in subject.config.evaluation.tasks and not result.probe:
            console.print(f"{name}: no linear probe, for want of labelled training images of two classes.")
    console.print(f"Report: {epath.Path(output) / 'report.html'}", highlight=False, soft_wrap=True)
    return metrics


def _measure_records(subject: Subject) -> dict[str, DatasetResult]:
    config = subject.config
    alone = {
        name: dataclasses.replace(config, data=data) for name, data in data_sets(config.data, SPLIT).items()
    }
    probed = alone if "probe" in config.evaluation.tasks else {}
    sentences = evaluation_sentences(config, SPLIT) if "retrieval" in config.evaluation.tasks else ()
    return evaluate(
        subject.embedders[TRAINED],
        {name: evaluation_images(one, SPLIT) for name, one in alone.items()},
        sentences,
        config.evaluation,
        subject.table.names,
        seed=config.seed,
        untrained=subject.embedders.get(UNTRAINED),
        labelled={name: _labelled(one) for name, one in probed.items()},
    )


def _labelled(config: RunConfig) -> tuple[Iterable, Iterable]:
    """Images of the training and of the validation split; none of a split that is empty."""
    folder = read_manifest(config.data.images[0])
    return tuple(
        evaluation_images(config, split) if folder.splits.get(split, {}).get("num_records") else ()
        for split in ("train", "valid")
    )


def _measure_own_images(subject: Subject, manifest: ImageManifest) -> DatasetResult:
    prompts = ClassPrompts.of(manifest.prompts)
    embedders = subject.embedders
    result = classify(
        manifest.task,
        prompts,
        {who: embed_files(embedder.embed_files, manifest) for who, embedder in embedders.items()},
        {who: embed_all_texts(embedder, prompts.texts) for who, embedder in embedders.items()},
        {who: embedder.logit_scale for who, embedder in embedders.items()},
        bootstrap=subject.config.evaluation.bootstrap,
        seed=subject.config.seed,
    )
    return DatasetResult(zero_shot=result)


def find_records(directories: Sequence[str]) -> tuple[list[str], list[str]]:
    """Folders of image records and of report records among the given ones and their direct subfolders.

    Raises:
        ValueError: one of them is neither records nor a folder of them.
    """
    found = {"images": [], "reports": []}
    for directory in map(epath.Path, directories):
        if (directory / MANIFEST_NAME).exists():
            inside = [directory]
        else:
            children = sorted(directory.iterdir(), key=str) if directory.is_dir() else []
            inside = [child for child in children if (child / MANIFEST_NAME).exists()]
        for folder in inside or [directory]:
            found[read_manifest(folder).kind].append(str(folder))
    return found["images"], found["reports"]


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    options = _parser().parse_args(argv)
    try:
        _check(options)
        own_images = read_image_manifest(options.manifest, options.prompts) if options.manifest else None
        images, texts = find_records(options.records)
        tasks = _tasks(options.tasks)
        if options.workdir:
            subject = subject_of_workdir(options.workdir)
        else:
            subject = subject_of_saved_model(options.saved_model)
        if options.records:
            subject = subject.with_data(images, texts)
        if tasks:
            subject = subject.with_evaluation(tasks=tasks)
        if options.prompts and not options.manifest:
            subject = subject.with_evaluation(prompts=options.prompts)
        home = options.workdir or (options.records or [epath.Path(options.manifest or "").parent])[0]
        measure(subject, options.output or epath.Path(home) / "evaluation", own_images=own_images)
    except ValueError as error:
        sys.exit(str(error))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m medclip_keras.evaluate",
        description=__doc__.partition(":")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--workdir", metavar="DIR", help="of a trained run")
    which.add_argument("--saved_model", metavar="MODELS_DIR/N", help="a version that export wrote")
    add(
        "--records",
        nargs="+",
        default=[],
        metavar="DIR",
        help="image and report records (default: the run's)",
    )
    add(
        "--manifest",
        metavar="CSV",
        default="",
        help="own images: columns path, perhaps patient_id, 0/1 classes",
    )
    add("--prompts", metavar="JSON", default="", help="{class: [prompt, …]} (default: the shipped ones)")
    add("--tasks", default="", metavar=",".join(TASKS), help="what to measure (default: the run's)")
    add("--output", default="", metavar="DIR", help="default: evaluation/ in the first folder named above")
    return parser


def _check(options: argparse.Namespace) -> None:
    require(
        bool(options.workdir or options.records or options.manifest),
        "--records",
        "given with --saved_model, unless --manifest names images",
        options.records,
        "Name folders of image and report records; a SavedModel has none.",
    )


def _tasks(text: str) -> tuple[str, ...]:
    tasks = tuple(task for task in text.split(",") if task)
    for task in tasks:
        require(task in TASKS, "--tasks", f"a list of {', '.join(TASKS)}", task)
    return tasks


if __name__ == "__main__":
    main()
