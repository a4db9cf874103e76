"""Load the model of a workdir, trained or as it was before training."""

from dataclasses import dataclass

import keras
from etils import epath

from medclip_keras.config import RunConfig
from medclip_keras.knowledge.concepts import ConceptTable, load_table
from medclip_keras.preprocess.text import Tokenizer, load_tokenizer
from medclip_keras.training.checkpoints import Checkpoints
from medclip_keras.training.model import MedCLIP
from medclip_keras.training.presets import with_architectures
from medclip_keras.training.run_json import read_run_json


@dataclass(frozen=True)
class LoadedModel:
    """A trained model with its run, concepts and tokenizer."""

    config: RunConfig
    table: ConceptTable  # of its records
    tokenizer: Tokenizer
    model: MedCLIP
    step: int  # of the weights
    checkpoint: str = "last"  # "best" or "last", whichever the weights are from


def load_model(workdir: epath.PathLike, which: str = "best", *, precision: str = "") -> LoadedModel:
    """Load the trained model of a workdir.

    `which` is "last", or "best" by the validation KL (with `train.best_by=zero_shot` by the zero-shot AUROC).
    A run without validation (no validation split, stopped early, converted weights), or whose best weights
    are damaged, falls back to "last", with a warning in the log that names the damaged file. With `train.ema`
    both are the averaged weights. `precision` is the global policy from then on, by default the run's.

    Raises:
        ValueError: the folder holds no run or no whole checkpoint.
    """
    workdir = epath.Path(workdir)
    config = read_run_json(workdir)
    keras.mixed_precision.set_global_policy(precision or config.train.precision)
    tokenizer = load_tokenizer(workdir / "vocabulary")
    model = MedCLIP(with_architectures(config, workdir), len(tokenizer.vocabulary)).build_towers()
    checkpoints = Checkpoints(workdir / "checkpoints", model, resumable=False)
    which, step = checkpoints.restore_weights(which)
    table = load_table(str(workdir / "vocabulary" / "concepts.jsonl"))
    return LoadedModel(config, table, tokenizer, model, step, which)


def load_untrained(workdir: epath.PathLike, loaded: LoadedModel) -> MedCLIP:
    """Return the model of a workdir before its training: pretrained if the run has presets, else random."""
    workdir, size = epath.Path(workdir), len(loaded.tokenizer.vocabulary)
    keras.utils.set_random_seed(loaded.config.seed)
    model = MedCLIP(with_architectures(loaded.config, workdir), size).build_towers()
    Checkpoints(workdir / "checkpoints", model, resumable=False).restore_start()
    return model
