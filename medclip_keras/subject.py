"""A model to evaluate, from a workdir or a SavedModel."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from etils import epath

from medclip_keras.config import DataConfig, RunConfig
from medclip_keras.evaluation.prompts import ABNORMAL
from medclip_keras.evaluation.results import TRAINED, UNTRAINED, Json
from medclip_keras.knowledge.concepts import ConceptTable
from medclip_keras.records.manifest import read_manifest
from medclip_keras.serving.embedders import GraphEmbedder, model_embedder, saved_model_embedder
from medclip_keras.serving.signatures import EXTRA, RUN_FILE
from medclip_keras.training.model import MedCLIP
from medclip_keras.training.restore import LoadedModel, load_model, load_untrained


@dataclass(frozen=True)
class Subject:
    """A model to evaluate, from a workdir or a SavedModel."""

    config: RunConfig  # `data` names the records, `evaluation` the tasks and their options
    concepts: ConceptTable  # of the records
    embedders: dict[str, GraphEmbedder]  # "trained", for a workdir also "untrained"
    model: MedCLIP | None = None  # the trained one, if it is in this process
    origin: Json = dataclasses.field(default_factory=dict)  # the workdir or SavedModel, and the step
    seen: tuple[str, ...] = ()  # concepts that the training had positives of; of a SavedModel, all concepts
    trained_on: DataConfig | None = None

    def unseen(self, classes: Sequence[str]) -> tuple[str, ...]:
        """The classes that the training had no positive image or sentence of, as far as is known."""
        return tuple(name for name in classes if name not in (*self.seen, ABNORMAL))

    def with_config(self, section: str, **changes: Any) -> "Subject":
        """The same model with changes of a section of its configuration, as "data" or "evaluation"."""
        changed = dataclasses.replace(getattr(self.config, section), **changes)
        return dataclasses.replace(self, config=dataclasses.replace(self.config, **{section: changed}))


def subject_of_workdir(workdir: epath.PathLike, loaded: LoadedModel | None = None) -> Subject:
    """The trained model of a workdir, and the same model before its training."""
    loaded = loaded or load_model(workdir)
    models = {TRAINED: loaded.model, UNTRAINED: load_untrained(workdir, loaded)}
    embedders = {who: model_embedder(model, loaded.tokenizer) for who, model in models.items()}
    origin = {"workdir": str(workdir), "checkpoint": loaded.checkpoint, "step": loaded.step}
    seen = _seen(loaded.config, loaded.table.names)
    return Subject(
        loaded.config, loaded.table, embedders, loaded.model, origin, seen, trained_on=loaded.config.data
    )


def _seen(config: RunConfig, concept_names: Sequence[str]) -> tuple[str, ...]:
    """Concepts with a positive training image or sentence; all of them if the records are gone."""
    try:
        folders = [read_manifest(path) for path in (*config.data.images, *config.data.texts)]
    except ValueError:
        folders = []
    counts = [
        of.splits["train"].get(key, [])
        for of in folders
        for key in ("positives", "sentence_positives")
        if of.num_findings == len(concept_names) and "train" in of.splits
    ]
    if not counts:
        return tuple(concept_names)
    return tuple(n for k, n in enumerate(concept_names) if any(of[k] for of in counts if of))


def subject_of_saved_model(directory: epath.PathLike) -> Subject:
    """An exported model without records; it has no untrained counterpart."""
    embedder, config, concepts = saved_model_embedder(directory)
    exported = json.loads((epath.Path(directory) / EXTRA / RUN_FILE).read_text())
    origin = {"saved_model": str(directory), "step": exported.get("step", "unknown")}
    subject = Subject(config, concepts, {TRAINED: embedder}, origin=origin, seen=tuple(concepts.names))
    return subject.with_config("data", images=(), texts=())
