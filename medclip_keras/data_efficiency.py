"""Data efficiency: metrics of a run on shares of its training patients, next to supervised training.

    python -m medclip_keras.data_efficiency --run NAME --fractions 0.1 0.3 1 --seeds 0 1 --workdir DIR

For each share and seed the run is trained anew and its zero-shot classification measured on all test images;
beside it the same image tower is trained, from the same start, on that share of the labelled images. Every
training has the run's number of steps. A smaller share is part of a larger one; the test images are the same
throughout. DIR receives records/ (of a run that starts from raw files), a workdir for each training,
data_efficiency.json, report.html and figures/. The same command resumes what was interrupted.

Follows: Wang et al., EMNLP 2022, figure 1.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence

import numpy as np
from etils import epath
from rich.console import Console

from medclip_keras.command import new_parser, run_command
from medclip_keras.config import RunConfig, TrainConfig, override, to_dict
from medclip_keras.errors import Interrupted, require
from medclip_keras.evaluation.figures import bars, canvas
from medclip_keras.evaluation.report import page_of
from medclip_keras.evaluation.results import TRAINED, Json
from medclip_keras.evaluation.sections import Picture, Section, Table
from medclip_keras.evaluation.table import metric_name
from medclip_keras.files import write_whole
from medclip_keras.runs import get_run
from medclip_keras.training.run_json import read_run_json, require_same_run

RESULT_FILE, METRICS = "data_efficiency.json", "evaluation/metrics.json"
KINDS = {"zero_shot": "zero-shot", "supervised": "supervised, the same start"}


@dataclasses.dataclass(frozen=True)
class Plan:
    """Trainings: shares of the patients, and seeds."""

    fractions: tuple[float, ...]  # of the training patients, in (0, 1]
    seeds: tuple[int, ...]
    supervised: bool = True

    def __post_init__(self):
        within = bool(self.fractions) and all(0 < share <= 1 for share in self.fractions)
        require(within, "--fractions", "shares over 0 and up to 1", self.fractions)
        require(bool(self.seeds) and min(self.seeds) >= 0, "--seeds", "numbers from 0 on", self.seeds)

    def cells(self) -> list[tuple[str, float, int]]:
        """(kind, share, seed) of each training, the smallest shares first."""
        kinds = KINDS if self.supervised else ("zero_shot",)
        shares, seeds = sorted(set(self.fractions)), sorted(set(self.seeds))
        return [(kind, share, seed) for share in shares for seed in seeds for kind in kinds]


def measure_data_efficiency(
    config: RunConfig, plan: Plan, workdir: epath.PathLike, console: Console | None = None
) -> Json:
    """Run the missing trainings, write the page, and return the content of data_efficiency.json.

    A finished training whose figures were measured by other evaluation settings is only evaluated again.

    Raises:
        ValueError: records that do not fit the run, or a workdir with trainings of another run.
        Interrupted: a signal ended a training early.
    """
    console, workdir = console or Console(), epath.Path(workdir)
    data = _records(config, workdir, console)
    points = []
    for kind, share, seed in plan.cells():
        cell = workdir / f"{kind}-{share:g}-seed{seed}"
        run = dataclasses.replace(config, seed=seed, data=dataclasses.replace(data, patient_share=share))
        if kind == "zero_shot":  # a part of every plan
            _require_same(run, cell)
        if not _is_measured(run, cell):
            said = f"{KINDS[kind]}, {100 * share:g} % of the training patients, seed {seed}"
            console.print(said, highlight=False)
            _train(kind, run, cell, console)
        points.append({"kind": kind, "share": share, "seed": seed, "data": _figures(kind, cell)})
    found = {"run": config.name, "config": to_dict(config), "points": points}
    write_whole(workdir / RESULT_FILE, json.dumps(found, indent=2) + "\n")
    _write_page(found, workdir)
    console.print(f"Report: {workdir / 'report.html'}", highlight=False, soft_wrap=True)
    return found


def _require_same(run: RunConfig, cell: epath.Path) -> None:
    """Refuse a training of another run, or of another length, whose figures would be taken."""
    require_same_run(run, cell)
    if (cell / METRICS).exists():
        there, here = (_length(one.train) for one in (read_run_json(cell), run))
        form, advice = "empty or hold trainings of this very run", "Name another --workdir, or delete it."
        require(there == here, "--workdir", form, f"{cell}, of {there}", advice)


def _length(train: TrainConfig) -> str:
    return f"{train.steps} steps" if train.steps else f"{train.epochs:g} epochs"


def _is_measured(run: RunConfig, cell: epath.Path) -> bool:
    """Whether the figures of a training are there, measured by the run's evaluation settings."""
    path = cell / METRICS
    return path.exists() and json.loads(path.read_text()).get("evaluation") == to_dict(run)["evaluation"]


def _records(config: RunConfig, workdir: epath.Path, console: Console):
    """The run's records; those of a run that starts from raw files are made once."""
    if config.data.images:
        return config.data
    from medclip_keras.pipeline import Pipeline

    pipeline = Pipeline(config, workdir, console=console)
    pipeline.run(until="validate_records")
    return pipeline.trained.data


def _train(kind: str, run: RunConfig, workdir: epath.Path, console: Console) -> None:
    from medclip_keras.measure import evaluate_workdir
    from medclip_keras.supervised import Start, fit_supervised
    from medclip_keras.training.train import train

    if kind == "supervised":
        # A share of the labelled images, as `supervised` draws it; its test images are the same.
        labelled = dataclasses.replace(run, data=dataclasses.replace(run.data, patient_share=1.0))
        weights = run.train.start_from or ("preset" if run.model.image.preset else "random")
        start = Start(weights, labels_share=run.data.patient_share)
        fit_supervised(labelled, start, workdir, console)
        return
    outcome = train(run, workdir, console)
    if not outcome.finished:
        raise Interrupted(outcome.step, outcome.total_steps, outcome.step)
    evaluate_workdir(workdir, console=console)


def _figures(kind: str, workdir: epath.Path) -> Json:
    """Data set → metric → estimate of the trained model: of the prompts' ensemble, or of the classifier."""
    metrics = json.loads((workdir / METRICS).read_text())["data"]
    found: Json = {}
    for name, tasks in metrics.items():
        if kind in tasks:
            variants = tasks[kind][TRAINED]
            of_variant = variants["ensemble"] if kind == "zero_shot" else next(iter(variants.values()))
            found[name] = {k: v for k, v in of_variant.items() if k != "by_class" and isinstance(v, dict)}
    return found


def _write_page(found: Json, workdir: epath.Path) -> None:
    data_sets = {name for point in found["points"] for name in point["data"]}
    sections = {name: [_section(name, found["points"])] for name in sorted(data_sets)}
    title = f"Data efficiency of {found['run']}"
    note = "Figures on the test split; each dot is a training, lines join the means over the seeds."
    page = page_of(
        title, note, sections, workdir / "figures", {"run": found["run"], "config": found["config"]}
    )
    (workdir / "report.html").write_bytes(page.encode())


def _section(data_set: str, points: Sequence[Json]) -> Section:
    of_set = [point for point in points if data_set in point["data"]]
    figures, rows = [], []
    for metric in ("accuracy", "auroc"):
        curves: dict[str, dict[float, list[float]]] = {}
        for point in of_set:
            value = point["data"][data_set].get(metric, {}).get("value")
            if value is not None:
                by_share = curves.setdefault(KINDS[point["kind"]], {})
                by_share.setdefault(point["share"], []).append(value)
        if curves:
            with canvas.style():
                drawn = bars.shares(curves, metric_name(metric))
            caption = f"{metric_name(metric)} by share of the training patients, beside supervised training."
            figures.append(Picture(metric, caption, drawn))
        rows += [
            (
                f"{metric_name(metric)}, {kind}, {100 * share:g} %",
                f"{np.mean(values):.3f}",
                *_spread(values),
            )
            for kind, by_share in curves.items()
            for share, values in by_share.items()
        ]
    table = Table("", ("", "mean", "standard deviation", "seeds"), tuple(rows))
    sentence = "How much data the run needs: the same model, trained on shares of the patients."
    return Section("shares", "Data efficiency", sentence, (table,), tuple(figures))


def _spread(values: Sequence[float]) -> tuple[str, str]:
    """Standard deviation over the seeds, and their number."""
    return f"{np.std(values, ddof=1):.3f}" if len(values) > 1 else "–", str(len(values))


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = new_parser("medclip_keras.data_efficiency", __doc__)
    add = parser.add_argument
    add("--run", default="phantom_tiny", help="a run.json, or a named run (default %(default)s)")
    add(
        "--fractions", nargs="+", type=float, default=[0.1, 0.3, 1.0], metavar="SHARE", help="of the patients"
    )
    add("--seeds", nargs="+", type=int, default=[0, 1], metavar="N", help="a training each (default 0 1)")
    add("--images", nargs="+", default=[], metavar="DIR", help="image records (default: the run's)")
    add("--texts", nargs="+", default=[], metavar="DIR", help="report records (default: the run's)")
    add("--no_supervised", action="store_true", help="leave supervised training out")
    add("--workdir", required=True, help="receives records, trainings and the page")
    add("--set", action="extend", nargs="+", default=[], metavar="a.b=c", dest="assignments")
    options = parser.parse_args(argv)
    return run_command("medclip_keras.data_efficiency", lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    plan = Plan(tuple(options.fractions), tuple(options.seeds), not options.no_supervised)
    config = override(get_run(options.run), options.assignments)
    images, texts = tuple(options.images) or config.data.images, tuple(options.texts) or config.data.texts
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, images=images, texts=texts))
    measure_data_efficiency(config, plan, options.workdir)


if __name__ == "__main__":
    sys.exit(main())
