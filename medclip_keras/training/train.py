"""Train a run on record folders, or resume it from its last checkpoint."""

import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from etils import epath
from rich.console import Console

from medclip_keras import signals
from medclip_keras.config import AugmentConfig, RunConfig, frozen_towers
from medclip_keras.errors import Interrupted, NotSavedError, is_of_the_system, require
from medclip_keras.files import write_whole
from medclip_keras.knowledge.concepts import ConceptTable
from medclip_keras.locks import sole_writer
from medclip_keras.preflight import require_validation_images
from medclip_keras.preprocess.text import Tokenizer, load_tokenizer
from medclip_keras.records.batches import evaluation_sentences, training_batches
from medclip_keras.records.manifest import load_concepts, read_manifest, verify
from medclip_keras.records.reading import image_folders, sentence_folders
from medclip_keras.training.callbacks import Clock, ProgressBar, ScalarLog, StopOnNaN, StopOnSignal
from medclip_keras.training.checkpoints import Checkpoints
from medclip_keras.training.concept_kernel import label_kernel
from medclip_keras.training.frozen import frozen_features
from medclip_keras.training.model import MedCLIP, build_optimizer
from medclip_keras.training.presets import check_presets, downloading, with_architectures, write_architectures
from medclip_keras.training.projector import PHANTOM, write_projector
from medclip_keras.training.replicas import (
    is_follower,
    lost_workers_named,
    make_strategy,
    own_workdir,
    shared_by_workers,
)
from medclip_keras.training.restore import LoadedModel
from medclip_keras.training.run_json import RUN_FILE, mark_diverged, require_same_run, write_run_json
from medclip_keras.training.run_log import BOARD, RunLog, last_step
from medclip_keras.training.start import copy_weights, has_started, load_start
from medclip_keras.training.validation import HeldOut, Validation, stopped_early
from medclip_keras.training.vocabulary import make_tokenizer
from medclip_keras.training.zero_shot import zero_shot_on_validation

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
_LOCK = ".training.lock"  # the commands hold ".lock"
_VOCABULARY = "vocabulary"
_CONCEPTS = f"{_VOCABULARY}/concepts.jsonl"


@dataclass(frozen=True)
class Outcome:
    """How a training run ended."""

    step: int  # steps done and saved
    total_steps: int  # steps of the whole run; more than `step` after an interruption
    stopped_early: bool = False  # by `train.patience`
    interrupted: bool = False  # by a signal, perhaps after the last step

    @property
    def finished(self) -> bool:
        """Whether training is complete: all steps are done, or it stopped early."""
        return not self.interrupted and (self.stopped_early or self.step >= self.total_steps)


@dataclass(frozen=True)
class Trainer:
    """A compiled model at the step of its last checkpoint; `prepare` makes one."""

    model: keras.Model  # a `GlobalStep` model with every weight created
    checkpoints: Checkpoints  # of the model
    num_replicas: int  # devices that share each batch
    start_step: int  # steps that earlier processes did
    total_steps: int  # steps of the whole run
    workdir: epath.Path  # receives checkpoints/, tensorboard/ and training.jsonl
    console: Console  # prints the progress

    def outcome(self, held_out: HeldOut) -> Outcome | None:
        """Return the outcome of a complete run; None if steps or a validation are left."""
        early = stopped_early(self.checkpoints, self.model.run.train.patience)
        outcome = Outcome(self.start_step, self.total_steps, stopped_early=early)
        return outcome if outcome.finished and not self._validation(held_out).is_pending else None

    def fit(
        self,
        batches: tf.data.Dataset,
        held_out: HeldOut,
        listeners: Sequence[keras.callbacks.Callback] = (),
    ) -> Outcome:
        """Train the steps that are left, with validation, checkpoints, log and the progress bar.

        Args:
            batches: endless, from `start_step` on.
            held_out: what to validate and evaluate on; may be empty.
            listeners: callbacks of the user's own.

        Raises:
            FloatingPointError: the loss is no longer finite.
            NotSavedError: the disk is full or must not be written; the last checkpoint is kept.
            Interrupted: a signal before the first step ended, or a second Ctrl-C.
        """
        steps, strategy = (self.start_step, self.total_steps), self.model.distribute_strategy
        with contextlib.ExitStack() as stack:
            validation = self._validation(held_out)
            stack.enter_context(self._said_plainly(validation))
            stop = stack.enter_context(StopOnSignal(self.start_step, strategy))
            validation.log = log = stack.enter_context(RunLog(self.workdir, self.start_step))
            validation.stop, validation.listeners = stop, listeners
            clock = Clock(*steps, self.model.run.train.batch_size)
            bar = stack.enter_context(ProgressBar(self.start_step, clock, self.console))
            own = [StopOnNaN(self.start_step), clock, stop, bar]
            own.append(ScalarLog(self.start_step, log, clock))
            stack.enter_context(mark_diverged(self.workdir))
            validation.catch_up()
            if self.start_step < self.total_steps and not validation.stopped_early:
                self.model.fit(
                    shared_by_workers(batches, strategy),
                    steps_per_epoch=self.total_steps - self.start_step,
                    epochs=1,
                    shuffle=False,  # the batches come shuffled
                    verbose=0,
                    callbacks=[*own, *listeners, validation],
                )
            early = validation.stopped_early
        return Outcome(validation.saved_step, self.total_steps, early, stop.interrupted)

    def _validation(self, held_out: HeldOut) -> Validation:
        steps = (self.start_step, self.total_steps)
        validation = Validation(steps, held_out, self.checkpoints, self.console)
        validation.set_model(self.model)
        return validation

    @contextlib.contextmanager
    def _said_plainly(self, validation: Validation) -> Iterator[None]:
        """Say how many steps are done and saved after an interruption or a failure of the disk."""

        def describe() -> Interrupted:
            return Interrupted(validation.step, self.total_steps, validation.saved_step)

        signals.STATE.describe = lambda: str(describe()) if validation.step > self.start_step else ""
        try:
            yield
        except KeyboardInterrupt:
            raise (describe() if validation.step > self.start_step else KeyboardInterrupt) from None
        except Exception as error:
            if isinstance(error, NotSavedError) or not is_of_the_system(error):
                raise
            saved = validation.saved_step
            kept = f"The checkpoint of step {saved} is kept." if saved else "No checkpoint is there yet."
            raise NotSavedError(f"log of step {validation.step}", str(self.workdir), error, kept) from error
        finally:
            signals.STATE.describe = lambda: ""


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

    def say(said: str) -> None:
        console.print(said, highlight=False, soft_wrap=True)

    with strategy.scope():
        with downloading(config.model):
            model = make_model()
        model.compile(optimizer=build_optimizer(config, total_steps, model), jit_compile=False)
        model.optimizer.build(model.trainable_variables)
        checkpoints = Checkpoints(workdir / "checkpoints", model, say=say)
        start_step = checkpoints.restore_last()
    if config.train.schedule == "plateau":  # the restored rate may be halved, or above a lowered one
        restored = float(model.optimizer.learning_rate)
        model.optimizer.learning_rate = min(restored, config.train.learning_rate)
    changed = write_run_json(config, workdir, start_step)
    if changed:
        fields = ", ".join(f"{name} {old} → {new}" for name, (old, new) in changed.items())
        rate = f"{float(model.optimizer.learning_rate):.2g}, by the {config.train.schedule} of the new values"
        say(f"Continues after step {start_step} with {fields}: the next step has the rate {rate}.")
    reached = last_step(workdir)
    if reached > start_step:
        say(
            f"The log ends at step {reached}: {reached - start_step} steps were not saved and are done again."
        )
    num_replicas = strategy.num_replicas_in_sync
    return Trainer(model, checkpoints, num_replicas, start_step, total_steps, workdir, console)


def train(
    config: RunConfig,
    workdir: epath.PathLike,
    console: Console | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> Outcome:
    """Train `config` in `workdir`, or resume the run in it.

    The workdir receives run.json, vocabulary/, checkpoints/, tensorboard/ and training.jsonl.

    Args:
        config: the run.
        workdir: of the run.
        console: prints the progress.
        callbacks: of the user's own, such as a tracker's. They hear of each step (`on_train_batch_end`, with
            loss, kl, temperature and gradient_norm) and of each validation (`on_test_end`, with loss and kl,
            and with the figures of `train.evaluate_every`). The run is one epoch; `model.stop_training` stops
            it with a checkpoint.

    Raises:
        ValueError: records that do not fit the configuration, a shard that differs from its manifest, a
            workdir of another run or that another process trains in, damaged checkpoints alone.
        FloatingPointError: the loss is no longer finite; the last good checkpoint is kept.
        NotSavedError: the disk is full or must not be written; the last checkpoint is kept.
        KeyboardInterrupt: a signal before the first step ended, or a second Ctrl-C.
    """
    console, strategy = console or Console(), make_strategy(config.train)  # before TensorFlow computes
    alone = contextlib.nullcontext() if is_follower(config.train) else sole_writer(workdir, "workdir", _LOCK)
    with lost_workers_named(strategy), alone, own_workdir(config.train, epath.Path(workdir)) as own:
        return _train(config, own, console, strategy, callbacks)


def _train(
    config: RunConfig,
    workdir: epath.Path,
    console: Console,
    strategy: tf.distribute.Strategy,
    callbacks: Sequence[keras.callbacks.Callback],
) -> Outcome:
    start = None if has_started(workdir) else config.train.start_from
    built = with_architectures(config, start or workdir)
    check_presets(built.model)
    keras.utils.set_random_seed(config.seed)
    keras.mixed_precision.set_global_policy(config.train.precision)
    table = _check_records(config, console)
    require_validation_images(config)
    kernel = label_kernel(config, table)
    require_same_run(config, workdir)
    source = load_start(config) if start else None
    tokenizer = source.tokenizer if source else _open_vocabulary(config, workdir)
    size = len(tokenizer.vocabulary)

    def make_model() -> MedCLIP:
        model = MedCLIP(built, size, kernel).build_towers()
        if source:
            copy_weights(source, model)
        return model

    trainer = prepare(make_model, config, strategy, workdir, console)
    _complete_workdir(trainer, tokenizer, table)
    _announce(trainer, config, source)
    features = frozen_features(trainer.model, config, tokenizer, workdir, console)
    draw = functools.partial(training_batches, tokenizer=tokenizer, features=features)
    held_out = _held_out(config, draw, trainer, tokenizer, table)
    if outcome := trainer.outcome(held_out):
        return outcome
    batches = draw(config, start_step=trainer.start_step, steps_per_epoch=steps_per_epoch(config))
    outcome = trainer.fit(batches, held_out, callbacks)
    if held_out.batches and outcome.finished:
        drawn = all(read_manifest(path).source == PHANTOM for path in config.data.images)
        write_projector(trainer.model, held_out.batches, table.names, workdir / BOARD, thumbnails=drawn)
    return outcome


def _held_out(
    config: RunConfig, draw: Callable, trainer: Trainer, tokenizer: Tokenizer, table: ConceptTable
) -> HeldOut:
    """Validation batches, and the zero-shot evaluation if `train.evaluate_every` is set."""
    batches = validation_batches(config, draw, num_images(config, "valid"))
    asked = config.train.evaluate_every > 0
    zero_shot = zero_shot_on_validation(trainer.model, tokenizer, table.names) if asked else None
    return HeldOut(batches, zero_shot)


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
    """Load the tokenizer of an existing run; make a new one for a new run."""
    if (workdir / RUN_FILE).exists() and (workdir / _CONCEPTS).exists():
        return load_tokenizer(workdir / _VOCABULARY)
    return make_tokenizer(config, evaluation_sentences(config, "train"))


def _complete_workdir(trainer: Trainer, tokenizer: Tokenizer, table: ConceptTable) -> None:
    """Write the vocabulary, concepts and architectures of a new run, so that its workdir loads by itself."""
    if trainer.start_step:
        return
    has_preset = trainer.model.image_encoder.architecture or trainer.model.text_encoder.architecture
    if has_preset or trainer.model.run.train.start_from:
        trainer.checkpoints.save_start()
    tokenizer.save(trainer.workdir / _VOCABULARY)
    write_architectures(trainer.model, trainer.workdir)
    write_whole(trainer.workdir / _CONCEPTS, table.to_jsonl())  # last


def count_steps(config: RunConfig) -> int:
    """Count the steps of the whole run: `train.steps`, or `train.epochs` times `steps_per_epoch`."""
    return config.train.steps or max(1, round(config.train.epochs * steps_per_epoch(config)))


def steps_per_epoch(config: RunConfig) -> int:
    """Count the steps that draw as many images as the training split holds.

    Images that pairs or shares leave out count too: the kept ones are drawn more often.
    """
    return max(1, num_images(config, "train") // config.train.batch_size)


def num_images(config: RunConfig, split: str) -> int:
    """Sum the images of a split over the manifests."""
    return sum(read_manifest(d).splits[split]["num_records"] for d in config.data.images)


def validation_batches(
    config: RunConfig, draw: Callable[..., tf.data.Dataset], num_validation_images: int
) -> list[dict]:
    """Draw up to 8 batches of the validation split, without augmentation; [] without images."""
    if not num_validation_images:
        return []
    plain = dataclasses.replace(config, augment=PLAIN)
    per_epoch = max(1, num_validation_images // config.train.batch_size)
    batches = draw(plain, split="valid", steps_per_epoch=per_epoch)
    return list(itertools.islice(batches, _VALIDATION_BATCHES))


def _announce(trainer: Trainer, config: RunConfig, source: LoadedModel | None) -> None:
    model = trainer.model
    parameters = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    batch = f"{config.train.batch_size} images and {config.train.batch_size} sentences"
    lines = [
        f"Run {config.name}, seed {config.seed}: {trainer.total_steps} steps of {batch} on "
        f"{trainer.num_replicas} device(s), {parameters / 1e6:.1f} million weights."
    ]
    if source:
        which = f"{source.checkpoint} weights, of step {source.step}"
        lines.append(f"Both encoders start from {config.train.start_from}: its {which}.")
    for name, tower in (("image", config.model.image), ("text", config.model.text)):
        if config.train.start_from:
            continue
        start = tower.preset or f"random weights (model.{name}.preset names pretrained ones)"
        lines.append(f"The {name} encoder starts from {start}.")
    for name in frozen_towers(config.train):
        lines.append(
            f"The backbone of the {name} encoder is frozen: its projection learns from its features."
        )
    if trainer.start_step:
        lines.append(f"Resuming after step {trainer.start_step}.")
    for line in lines:
        trainer.console.print(line, highlight=False, soft_wrap=True)
