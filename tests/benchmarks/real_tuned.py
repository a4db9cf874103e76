"""The run `real_unpaired`, and supervised fine-tuning from its start, trained without a fold's patients."""

import csv
import dataclasses
import os
import pathlib
from collections.abc import Callable, Sequence

import numpy as np
import real_data
from shared import require_finished

from beam_jobs import decode_images
from medclip_keras.config import RunConfig, override
from medclip_keras.evaluation.embedder import embed_all_texts
from medclip_keras.evaluation.results import TRAINED
from medclip_keras.knowledge.states import LabelState
from medclip_keras.provenance import sha256_of
from medclip_keras.records.shards import salted_hash
from medclip_keras.runs import real_unpaired
from medclip_keras.sources import nih_chestxray14
from medclip_keras.subject import subject_of_workdir
from medclip_keras.supervised import classes_of, encoder_maker
from medclip_keras.training.classifier import train_classifier
from medclip_keras.training.restore import load_model
from medclip_keras.training.train import train

CODES = {LabelState.POSITIVE: "1", LabelState.NEGATIVE: "0"}


@dataclasses.dataclass(frozen=True)
class Fold:
    """What a training without a fold learns from."""

    number: int
    seed: int
    archives: tuple[str, ...]  # of `real_data.IMAGES`
    assignments: tuple[str, ...]  # settings of the run, as --set takes them
    keeps: Callable[[np.ndarray], np.ndarray]  # keys of patients → whether they are learned from

    def config(self, workdir: pathlib.Path) -> RunConfig:
        """The run `real_unpaired` on the fold's records, which are made unless they exist."""
        root = pathlib.Path(os.environ["MEDCLIP_DATA"])
        config = override(real_unpaired(), [f"seed={self.seed}", *self.assignments])
        side = config.data.stored_image_size
        images = [self._nih_records(root, workdir, side)]
        for name in self.archives:
            if real_data.IMAGES[name][0] != "nih_chestxray14":
                images.append(real_data.image_records(name, root, workdir, side))
        texts = (real_data.report_records(root, workdir),)
        return dataclasses.replace(
            config,
            data=dataclasses.replace(config.data, raw=(), images=tuple(images), texts=texts),
            train=dataclasses.replace(config.train, feature_cache=str(workdir / "tower_features")),
        )

    def _nih_records(self, root: pathlib.Path, workdir: pathlib.Path, side: int) -> str:
        folders = [real_data.IMAGES[n][1] for n in self.archives if n.startswith("nih")]
        rows = [row for name in folders for row in nih_chestxray14.image_rows(str(root / name))]
        keys = np.array([salted_hash(real_data.KEY_SALT, "patient", row.patient_id) for row in rows])
        seen = np.array([real_data.fold_of(key) != self.number for key in keys]) & self.keeps(keys)
        names = [n for n in real_data.NAMES if any(n in row.labels for row in rows)]
        table = workdir / "tables" / f"{self.number}-{sha256_of([folders, seen.tolist()])[:12]}.csv"
        table.parent.mkdir(exist_ok=True)
        if not table.exists():
            with table.open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(["path", "patient_id", "study_id", "split", *names])
                for row in (row for row, is_seen in zip(rows, seen, strict=True) if is_seen):
                    states = [CODES[row.labels[name]] for name in names]
                    writer.writerow([row.path, row.patient_id, row.image_id, "train", *states])
        output = str(workdir / "records" / f"{table.stem}-{side}")
        decode_images.run(
            source="csv",
            input=str(table),
            output=output,
            image_size=side,
            key_salt=real_data.KEY_SALT,
            concepts=real_data.CONCEPTS,
        )
        return output


def zero_shot_logits(config: RunConfig, workdir: pathlib.Path, texts: Sequence[str]) -> Callable:
    """Train, or go on; returns the function of stored images to the logits of the texts."""
    require_finished(train(config, workdir))
    embedder = subject_of_workdir(workdir, load_model(workdir, "last")).embedders[TRAINED]
    columns = embed_all_texts(embedder, texts)
    return lambda images: embedder.logit_scale * (embedder.embed_images(images) @ columns.T)


def supervised_logits(config: RunConfig, workdir: pathlib.Path) -> tuple[Callable, Sequence[str]]:
    """Train a head a concept and the image tower on labels alone, from the run's start.

    Returns:
        The function of stored images to the logits of concepts, and the concepts' names.
    """
    config = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, texts=()),
        train=dataclasses.replace(config.train, frozen="none"),
    )
    start = encoder_maker(config, "preset" if config.model.image.preset else "random")
    classifier, outcome = train_classifier(start, classes_of(config), config, workdir)
    require_finished(outcome)
    return classifier.score_fn(), classifier.classes.names
