"""Stages of a pipeline: each records its inputs in a file, and is skipped while they do not change."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from etils import epath
from rich.console import Console

from medclip_keras.files import write_whole
from medclip_keras.provenance import versions

_MODEL = (
    "run.json",
    "checkpoints",
    "tensorboard",
    "training.jsonl",
    "vocabulary",
    "architecture",
    "evaluation",
)


@dataclass(frozen=True)
class Stage:
    """One step of the pipeline.

    Attributes:
        name: unique within a run.
        inputs: everything that decides the result, as JSON types with fingerprints of files.
        output: the file or folder that the stage leaves last.
        work: runs the stage; returns counts for the stage's file.
        is_whole: whether the output is still what the stage left, if that can be told quickly.
    """

    name: str
    inputs: dict
    output: epath.Path
    work: Callable[[], dict]
    is_whole: Callable[[], bool] = lambda: True


class Stages:
    """Run the stages of a workdir that are not up to date; keep a file `stages/NAME.json` for each.

    Attributes:
        ran: names of the stages that were run.
    """

    def __init__(self, workdir: epath.Path, console: Console):
        self._folder, self._console = workdir / "stages", console
        self.ran: list[str] = []

    def is_up_to_date(self, stage: Stage) -> bool:
        """Whether a stage ran on these inputs and its output is there, and whole."""
        file = self._file(stage)
        done = file.exists() and stage.output.exists()
        return done and json.loads(file.read_text())["inputs"] == _json(stage.inputs) and stage.is_whole()

    def bring_up_to_date(self, stage: Stage) -> None:
        """Run a stage, unless it is up to date, and write its file last."""
        if self.is_up_to_date(stage):
            self._console.print(f"[dim]{stage.name}: up to date[/dim]", highlight=False)
            return
        self._console.rule(stage.name, align="left", style="dim")
        file = self._file(stage)
        file.unlink(missing_ok=True)
        started = time.monotonic()
        counts = stage.work()
        file.parent.mkdir(parents=True, exist_ok=True)
        made = {
            "inputs": stage.inputs,
            "counts": counts,
            "seconds": round(time.monotonic() - started, 1),
            "versions": versions(),
        }
        write_whole(file, json.dumps(made, indent=1, sort_keys=True) + "\n")
        self.ran.append(stage.name)

    def _file(self, stage: Stage) -> epath.Path:
        return self._folder / f"{stage.name}.json"


def _json(values: dict[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps(values))


def move_aside(workdir: epath.Path) -> epath.Path:
    """Move the earlier run's model to the next free folder of workdir/earlier/."""
    earlier = workdir / "earlier"
    number = 1 + max((int(p.name) for p in earlier.iterdir()), default=0) if earlier.exists() else 1
    kept = earlier / str(number)
    kept.mkdir(parents=True)
    for name in _MODEL:
        if (workdir / name).exists():
            (workdir / name).rename(kept / name)
    return kept
