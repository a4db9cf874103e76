"""One training run, from record folders to checkpoints, resumed where an earlier one stopped."""

import dataclasses
import itertools
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from etils import epath
from rich.console import Console

from medclip_keras.config import AugmentConfig, RunConfig
from medclip_keras.errors import require
from medclip_keras.knowledge.concepts import ConceptTable
from medclip_keras.preprocess.text import Tokenizer, load_tokenizer
from medclip_keras.records.batches import evaluation_sentences, training_batches
from medclip_keras.records.manifest import load_concepts, read_manifest, verify
from medclip_keras.records.reading import image_folders, sentence_folders
from medclip_keras.training import callbacks
from medclip_keras.training.checkpoints import Checkpoints
from medclip_keras.training.concept_kernel import label_kernel
from medclip_keras.training.model import MedCLIP, build_optimizer
from medclip_keras.training.projector import write_projector
from medclip_keras.training.replicas import make_strategy
from medclip_keras.training.run_json import write_run_json
from medclip_keras.training.vocabulary import make_tokenizer


@dataclass(frozen=True)
class Outcome:
    """How a training run ended.

    Attributes:
        step: steps done.
        total_steps: steps of the whole run; more than `step` where Ctrl-C ended it early.
    """

    step: int
    total_steps: int

    @property
    def finished(self) -> bool:
        """Whether every step was done."""
        return self.step >= self.total_steps


def train(config: RunConfig, workdir: epath.PathLike, console: Console | None = None) -> Outcome:
    """Trains `config` in `workdir`, or goes on where the run in it stopped.

    Args:
        config: the run; `data.images` and `data.texts` name record folders.
        workdir: receives run.json, vocabulary/, checkpoints/ and tensorboard/.
        console: where progress is printed.

    Raises:
        ValueError: records that do not fit the configuration, a shard that is not as its manifest says, or a
            workdir of another run.
        FloatingPointError: the loss is no longer finite; the last good checkpoint is kept.
    """
    console, workdir = console or Console(), epath.Path(workdir)
    keras.utils.set_random_seed(config.seed)
    keras.mixed_precision.set_global_policy(config.train.precision)
    table = load_concepts(_first_dataset(config))
    for directory in (*config.data.images, *config.data.texts):
        verify(directory)
        console.print(f"{directory}: every shard is as its manifest says.", highlight=False, soft_wrap=True)
    image_folders(config.data, "train")
    sentence_folders(config.data, "train")
    kernel = label_kernel(config, table)
    total_steps = count_steps(config)
    write_run_json(config, workdir)
    tokenizer = _open_vocabulary(config, table, workdir / "vocabulary")
    strategy = make_strategy(config.train.strategy)
    require(
        config.train.batch_size % strategy.num_replicas_in_sync == 0,
        "train.batch_size",
        f"a multiple of the {strategy.num_replicas_in_sync} replicas",
        config.train.batch_size,
    )
    with strategy.scope():
        model = MedCLIP(config, len(tokenizer.vocabulary), kernel).build_towers()
        model.compile(optimizer=build_optimizer(config, total_steps), jit_compile=False)
        model.optimizer.build(model.trainable_variables)
        checkpoints = Checkpoints(workdir / "checkpoints", model)
        start_step = checkpoints.restore_last()
    _announce(config, model, strategy, start_step, total_steps, console)
    if start_step < total_steps:
        start_step = _fit(
            model, config, tokenizer, table, checkpoints, start_step, total_steps, workdir, console
        )
    return Outcome(start_step, total_steps)


def _open_vocabulary(config: RunConfig, table: ConceptTable, folder: epath.Path) -> Tokenizer:
    """The tokenizer and concepts of a run: those that its folder holds; made and written for a new run."""
    if (folder / "concepts.jsonl").exists():  # written last
        return load_tokenizer(folder)
    tokenizer = make_tokenizer(config, evaluation_sentences(config, "train"))
    tokenizer.save(folder)
    (folder / "concepts.jsonl").write_text(table.to_jsonl())
    return tokenizer


def count_steps(config: RunConfig) -> int:
    """Steps of the whole run: `train.steps`, or `train.epochs` passes over the training images."""
    return config.train.steps or max(1, round(config.train.epochs * steps_per_epoch(config)))


def steps_per_epoch(config: RunConfig) -> int:
    """Steps in which as many images are drawn as the training split holds."""
    return max(1, num_images(config, "train") // config.train.batch_size)


def num_images(config: RunConfig, split: str) -> int:
    """Images of a split, by the manifests; 0 where there is no such split."""
    return sum(read_manifest(d).splits[split]["num_records"] for d in config.data.images)


def _fit(model, config, tokenizer, table, checkpoints, start_step, total_steps, workdir, console) -> int:
    """Runs the steps that are left; returns the last one that was done and saved."""
    batches = training_batches(
        config, tokenizer, start_step=start_step, steps_per_epoch=steps_per_epoch(config)
    )
    held_out = validation_batches(config, tokenizer)
    steps = (start_step, total_steps)
    saved_step = run_steps(model, batches, held_out, checkpoints, *steps, workdir=workdir, console=console)
    if held_out:
        write_projector(model, held_out, table.names, workdir / "tensorboard")
    return saved_step


def run_steps(
    model: keras.Model,
    batches: tf.data.Dataset,
    held_out: list[dict],
    checkpoints: Checkpoints,
    start_step: int,
    total_steps: int,
    *,
    workdir: epath.PathLike,
    console: Console,
) -> int:
    """Trains from `start_step` to `total_steps` with all that happens beside the steps.

    Args:
        model: compiled; has an `objective` and the `run`.
        batches: endless, from `start_step` on.
        held_out: validation batches; may be empty.
        checkpoints: of the model.
        start_step: steps done before.
        total_steps: steps of the whole run.
        workdir: receives tensorboard/.
        console: where progress is printed.

    Returns:
        The last step that was done and saved; Ctrl-C ends training early.

    Raises:
        FloatingPointError: the loss is no longer finite.
    """
    config = model.run.train
    writer = tf.summary.create_file_writer(str(epath.Path(workdir) / "tensorboard"))
    validation = callbacks.Validation(start_step, held_out, checkpoints, writer, config, total_steps)
    try:
        model.fit(
            batches,
            steps_per_epoch=total_steps - start_step,
            epochs=1,
            shuffle=False,  # the batches come shuffled
            verbose=0,
            callbacks=[
                callbacks.StopOnNaN(start_step),
                callbacks.StopOnSignal(start_step),
                callbacks.ProgressBar(start_step, total_steps, config.batch_size, console),
                callbacks.TensorBoard(start_step, writer, config),
                validation,
            ],
        )
    finally:
        writer.close()
    return validation.saved_step


def validation_batches(config: RunConfig, tokenizer: Tokenizer, most: int = 8) -> list[dict]:
    """A few batches of the validation split, drawn as in training but not augmented; none without it."""
    held_out = num_images(config, "valid")
    if not held_out:
        return []
    plain = AugmentConfig(
        flip=0.0,
        brightness=0.0,
        contrast=0.0,
        rotation_degrees=0.0,
        translation=0.0,
        scale=(1.0, 1.0),
        crop=False,
    )
    per_epoch = max(1, held_out // config.train.batch_size)
    batches = training_batches(
        dataclasses.replace(config, augment=plain), tokenizer, split="valid", steps_per_epoch=per_epoch
    )
    return list(itertools.islice(batches, most))


def _first_dataset(config: RunConfig) -> str:
    require(
        bool(config.data.images),
        "data.images",
        "at least one folder of records",
        config.data.images,
        "Name them with --images, or make them: python -m medclip_keras.pipeline.",
    )
    return config.data.images[0]


def _announce(config, model, strategy, start_step, total_steps, console) -> None:
    parameters = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    weights = {"image": config.model.image, "text": config.model.text}
    lines = [
        f"Run {config.name}, seed {config.seed}: {total_steps} steps of {config.train.batch_size} images and "
        f"{config.train.batch_size} sentences on {strategy.num_replicas_in_sync} device(s), "
        f"{parameters / 1e6:.1f} million weights.",
        *(
            f"The {name} encoder starts from {c.preset}."
            if c.preset
            else f"The {name} encoder starts from random weights (model.{name}.preset names pretrained ones)."
            for name, c in weights.items()
        ),
    ]
    if start_step:
        lines.append(f"Going on after step {start_step}.")
    for line in lines:
        console.print(line, highlight=False)
