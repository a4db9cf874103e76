"""Fine-tuning of the image tower on shares of the labels, from trained, pretrained and random weights.

Each training is one of `training.classifier`, of `evaluation.fine_tune_steps` steps with the run's optimizer
and augmentation; its number of steps is chosen by the loss on validation images, and the test images are
classified once.

Follows: Zhang et al., MLHC 2022 (ConVIRT), section 5 (1, 10 and 100 % of the labels); Wang et al., EMNLP
    2022, table 2.
"""

import dataclasses
import itertools
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from etils import epath
from rich.console import Console

from medclip_keras.config import DataConfig, RunConfig, TrainConfig
from medclip_keras.errors import Interrupted
from medclip_keras.evaluation.fine_tuned import FineTuned
from medclip_keras.evaluation.metrics import mean_and_std
from medclip_keras.evaluation.results import TRAINED, ClassificationResult
from medclip_keras.evaluation.supervised import measure_classifier
from medclip_keras.records.batches import evaluation_images
from medclip_keras.records.labelled_images import count_labelled
from medclip_keras.records.manifest import load_concepts
from medclip_keras.supervised import classes_of, encoder_maker
from medclip_keras.training.classifier import train_classifier

PRETRAINED, RANDOM = "pretrained", "random"


@dataclass(frozen=True)
class _Training:
    """One training."""

    start: str  # TRAINED, PRETRAINED or RANDOM
    weights: str  # of `supervised.encoder_maker`
    share: float
    seed: int


def fine_tune(
    config: RunConfig, data: DataConfig, workdir: epath.PathLike, console: Console
) -> FineTuned | None:
    """Fine-tune on one data set's labels and classify its test images; None without labelled images.

    Args:
        config: of the trained run; `evaluation` names shares, seeds and steps.
        data: of the one data set.
        workdir: of the trained run.
        console: prints a line a training.

    Raises:
        Interrupted: a signal came.
        ValueError: an image tower that is not the run's.
    """
    config = dataclasses.replace(config, data=dataclasses.replace(data, texts=()), train=_train(config))
    if not all(count_labelled(config, classes_of(config), split) for split in ("train", "test")):
        return None
    results: dict[tuple[str, float], list[ClassificationResult]] = {}
    for training in _trainings(config, workdir):
        said = f"{training.start}, {100 * training.share:g} % of the labels, seed {training.seed}"
        console.print(f"Fine-tuning: {said}", highlight=False, soft_wrap=True)
        found = _fit(config, training)
        if found is not None:
            results.setdefault((training.start, training.share), []).append(found)
    return FineTuned(_metrics(results)) if results else None


def _train(config: RunConfig) -> TrainConfig:
    steps = config.evaluation.fine_tune_steps
    every = max(1, steps // 10)
    return dataclasses.replace(
        config.train,
        steps=steps,
        validate_every=every,
        checkpoint_every=every,
        evaluate_every=0,
        best_by="kl",
        start_from="",
        lock="none",
        frozen="none",
        patience=0,
    )


def _trainings(config: RunConfig, workdir: epath.PathLike) -> Iterator[_Training]:
    starts = {TRAINED: str(workdir)}
    starts |= {PRETRAINED: "preset"} if config.model.image.preset else {}
    starts[RANDOM] = "random"
    shares = sorted(set(config.evaluation.probe_fractions))
    for (start, weights), share in itertools.product(starts.items(), shares):
        for seed in range(config.evaluation.probe_seeds):
            yield _Training(start, weights, share, seed)


def _fit(config: RunConfig, training: _Training) -> ClassificationResult | None:
    run = dataclasses.replace(config, seed=config.seed + training.seed)
    classes = dataclasses.replace(classes_of(config, training.share), share_seed=training.seed)
    num_images = count_labelled(run, classes, "train")
    if not num_images:
        return None
    with tempfile.TemporaryDirectory() as folder:
        make = encoder_maker(config, training.weights)
        classifier, outcome = train_classifier(make, classes, run, folder, console=Console(quiet=True))
    if not outcome.finished:
        raise Interrupted(outcome.step, outcome.total_steps, 0)
    result = measure_classifier(
        classifier.score_fn(),
        classes.names,
        evaluation_images(run, "test"),
        config.evaluation,
        load_concepts(config.data.images[0]).names,
        num_training_images=num_images,
        share=training.share,
        seed=config.seed,
    )
    return result.supervised


def _metrics(results: Mapping[tuple[str, float], list[ClassificationResult]]) -> dict[str, Any]:
    first = next(iter(results.values()))[0]
    found: dict[str, Any] = {"num_images": len(first.task.rows), "baseline": first.baseline, "starts": {}}
    for (start, share), by_seed in results.items():
        variant = f"{share:g}"
        estimates = [result.estimates[variant][TRAINED].overall for result in by_seed]
        found["starts"].setdefault(start, {})[variant] = {
            "num_training_images": [r.counts["num_training_images"][variant] for r in by_seed],
            "first_seed": {metric: estimate.to_dict() for metric, estimate in estimates[0].items()},
            "seeds": {metric: mean_and_std([e[metric].value for e in estimates]) for metric in estimates[0]},
        }
    return found
