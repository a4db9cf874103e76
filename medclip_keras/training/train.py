"""Train a run on record folders, or resume it from its last checkpoint."""

import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Callable
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
from medclip_keras.training.presets import check_presets, downloading, with_architectures, write_architectures
from medclip_keras.training.projector import write_projector
from medclip_keras.training.replicas import make_strategy, own_workdir, shared_by_workers
from medclip_keras.training.run_json import RUN_FILE, mark_diverged, require_same_run, write_run_json
from medclip_keras.training.vocabulary import make_tokenizer

PLAIN = AugmentConfig(
    flip=0.0,
    brightness=0.0,
    contrast=0.0,
    rotation_degrees=0.0,
    translation=0.0,
    scale=(1.0, 1.0),
    crop=False,
)
_VALIDATION_BATCHES = 8
BOARD_RUN = "training"  # folder of the scalars; without a folder TensorBoard calls the run "."
_VOCABULARY = "vocabulary"
_CONCEPTS = f"{_VOCABULARY}/concepts.jsonl"


@dataclass(frozen=True)
class Outcome:
    """How a training run ended."""

    step: int  # steps done and saved
    total_steps: int  # steps of the whole run; more than `step` after an interruption

    @property
    def finished(self) -> bool:
        """Whether every step was done."""
        return self.step >= self.total_steps


@dataclass(frozen=True)
class Trainer:
    """A compiled model at the step of its last checkpoint; `prepare` makes one."""

    model: keras.Model  # a `GlobalStep` model with every weight created
    checkpoints: Checkpoints  # of the model
    num_replicas: int  # devices that share each batch
    start_step: int  # steps that earlier processes did
    total_steps: int  # steps of the whole run
    workdir: epath.Path  # receives checkpoints/ and tensorboard/
    console: Console  # prints the progress

    @property
    def finished(self) -> bool:
        """Whether no step is left."""
        return self.start_step >= self.total_steps

    def fit(self, batches: tf.data.Dataset, held_out: list[dict]) -> Outcome:
        """Train the steps that are left, with validation, checkpoints, TensorBoard and the progress bar.

        Args:
            batches: endless, from `start_step` on.
            held_out: validation batches; may be empty.

        Raises:
            FloatingPointError: the loss is no longer finite.
            KeyboardInterrupt: Ctrl-C before the first step ended, or a second Ctrl-C.
        """
        config, steps = self.model.run.train, (self.start_step, self.total_steps)
        with contextlib.ExitStack() as stack:
            writer = tf.summary.create_file_writer(str(self.workdir / "tensorboard" / BOARD_RUN))
            stack.callback(writer.close)
            validation = callbacks.Validation(*steps, held_out, self.checkpoints, writer)
            called = [
                callbacks.StopOnNaN(self.start_step),
                stack.enter_context(callbacks.StopOnSignal(self.start_step)),
                stack.enter_context(callbacks.ProgressBar(*steps, config.batch_size, self.console)),
                callbacks.TensorBoard(self.start_step, writer, config),
                validation,
            ]
            stack.enter_context(mark_diverged(self.workdir))
            self.model.fit(
                shared_by_workers(batches, self.model.distribute_strategy),
                steps_per_epoch=self.total_steps - self.start_step,
                epochs=1,
                shuffle=False,  # the batches come shuffled
                verbose=0,
                callbacks=called,
            )
        return Outcome(validation.saved_step, self.total_steps)


def prepare(
    make_model: Callable[[], keras.Model],
    config: RunConfig,
    strategy: tf.distribute.Strategy,
    workdir: epath.Path,
    console: Console,
) -> Trainer:
    """Create and compile a model under a strategy, restore its last checkpoint, then write run.json.

    A configuration whose model cannot be built leaves no run.json: it does not claim the workdir.

    `make_model` makes a `GlobalStep` model with every weight created.
    """
    total_steps = count_steps(config)
    with strategy.scope():
        with downloading(config.model):
            model = make_model()
        model.compile(optimizer=build_optimizer(config, total_steps), jit_compile=False)
        model.optimizer.build(model.trainable_variables)
        checkpoints = Checkpoints(workdir / "checkpoints", model)
        start_step = checkpoints.restore_last()
    if config.train.schedule == "plateau":  # the restored rate may be halved, or above a lowered one
        restored = float(model.optimizer.learning_rate)
        model.optimizer.learning_rate = min(restored, config.train.learning_rate)
    changed = write_run_json(config, workdir, start_step)
    if changed:
        fields = ", ".join(f"{name} {old} → {new}" for name, (old, new) in changed.items())
        rate = f"{float(model.optimizer.learning_rate):.2g}, by the {config.train.schedule} of the new values"
        said = f"Continues after step {start_step} with {fields}: the next step has the rate {rate}."
        console.print(said, highlight=False, soft_wrap=True)
    num_replicas = strategy.num_replicas_in_sync
    return Trainer(model, checkpoints, num_replicas, start_step, total_steps, workdir, console)


def train(config: RunConfig, workdir: epath.PathLike, console: Console | None = None) -> Outcome:
    """Train `config` in `workdir`, or resume the run in it.

    The workdir receives run.json, vocabulary/, checkpoints/ and tensorboard/.

    Raises:
        ValueError: records that do not fit the configuration, a shard that differs from its manifest, a
            workdir of another run.
        FloatingPointError: the loss is no longer finite; the last good checkpoint is kept.
        KeyboardInterrupt: Ctrl-C before the first step ended, or a second Ctrl-C.
    """
    console, strategy = console or Console(), make_strategy(config.train)  # before TensorFlow computes
    with own_workdir(config.train, epath.Path(workdir)) as own:
        return _train(config, own, console, strategy)


def _train(
    config: RunConfig, workdir: epath.Path, console: Console, strategy: tf.distribute.Strategy
) -> Outcome:
    built = with_architectures(config, workdir)
    check_presets(built.model)
    keras.utils.set_random_seed(config.seed)
    keras.mixed_precision.set_global_policy(config.train.precision)
    table = _check_records(config, console)
    kernel = label_kernel(config, table)
    require_same_run(config, workdir)
    tokenizer = _open_vocabulary(config, workdir)
    size = len(tokenizer.vocabulary)
    trainer = prepare(lambda: MedCLIP(built, size, kernel).build_towers(), config, strategy, workdir, console)
    _complete_workdir(trainer, tokenizer, table)
    _announce(trainer, config)
    if trainer.finished:
        return Outcome(trainer.start_step, trainer.total_steps)
    draw = functools.partial(training_batches, tokenizer=tokenizer)
    batches = draw(config, start_step=trainer.start_step, steps_per_epoch=steps_per_epoch(config))
    held_out = validation_batches(config, draw, num_images(config, "valid"))
    outcome = trainer.fit(batches, held_out)
    if held_out and outcome.finished:
        write_projector(trainer.model, held_out, table.names, workdir / "tensorboard" / BOARD_RUN)
    return outcome


def _check_records(config: RunConfig, console: Console) -> ConceptTable:
    """Check every shard of the records against its manifest, and that both sides have a training split."""
    require(
        bool(config.data.images),
        "data.images",
        "at least one folder of records",
        config.data.images,
        "Name them with --images, or make them: python -m medclip_keras.pipeline.",
    )
    table = load_concepts(config.data.images[0])
    for directory in (*config.data.images, *config.data.texts):
        verify(directory)
        console.print(f"{directory}: every shard equals its manifest.", highlight=False, soft_wrap=True)
    image_folders(config.data, "train")
    sentence_folders(config.data, "train")
    return table


def _open_vocabulary(config: RunConfig, workdir: epath.Path) -> Tokenizer:
    """Load the tokenizer of an existing run, or make that of a new one."""
    if (workdir / RUN_FILE).exists() and (workdir / _CONCEPTS).exists():
        return load_tokenizer(workdir / _VOCABULARY)
    return make_tokenizer(config, evaluation_sentences(config, "train"))


def _complete_workdir(trainer: Trainer, tokenizer: Tokenizer, table: ConceptTable) -> None:
    """Write what the workdir of a new run needs, beside run.json and checkpoints, to load by itself."""
    if trainer.start_step:
        return
    tokenizer.save(trainer.workdir / _VOCABULARY)
    (trainer.workdir / _CONCEPTS).write_text(table.to_jsonl())  # last
    if trainer.model.image_encoder.architecture or trainer.model.text_encoder.architecture:
        trainer.checkpoints.save_start()
        write_architectures(trainer.model, trainer.workdir)


def count_steps(config: RunConfig) -> int:
    """Count the steps of the whole run: `train.steps`, or `train.epochs` passes over the training images."""
    return config.train.steps or max(1, round(config.train.epochs * steps_per_epoch(config)))


def steps_per_epoch(config: RunConfig) -> int:
    """Count the steps that draw as many images as the training split holds."""
    return max(1, num_images(config, "train") // config.train.batch_size)


def num_images(config: RunConfig, split: str) -> int:
    """Sum the images of a split over the manifests."""
    return sum(read_manifest(d).splits[split]["num_records"] for d in config.data.images)


def validation_batches(
    config: RunConfig, draw: Callable[..., tf.data.Dataset], num_validation_images: int
) -> list[dict]:
    """Up to 8 batches of the validation split, drawn as in training but not augmented; [] for no images."""
    if not num_validation_images:
        return []
    plain = dataclasses.replace(config, augment=PLAIN)
    per_epoch = max(1, num_validation_images // config.train.batch_size)
    batches = draw(plain, split="valid", steps_per_epoch=per_epoch)
    return list(itertools.islice(batches, _VALIDATION_BATCHES))


def _announce(trainer: Trainer, config: RunConfig) -> None:
    model = trainer.model
    parameters = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    batch = f"{config.train.batch_size} images and {config.train.batch_size} sentences"
    lines = [
        f"Run {config.name}, seed {config.seed}: {trainer.total_steps} steps of {batch} on "
        f"{trainer.num_replicas} device(s), {parameters / 1e6:.1f} million weights."
    ]
    for name, tower in (("image", config.model.image), ("text", config.model.text)):
        start = tower.preset or f"random weights (model.{name}.preset names pretrained ones)"
        lines.append(f"The {name} encoder starts from {start}.")
    if trainer.start_step:
        lines.append(f"Resuming after step {trainer.start_step}.")
    for line in lines:
        trainer.console.print(line, highlight=False)
