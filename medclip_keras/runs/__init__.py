"""The named runs: functions whose docstrings say how to repeat them.

    python -m medclip_keras.runs         the letters of all runs
    python -m medclip_keras.runs NAME    one letter, and every field of the run with its value

`--set FIELD=VALUE` of `medclip_keras.fit` changes a field; `medclip_keras/config/sections.py` explains them.
"""

import dataclasses
import json
import os
from collections.abc import Callable

from etils import epath

from medclip_keras.config import RunConfig, from_dict
from medclip_keras.errors import near_names, refusal
from medclip_keras.runs.papers import (
    clip_resnet50,
    convirt_resnet50,
    gloria_resnet50,
    medclip_resnet50,
    medclip_resnet50_as_released,
    medclip_swin_tiny,
)
from medclip_keras.runs.phantoms import phantom_small, phantom_tiny
from medclip_keras.runs.radiographs import real_unpaired, real_unpaired_64px

RUNS: dict[str, Callable[[], RunConfig]] = {
    run.__name__: run
    for run in (
        phantom_tiny,
        phantom_small,
        real_unpaired_64px,
        real_unpaired,
        medclip_resnet50,
        medclip_swin_tiny,
        medclip_resnet50_as_released,
        clip_resnet50,
        convirt_resnet50,
        gloria_resnet50,
    )
}


def get_run(name_or_path: str) -> RunConfig:
    """A named run, with the environment variables of its presets expanded, or the run of a run.json.

    Raises:
        ValueError: neither; the sentence gives the near names.
    """
    if name_or_path in RUNS:
        run = RUNS[name_or_path]()
        text = dataclasses.replace(run.model.text, preset=os.path.expandvars(run.model.text.preset))
        return dataclasses.replace(run, model=dataclasses.replace(run.model, text=text))
    path = epath.Path(name_or_path)
    if name_or_path.endswith(".json") and path.exists():
        values = json.loads(path.read_text())
        return from_dict(values.get("config", values))
    raise refusal("--run", "a named run or a run.json", name_or_path, near_names(name_or_path, RUNS))
