"""Start a run from the weights of an earlier one: `train.start_from`."""

import keras
from etils import epath

from medclip_keras.config import RunConfig, field_values
from medclip_keras.errors import require
from medclip_keras.training.checkpoint_files import CheckpointFolder
from medclip_keras.training.model import MedCLIP
from medclip_keras.training.restore import LoadedModel, load_model
from medclip_keras.training.run_json import RUN_FILE, read_run_json

# Fields of the model that a further stage may change: neither the shapes nor the embeddings of the loaded
# weights depend on them. The vocabulary is that of the earlier run.
_MAY_CHANGE = (
    "model.text.frozen_layers", "model.text.dropout", "model.text.vocabulary", "model.text.vocabulary_size",
    "model.initial_temperature", "model.max_logit_scale",
)  # fmt: skip


def has_started(workdir: epath.PathLike) -> bool:
    """Whether the workdir holds weights of its own run, initial or trained."""
    folders = (epath.Path(workdir) / "checkpoints" / which for which in ("start", "last"))
    return any(CheckpointFolder(folder).find() for folder in folders)


def load_start(config: RunConfig) -> LoadedModel:
    """Load the best weights, else the last, of the workdir that `train.start_from` names.

    Raises:
        ValueError: no workdir of a dual encoder, or one whose towers differ from the run's.
    """
    path, field = config.train.start_from, "train.start_from"
    workdir = epath.Path(path)
    is_dual = (workdir / RUN_FILE).exists() and (workdir / "vocabulary").exists()
    require(is_dual, field, "the workdir of a trained dual encoder, with run.json and vocabulary/", path)
    earlier = read_run_json(workdir)
    there, here = field_values(earlier), field_values(config)
    names = [n for n in sorted(there) if n.startswith("model.") and n not in _MAY_CHANGE]
    found = [
        f"{n} ({there[n]} there, {here[n]} here)" for n in [*names, "data.max_tokens"] if there[n] != here[n]
    ]
    needed = f"a workdir of the same towers; it differs in {', '.join(found)}"
    require(not found, field, needed, path, f"Take its configuration: --run {workdir / RUN_FILE}.")
    return load_model(workdir, precision=config.train.precision)


def copy_weights(source: LoadedModel, model: MedCLIP) -> None:
    """Copy the weights of both towers, the learned logit scale and bias, but no seed of a dropout layer.

    The projections of regions and words stay new unless both runs have them.
    """
    both_local = source.model.local_features and model.local_features
    for name in ("image_encoder", "text_encoder"):
        towers = getattr(source.model, name), getattr(model, name)
        weights = ([w for w in tower.weights if both_local or not _is_local(w)] for tower in towers)
        for theirs, ours in zip(*weights, strict=True):
            ours.assign(theirs)
    if source.model.log_logit_scale.trainable and model.log_logit_scale.trainable:
        model.log_logit_scale.assign(source.model.log_logit_scale)
    if source.model.logit_bias is not None and model.logit_bias is not None:
        model.logit_bias.assign(source.model.logit_bias)


def _is_local(weight: keras.Variable) -> bool:
    """Whether a weight projects regions or words, which only gloria uses."""
    return weight.path.split("/")[-2] in ("region_projection", "word_projection")
