"""Every figure of the evaluation on real radiographs, beside principal components of the pixels.

Usage: MEDCLIP_DATA=FOLDER python tests/benchmarks/real_evaluation.py --workdir DIR [--output DIR]
    [--fine_tune] [--set evaluation.fine_tune_steps=200 …]

DIR is a run that was trained on `nih_chestxray14` and `kermany_pneumonia`, such as `real_unpaired_64px`.
Its own test patients of both are evaluated, and patients of `nih_chestxray14_256px` that are in no training:
zero-shot with both contrasts, the linear probe at 1, 10 and 100 % of the labels (five draws), trust,
subgroups, shortcuts and leaks; with --fine_tune each training of the task fine_tune too. The shortcut table
is that of the 256 px folder, in which AP views are commoner among normals.
"""

import argparse
import csv
import dataclasses
import json
import os
import pathlib

import numpy as np
from shared import fit_components, pixels_and_states
from sklearn.metrics import roc_auc_score

from beam_jobs import decode_images
from medclip_keras.evaluate import main as evaluate
from medclip_keras.evaluation.prompts import ABNORMAL
from medclip_keras.knowledge.concepts import NO_FINDING, load_table
from medclip_keras.knowledge.states import LabelState
from medclip_keras.records.manifest import read_manifest
from medclip_keras.sources import nih_chestxray14
from medclip_keras.training.run_json import read_run_json

FINDINGS = {
    "nih_64px": (ABNORMAL, "Pleural Effusion", "Cardiomegaly", "Infiltration", "Atelectasis"),
    "kermany": (ABNORMAL, "Pneumonia"),
    "nih_256px": (ABNORMAL, "Pneumonia", "Pleural Effusion", "Infiltration", "Atelectasis", "Edema"),
}
CODES = {LabelState.POSITIVE: "1", LabelState.NEGATIVE: "0", None: ""}
TASKS = ("zero_shot", "probe", "trust", "subgroups", "shortcuts", "leaks")


def records_of(run, data: pathlib.Path, output: pathlib.Path) -> dict[str, str]:
    """Name → records: the run's own of both archives, and new ones of the 256 px folder."""
    found = {}
    for path in run.data.images:
        source = read_manifest(path).source
        found["kermany" if "kermany" in source else "nih_64px"] = str(path)
    target = output / "records_256px"
    if not (target / "manifest.json").exists():
        _write_256px(run, data, output, target)
    return {name: found[name] for name in FINDINGS if name in found} | {"nih_256px": str(target)}


def _write_256px(run, data: pathlib.Path, output: pathlib.Path, target: pathlib.Path) -> None:
    """Records of the patients that the 64 px folder does not have."""
    trained_on = {row.patient_id for row in nih_chestxray14.image_rows(str(data / "nih_chestxray14"))}
    names = load_table(run.data.concepts).names
    table = output / "nih_256px.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "patient_id", "study_id", "view", "sex", "age", *names])
        for row in nih_chestxray14.image_rows(str(data / "nih_chestxray14_256px")):
            if row.patient_id not in trained_on:
                told = (row.view_position, row.sex, row.age if row.age >= 0 else "")
                states = [CODES[row.labels.get(name)] for name in names]
                writer.writerow([row.path, row.patient_id, row.image_id, *told, *states])
    decode_images.run(
        source="csv",
        input=str(table),
        output=str(target),
        image_size=run.data.stored_image_size,
        split_fractions=(0.5, 0.1, 0.4),
        key_salt="medclip_keras",  # public images
        concepts=run.data.concepts,
    )


def pixel_baseline(run, records: str, findings: tuple[str, ...]) -> dict[str, float]:
    """AUROC of 60 principal components of the training images' pixels with logistic regression."""
    run = dataclasses.replace(run, data=dataclasses.replace(run.data, images=(records,), texts=(), raw=()))
    names = load_table(run.data.concepts).names
    (seen, states), (unseen, of_test) = (pixels_and_states(run, split) for split in ("train", "test"))
    found = {}
    for name in findings:
        column = names.index(NO_FINDING if name == ABNORMAL else name)
        labels, truth = (of[:, column] == LabelState.POSITIVE for of in (states, of_test))
        labels, truth = (~labels, ~truth) if name == ABNORMAL else (labels, truth)
        if len({*truth}) == 2 and len({*labels}) == 2:
            scores = fit_components(seen, labels, run.seed).decision_function(unseen)
            found[name] = float(roc_auc_score(truth, scores))
    return found


def measure(options: argparse.Namespace, name: str, records: str, contrast: str, tasks) -> dict:
    """The metrics of one data set."""
    folder = options.output / f"{name}-{contrast}"
    arguments = ["--workdir", options.workdir, "--records", records, "--findings", ",".join(FINDINGS[name])]
    arguments += ["--tasks", ",".join(tasks), "--output", str(folder), "--set", *options.set]
    arguments += [f"evaluation.contrast={contrast}", "evaluation.probe_fractions=[0.01,0.1,1]"]
    status = evaluate(arguments)
    if status:
        raise SystemExit(status)
    (found,) = json.loads((folder / "metrics.json").read_text())["data"].values()
    return found


def _figure(estimate: dict) -> str:
    value, low, high = (np.nan if estimate[k] is None else estimate[k] for k in ("value", "low", "high"))
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def main() -> None:
    """Evaluate, and print what metrics.json of each folder says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--output", default="workdir/benchmark_real_evaluation", type=pathlib.Path)
    parser.add_argument("--fine_tune", action="store_true")
    parser.add_argument("--set", nargs="*", default=[], metavar="evaluation.A=B")
    options = parser.parse_args()
    run, data = read_run_json(options.workdir), pathlib.Path(os.environ["MEDCLIP_DATA"])
    options.output.mkdir(parents=True, exist_ok=True)
    for name, records in records_of(run, data, options.output).items():
        pixels = pixel_baseline(run, records, FINDINGS[name])
        tasks = (*TASKS, *(["fine_tune"] if options.fine_tune else []))
        found = measure(options, name, records, "normal", tasks)
        negated = measure(options, name, records, "negated", ("zero_shot",))
        print(f"\n{name}: {found['zero_shot']['num_images']} test images")
        for finding in FINDINGS[name]:
            zero, other = (
                of["zero_shot"]["trained"]["ensemble"]["by_class"][finding]["auroc"]
                for of in (found, negated)
            )
            probes = (
                found["probe"]["trained"][s]["by_class"][finding]["auroc"] for s in ("0.01", "0.1", "1")
            )
            print(
                f"  {finding}: zero-shot {_figure(zero)}, negated {_figure(other)}, probe at 1, 10, 100 %"
                f" {', '.join(map(_figure, probes))}, pixels {pixels.get(finding, np.nan):.3f}"
            )
        print("  shortcuts:", json.dumps(found.get("shortcuts", {})))
        print("  leaks:", json.dumps({k: v for k, v in found.get("leaks", {}).items() if k != "pairs"}))
        print("  fine-tuned:", json.dumps(found.get("fine_tune", {})))


if __name__ == "__main__":
    main()
