"""The default run over seeds: time, memory, zero-shot and retrieval, beside pixels and beside blind labels.

Usage: python tests/benchmarks/phantom.py [--seeds 0 1 2] [--without_negation] [--workdir DIR]

For each seed the whole of `python -m medclip_keras.fit` runs in a process of its own. Beside it stands what
the pixels alone give: 60 principal components and logistic regression on the training images with exactly one
of the five findings. With `--without_negation`, the seeds are run once more with reports labelled by an
extractor that takes every mention for positive.
"""

import json
import pathlib
import resource
import subprocess
import sys
import time
from unittest import mock

from shared import fit_components, new_parser, pixels_and_states

from medclip_keras.evaluation.tasks import only_finding
from medclip_keras.pipeline import Pipeline
from medclip_keras.training.restore import load_model
from medclip_keras.training.run_json import read_run_json


def run_blind(workdir: str, seed: str) -> None:
    """The default run on labels for which every mention is positive; in a process of its own."""
    import dataclasses

    from medclip_keras.config import override
    from medclip_keras.knowledge.labeller import ReportLabeller
    from medclip_keras.runs import phantom_tiny

    sees = ReportLabeller.states

    def blind(self, mentions):
        return sees(self, [dataclasses.replace(mention, assertion="positive") for mention in mentions])

    with mock.patch.object(ReportLabeller, "states", blind):
        Pipeline(override(phantom_tiny(), [f"seed={seed}"]), workdir).run(until="evaluate")


def figures_of(workdir: pathlib.Path) -> dict:
    (data,) = json.loads((workdir / "evaluation" / "metrics.json").read_text())["data"].values()
    trained, untrained = data["zero_shot"]["trained"], data["zero_shot"]["untrained"]
    return {
        "accuracy, ensemble": trained["ensemble"]["accuracy"]["value"],
        "accuracy, single": trained["single"]["accuracy"]["value"],
        "accuracy, untrained": untrained["ensemble"]["accuracy"]["value"],
        "precision@10": data["retrieval"]["trained"]["precision_at_10"]["value"],
        "test images": data["zero_shot"]["num_images"],
    }


def pixels_accuracy(workdir: pathlib.Path) -> float:
    """Principal components of the pixels and logistic regression, on images with one of the five findings."""
    config, names = read_run_json(workdir), list(load_model(workdir).table.names)
    columns = [names.index(name) for name in config.evaluation.findings]

    def of_split(split):
        pixels, states = pixels_and_states(config, split)
        classes = only_finding(states, columns)
        return pixels[classes >= 0], classes[classes >= 0]

    return float(fit_components(*of_split("train")).score(*of_split("test")))


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--without_negation", action="store_true")
    parser.add_argument("--workdir", type=pathlib.Path, default="workdir/benchmark_phantom")
    parser.add_argument("--blind", nargs=2, help="for this script itself: folder and seed")
    arguments = parser.parse_args()
    if arguments.blind:
        run_blind(*arguments.blind)
        return
    for seed in arguments.seeds:
        workdir = arguments.workdir / f"seed{seed}"
        row = {"seed": seed}
        if not (workdir / "export").exists():
            began = time.monotonic()
            command = [sys.executable, "-m", "medclip_keras.fit", "--workdir", str(workdir)]
            subprocess.run([*command, "--set", f"seed={seed}"], check=True)
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
            row |= {"seconds": round(time.monotonic() - began), "peak GiB": round(peak, 2)}
        row |= figures_of(workdir) | {"accuracy, pixels": pixels_accuracy(workdir)}
        if arguments.without_negation:
            blind = arguments.workdir / f"blind{seed}"
            subprocess.run([sys.executable, __file__, "--blind", str(blind), str(seed)], check=True)
            row["accuracy, labels without negation"] = figures_of(blind)["accuracy, ensemble"]
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
