"""The evaluation of a trained or exported model on records and on the user's own images, into a folder."""

import contextlib
import dataclasses
import functools
from collections.abc import Iterable, Sequence
from typing import Any

from etils import epath
from rich.console import Console

from medclip_keras.board import write_board
from medclip_keras.config import RunConfig, to_dict
from medclip_keras.errors import require
from medclip_keras.evaluation.arrays import Batch
from medclip_keras.evaluation.embedder import embed_all_texts
from medclip_keras.evaluation.evaluator import Labelled, evaluate, trust_of
from medclip_keras.evaluation.image_manifest import ImageManifest, embed_files
from medclip_keras.evaluation.metrics import Bootstrap
from medclip_keras.evaluation.prompts import (
    ClassPrompts,
    finding_prompts,
    prompts_made_from,
    with_denials,
)
from medclip_keras.evaluation.report import write
from medclip_keras.evaluation.results import TRAINED, UNTRAINED, DatasetResult, Json
from medclip_keras.evaluation.table import terminal_table
from medclip_keras.evaluation.where.section import pointing_lines
from medclip_keras.evaluation.zero_shot import classify, draw_columns
from medclip_keras.fine_tuning import fine_tune
from medclip_keras.image_files import read_square
from medclip_keras.localize import measure_boxes, methods_of, picture_sections
from medclip_keras.provenance import versions
from medclip_keras.records.batches import evaluation_images, evaluation_sentences
from medclip_keras.records.data_sets import data_sets
from medclip_keras.records.manifest import MANIFEST_NAME, load_concepts, read_manifest
from medclip_keras.subject import Subject, subject_of_workdir


def evaluate_workdir(workdir: epath.PathLike, *, console: Console | None = None) -> Json:
    """Evaluate a trained run on its test split, into workdir/evaluation; return the content of metrics.json.

    Raises:
        ValueError: no trained model, or records that do not fit it.
    """
    return measure_workdir(workdir, subject_of_workdir(workdir), console=console)


def measure_workdir(workdir: epath.PathLike, subject: Subject, **options: Any) -> Json:
    """Evaluate into the workdir's own folder, and show the result in its TensorBoard too."""
    output = epath.Path(workdir) / "evaluation"
    metrics = measure(subject, output, **options)
    write_board(workdir, subject.config, metrics, output / "figures")
    return metrics


def measure(
    subject: Subject,
    output: epath.PathLike,
    *,
    split: str = "test",
    own_images: ImageManifest | None = None,
    boxes: str = "",
    show_data: bool = False,
    console: Console | None = None,
) -> Json:
    """Evaluate a model on the test split of its records and on the user's own images; return the metrics.

    `output` receives metrics.json, figures/ and report.html. `boxes` is a folder of radiologists' boxes. The
    page shows pictures of drawn images; of real ones only with `show_data`.

    Raises:
        ValueError: records that do not fit the model, nothing to evaluate, an image that cannot be decoded.
    """
    console, config = console or Console(), subject.config
    results: dict[str, DatasetResult] = {}
    try:
        results = measure_records(subject, split) if config.data.images else {}
    except ValueError as error:
        if not own_images:
            raise
        _say(console, f"The records are not evaluated: {error}")
    if "fine_tune" in config.evaluation.tasks:
        results = _with_fine_tuning(subject, split, results, console)
    made_from = _made_from(subject, split, list(results))
    trained = subject.embedders[TRAINED]
    maps = methods_of(trained, subject.model)
    pictures = picture_sections(config, split, results, next(iter(maps.values())), show_data)
    for name, result in results.items():
        if "probe" in config.evaluation.tasks and not result.probe:
            needs = "labelled training images of two classes" if split == "test" else "--split test"
            _say(console, f"{name}: no linear probe: it needs {needs}.")
        if "leaks" in config.evaluation.tasks and not result.leaks:
            needs = "the images of the training, and --split test or valid"
            _say(console, f"{name}: no search for leaks: it needs {needs}.")
    if own_images:
        name = own_images.name_beside(results)
        results[name] = _measure_own_images(subject, own_images)
        made_from["data_sets"][name] = own_images.made_from
    if boxes:
        name, found = measure_boxes(boxes, trained, maps, config.data.stored_image_size, _bootstrap(config))
        results[name] = found
        made_from["data_sets"][name] = {"boxes": boxes}
    metrics = write(results, output, made_from, to_dict(config), pictures)
    for name, result in results.items():
        if result.tasks:
            console.print(terminal_table(name, result))
        for line in pointing_lines(result.localization) if result.localization else ():
            _say(console, f"{name}: {line}")
    _say(console, f"Report: {epath.Path(output) / 'report.html'}")
    return metrics


def _bootstrap(config: RunConfig) -> Bootstrap:
    return Bootstrap(config.evaluation.bootstrap, config.seed)


def _say(console: Console, text: str) -> None:
    """Print a line with names of the user's, which are no markup."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _made_from(subject: Subject, split: str, names: Sequence[str]) -> Json:
    """The model, and the records of those data sets that were evaluated; nothing of records without any."""
    config = subject.config
    made_from = {
        "run": config.name,
        **subject.origin,
        "commit": versions()["commit"],
        "seed": config.seed,
        "bootstrap": config.evaluation.bootstrap,
        "logit_scale": subject.embedders[TRAINED].logit_scale,
        "versions": versions(),
        "records": {},
        "data_sets": {},
    }
    if not names:
        return made_from
    folders = (*config.data.images, *config.data.texts)
    prompts = {}
    if "zero_shot" in config.evaluation.tasks:
        prompts = prompts_made_from(config.evaluation.prompts, finding_prompts(config.evaluation))
    return made_from | {
        "split": split,
        "evaluation": to_dict(config)["evaluation"],
        "records": {p: read_manifest(p).fingerprint for p in folders},
        "data_sets": {
            name: _made_from_folder(path) | {"split": split, **prompts}
            for name, data in data_sets(config.data, split).items()
            for path in data.images
        },
    }


def _made_from_folder(path: str) -> Json:
    manifest = read_manifest(path)
    return {"source": manifest.source, "images": path, "fingerprint": manifest.fingerprint}


def measure_records(subject: Subject, split: str) -> dict[str, DatasetResult]:
    """Evaluate a model on a split of its records: data set → result.

    Raises:
        ValueError: as `evaluator.evaluate`, or records of other concepts than the model's.
    """
    config, tasks = subject.config, subject.config.evaluation.tasks
    for path in (*config.data.images, *config.data.texts):
        table = load_concepts(path)
        form = f"of the model's concept table, {subject.concepts.name!r}"
        received = f"{path}, of the table {table.name!r}"
        advice = "Make them with the same --concepts."
        require(table.names == subject.concepts.names, "records", form, received, advice)
    runs = {n: dataclasses.replace(config, data=data) for n, data in data_sets(config.data, split).items()}
    needs_labelled = bool({"probe", "trust"} & {*tasks}) or config.evaluation.task == "multi_label"
    results = evaluate(
        subject.embedders[TRAINED],
        {name: evaluation_images(run, split) for name, run in runs.items()},
        evaluation_sentences(config, split) if "retrieval" in tasks else (),
        config.evaluation,
        subject.concepts.names,
        seed=config.seed,
        untrained=subject.embedders.get(UNTRAINED),
        labelled={name: _labelled(run) for name, run in runs.items() if needs_labelled and split == "test"},
        training=_training_images(subject) if "leaks" in tasks and split in ("valid", "test") else (),
    )
    return {name: _marked(subject, result) for name, result in results.items()}


def _with_fine_tuning(
    subject: Subject, split: str, results: dict[str, DatasetResult], console: Console
) -> dict[str, DatasetResult]:
    """Add fine-tuning on each data set's labels to the results; a SavedModel's results stay unchanged."""
    if "workdir" not in subject.origin or split != "test":
        _say(console, "No fine-tuning: it needs --workdir and --split test.")
        return results
    data_of, workdir = data_sets(subject.config.data, split), subject.origin["workdir"]
    return {
        name: dataclasses.replace(
            result, fine_tune=fine_tune(subject.config, data_of[name], workdir, console)
        )
        for name, result in results.items()
    }


def _training_images(subject: Subject) -> Iterable[Batch]:
    """Images that the model was trained on; of a SavedModel, or if they are gone, those of the records."""
    for data in filter(None, (subject.trained_on, subject.config.data)):
        config = dataclasses.replace(subject.config, data=data)
        with contextlib.suppress(ValueError):
            return evaluation_images(config, "train")
    return ()


def _marked(subject: Subject, result: DatasetResult) -> DatasetResult:
    """The result with its unseen classes marked as such."""
    if not result.zero_shot:
        return result
    unseen = subject.unseen(result.zero_shot.task.classes)
    return dataclasses.replace(result, zero_shot=dataclasses.replace(result.zero_shot, unseen=unseen))


def _labelled(config: RunConfig) -> Labelled:
    """Images of the training and of the validation split; () for an empty split."""
    splits = read_manifest(config.data.images[0]).splits
    train, valid = (
        evaluation_images(config, split) if splits.get(split, {}).get("num_records") else ()
        for split in ("train", "valid")
    )
    return train, valid


def _measure_own_images(subject: Subject, manifest: ImageManifest) -> DatasetResult:
    config, embedders = subject.config.evaluation, subject.embedders
    negated = config.contrast == "negated" and not manifest.task.is_single
    prompts = ClassPrompts.of(with_denials(manifest.prompts) if negated else manifest.prompts)
    bootstrap = _bootstrap(subject.config)
    read = functools.partial(read_square, size=subject.config.data.stored_image_size)
    result = classify(
        manifest.task,
        prompts,
        embed_files({who: e.embed_images for who, e in embedders.items()}, read, manifest),
        {who: embed_all_texts(embedder, prompts.texts) for who, embedder in embedders.items()},
        logit_scales={who: embedder.logit_scale for who, embedder in embedders.items()},
        bootstrap=bootstrap,
        draws=draw_columns(prompts, len(prompts.texts), config.prompt_draws, subject.config.seed),
        negated=negated,
    )
    result = dataclasses.replace(result, unseen=subject.unseen(manifest.task.classes))
    trusted = "trust" in config.tasks
    trust = trust_of(result, embedders[TRAINED], bootstrap, None) if trusted else None
    return DatasetResult(zero_shot=result, trust=trust)


def find_records(directories: Sequence[str]) -> tuple[list[str], list[str]]:
    """Folders of image records and of report records among the given folders and their direct subfolders.

    Raises:
        ValueError: one of them is neither records nor a folder of records.
    """
    found: dict[str, list[str]] = {"images": [], "reports": []}
    for directory in map(epath.Path, directories):
        is_records = (directory / MANIFEST_NAME).exists()
        inside = [] if is_records else sorted(path.parent for path in directory.glob(f"*/{MANIFEST_NAME}"))
        for folder in inside or [directory]:
            found[read_manifest(folder).kind].append(str(folder))
    return found["images"], found["reports"]
