"""TensorBoard's view of an evaluation: its scalars, its figures, and the run's hyperparameters.

They are in the run "evaluation" of `tensorboard --logdir WORKDIR/tensorboard`, beside "training".
"""

import math
from collections.abc import Mapping

import tensorflow as tf
from etils import epath
from tensorboard.plugins.hparams import api as hparams

from medclip_keras.config import RunConfig, field_values
from medclip_keras.evaluation.comparison import named_estimates
from medclip_keras.evaluation.results import TRAINED, UNTRAINED, Json

EVALUATION = "tensorboard/evaluation"
_HYPERPARAMETERS = ("objective.", "train.", "model.", "augment.", "seed")


def write_board(workdir: epath.PathLike, config: RunConfig, metrics: Json, figures: epath.PathLike) -> None:
    """Write scalars, figures and hyperparameters of an evaluation; an earlier one's are deleted.

    Args:
        workdir: of the run.
        config: of the run.
        metrics: the content of metrics.json; its step is that of the points.
        figures: the folder of the report's figures, FOLDER/NAME.png.
    """
    target, figures = epath.Path(workdir) / EVALUATION, epath.Path(figures)
    target.rmtree(missing_ok=True)
    step = metrics.get("step", 0)
    writer = tf.summary.create_file_writer(str(target))
    with writer.as_default(step=step if isinstance(step, int) else 0):
        for name, value in _scalars(metrics).items():
            tf.summary.scalar(name, value)
        for path in sorted(figures.glob("*/*.png")):
            picture = tf.io.decode_png(path.read_bytes(), channels=3)
            tf.summary.image(f"{path.parent.name}/{path.stem}", picture[None])
        hparams.hparams(_hyperparameters(config), trial_id=config.name)
    writer.close()


def _scalars(metrics: Json) -> Mapping[str, float]:
    """DATA_SET/TASK/… → value of the trained model; of the untrained one under UNTRAINED/."""
    found = {}
    for who, prefix in ((TRAINED, ""), (UNTRAINED, "untrained/")):
        for name, estimate in named_estimates(metrics, who).items():
            if not math.isnan(estimate.value):
                found[prefix + name.replace(".", "/")] = estimate.value
    return found


def _hyperparameters(config: RunConfig) -> dict[str, bool | float | int | str]:
    """Fields of one value, by their path; lists as text."""
    values = {name: v for name, v in field_values(config).items() if name.startswith(_HYPERPARAMETERS)}
    return {name: v if isinstance(v, bool | int | float | str) else str(v) for name, v in values.items()}
