"""Checks before training for errors that would otherwise end it."""

from collections.abc import Iterator

from medclip_keras.config import RunConfig
from medclip_keras.errors import require
from medclip_keras.evaluation.embedder import ImageIndex, read_index
from medclip_keras.evaluation.prompts import finding_prompts
from medclip_keras.evaluation.tasks import FEWEST_PATIENTS, check_findings, make_task, single_finding_task
from medclip_keras.records.data_sets import data_sets
from medclip_keras.records.manifest import load_concepts
from medclip_keras.records.reading import image_folders, read_records
from medclip_keras.records.schema import parse_batch

_RECORDS_AT_ONCE = 256
_FIELDS = ("record_key", "patient_id", "label_states")


def require_evaluable(config: RunConfig, split: str = "test") -> None:
    """Refuse records or settings that `evaluate` would refuse on a split for every model.

    Raises:
        ValueError: an empty split, a finding or a prompt that is missing, no image of any task.
    """
    image_folders(config.data, split)
    names, settings = load_concepts(config.data.images[0]).names, config.evaluation
    findings = check_findings(settings, names)
    if "zero_shot" in settings.tasks:
        finding_prompts(settings)
    for index in _indices(config, split):
        tasks = [make_task(index, settings, names, settings.per_class)]
        if len(findings) > 1 and "retrieval" in settings.tasks:
            tasks.append(single_finding_task(index, findings, names, settings.per_class))
        if any(len(task.rows) for task in tasks):
            return
    needed = f"folders with images in the split {split!r} to evaluate on {', '.join(settings.findings)}"
    advice = "Give other records, or other findings: --set evaluation.findings=…."
    require(False, "data.images", needed, list(config.data.images), advice)


def _indices(config: RunConfig, split: str) -> Iterator[ImageIndex]:
    """Read the index of each data set of a split."""
    for data in data_sets(config.data, split).values():
        folders = image_folders(data, split)
        features = folders[0].manifest.features
        batches = (
            parse_batch(features, serialized, _FIELDS)
            for serialized in read_records(folders, split).batch(_RECORDS_AT_ONCE)
        )
        yield read_index(batches, len(load_concepts(data.images[0])))


def require_validation_images(config: RunConfig) -> None:
    """Refuse switches of training that need validation images if the records have none.

    Raises:
        ValueError: `train.patience` or `train.evaluate_every` without validation images; `train.best_by`
            zero_shot without a class that has an AUROC.
    """
    for name in ("patience", "evaluate_every"):
        value = getattr(config.train, name)
        has_images = bool(data_sets(config.data, "valid"))
        needed = "0 for records without images in the split 'valid'"
        require(not value or has_images, f"train.{name}", needed, value)
    if config.train.evaluate_every:
        require_evaluable(config, "valid")
    if config.train.best_by == "zero_shot":
        names, settings = load_concepts(config.data.images[0]).names, config.evaluation
        tasks = (make_task(one, settings, names, settings.per_class) for one in _indices(config, "valid"))
        needed = (
            f"kl, for no class of the validation images has an AUROC: each has fewer than {FEWEST_PATIENTS} "
            "patients with it or without it"
        )
        received = f"zero_shot, of {', '.join(settings.findings)}"
        require(any(task.averaged_classes for task in tasks), "train.best_by", needed, received)
