"""The run `real_unpaired_64px` from random weights, out of fold, beside two baselines on the same folds.

Usage: MEDCLIP_DATA=FOLDER python tests/benchmarks/real_runs.py [--workdir DIR] [--methods NAME …]
    [--folds N …] [--set a.b=c …]

The 723 NIH images fall into five folds by patient. For each fold, three models learn from the other four:

- semantic matching: the run `real_unpaired_64px` on these images and all Open-i reports, which belong to
  none of them; the scores are zero-shot, from two prompts a finding less the normal prompts;
- cross-entropy: the same backbone with a head a concept on its pooled features, plain multi-label
  cross-entropy on the NIH labels, the same augmentation, optimizer, rate, batch and number of steps;
- principal components: 60 of the pixels, with logistic regression.

Three further methods are semantic matching too. Two tell what the run loses to its data: it learns from seven
tenths of the training patients (its own split), and from Kermany's children as well. Another seed tells how
much is chance. The table has the standard deviation that each difference would have on 200 test images.

Nothing is chosen on these folds: the recipe is the run's, the last weights are taken, there is no validation
split. An AUROC counts pairs within a fold only, for scores of different models are not comparable.
Intervals and differences are of a bootstrap over patients, the same resamples for all methods. Each cell is
saved, so a killed benchmark goes on where it stopped. One seed on two cores: 25 minutes. `real.py` has the
ablations with frozen pretrained towers.
"""

import csv
import dataclasses
import json
import os
import pathlib
import time

import numpy as np
from real_metrics import Folds, interval
from shared import fit_components, new_parser, pixels_and_states, require_finished

from beam_jobs import decode_images, label_reports
from medclip_keras.config import RunConfig, override
from medclip_keras.evaluation import zero_shot
from medclip_keras.evaluation.embedder import embed_all_texts
from medclip_keras.evaluation.prompts import ABNORMAL, ClassPrompts, finding_prompts
from medclip_keras.evaluation.results import TRAINED
from medclip_keras.evaluation.supervised import finding_scores
from medclip_keras.knowledge.concepts import NO_FINDING, load_table
from medclip_keras.knowledge.states import LabelState
from medclip_keras.records.batches import evaluation_images
from medclip_keras.records.shards import salted_hash
from medclip_keras.runs import real_unpaired_64px
from medclip_keras.sources import nih_chestxray14
from medclip_keras.subject import subject_of_workdir
from medclip_keras.supervised import classes_of, encoder_maker
from medclip_keras.training.classifier import train_classifier
from medclip_keras.training.restore import load_model
from medclip_keras.training.train import train

NUM_FOLDS = 5


def fold_of(patient_id: str) -> int:
    return int(salted_hash("real_benchmark", "fold", patient_id), 16) % NUM_FOLDS


def write_fold_table(rows, fold: int, path: pathlib.Path, names) -> None:
    """A table for the csv source: the fold is the test split, all other patients train."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "patient_id", "study_id", "split", *names])
        codes = {LabelState.POSITIVE: "1", LabelState.NEGATIVE: "0", None: ""}
        for row in rows:
            split = "test" if fold_of(row.patient_id) == fold else "train"
            states = [codes[row.labels.get(name)] for name in names]
            writer.writerow([row.path, row.patient_id, row.image_id, split, *states])


def make_records(data: pathlib.Path, workdir: pathlib.Path, config: RunConfig) -> None:
    rows = list(nih_chestxray14.image_rows(str(data / "nih_chestxray14")))
    labelled = set().union(*(row.labels for row in rows))
    names = [name for name in load_table(config.data.concepts).names if name in labelled]
    tables = workdir / "tables"
    tables.mkdir(parents=True, exist_ok=True)
    reports = data / "openi" / "NLMCXR_reports_dev.tgz"
    label_reports.run(
        source="openi", input=str(reports), output=str(workdir / "reports"), split_fractions=(1.0, 0.0, 0.0)
    )
    for fold in range(NUM_FOLDS):
        table = tables / f"fold{fold}.csv"
        if not table.exists():
            write_fold_table(rows, fold, table, names)
        decode_images.run(
            source="csv",
            input=str(table),
            output=str(workdir / f"images-{fold}"),
            image_size=config.data.stored_image_size,
            key_salt="medclip_keras",  # public images; the keys decide their order
        )
    decode_images.run(
        source="kermany",
        input=str(data / "kermany_pneumonia"),
        output=str(workdir / "kermany"),
        image_size=config.data.stored_image_size,
        split_fractions=(1.0, 0.0, 0.0),
    )


def run_of_fold(config: RunConfig, workdir: pathlib.Path, fold: int) -> RunConfig:
    data = dataclasses.replace(
        config.data, raw=(), images=(str(workdir / f"images-{fold}"),), texts=(str(workdir / "reports"),)
    )
    return dataclasses.replace(config, data=data)


def test_fold(config: RunConfig):
    """Stored images, label states and patients of the fold that is held out."""
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, images=config.data.images[:1]))
    batches = list(evaluation_images(config, "test").as_numpy_iterator())
    return tuple(np.concatenate([b[k] for b in batches]) for k in ("images", "label_states", "patient_id"))


def semantic_matching_scores(config: RunConfig, workdir: pathlib.Path, names) -> np.ndarray:
    require_finished(train(config, workdir))
    embedder = subject_of_workdir(workdir, load_model(workdir, "last")).embedders[TRAINED]
    prompts = ClassPrompts.of(finding_prompts(config.evaluation))
    logits = embedder.logit_scale * (
        embedder.embed_images(test_fold(config)[0]) @ embed_all_texts(embedder, prompts.texts).T
    )
    return zero_shot.class_scores(logits, prompts, config.evaluation.findings, "ensemble")


def fewer_patients_scores(config: RunConfig, workdir: pathlib.Path, names) -> np.ndarray:
    data = dataclasses.replace(config.data, patient_share=0.7)
    return semantic_matching_scores(dataclasses.replace(config, data=data), workdir / "fewer", names)


def data_of_the_run_scores(config: RunConfig, workdir: pathlib.Path, names) -> np.ndarray:
    images = (*config.data.images, str(workdir.parent / "kermany"))
    data = dataclasses.replace(config.data, images=images, patient_share=0.7)
    return semantic_matching_scores(dataclasses.replace(config, data=data), workdir / "data", names)


def another_seed_scores(config: RunConfig, workdir: pathlib.Path, names) -> np.ndarray:
    another = dataclasses.replace(config, seed=config.seed + 1)
    return semantic_matching_scores(another, workdir / "another", names)


def cross_entropy_scores(config: RunConfig, workdir: pathlib.Path, names) -> np.ndarray:
    plain = dataclasses.replace(config, data=dataclasses.replace(config.data, balance=False, texts=()))
    start = encoder_maker(plain, "random")
    classifier, outcome = train_classifier(start, classes_of(plain), plain, workdir / "cross_entropy")
    require_finished(outcome)
    logits = classifier.score_fn()(test_fold(config)[0])
    return finding_scores(logits, classifier.classes.names, config.evaluation.findings)


def principal_component_scores(config: RunConfig, workdir: pathlib.Path, names) -> np.ndarray:
    (seen, states), (unseen, _) = (pixels_and_states(config, split) for split in ("train", "test"))

    def logits(name):
        labels = states[:, names.index(name)] == LabelState.POSITIVE
        return fit_components(seen, labels, config.seed).decision_function(unseen)

    findings = config.evaluation.findings
    needed = [NO_FINDING, *(name for name in findings if name != ABNORMAL)]
    return finding_scores(np.stack([logits(name) for name in needed], axis=1), needed, findings)


METHODS = {
    "semantic matching": semantic_matching_scores,
    "cross-entropy": cross_entropy_scores,
    "principal components": principal_component_scores,
    "seven tenths of the patients": fewer_patients_scores,
    "seven tenths, with Kermany": data_of_the_run_scores,
    "another seed": another_seed_scores,
}


def summarise(cells, labels, folds, patients, config, resamples: int = 500) -> dict:
    measured = Folds(labels, folds, patients)
    draws = {m: measured.measure([scores], resamples) for m, scores in cells.items()}
    names = [*config.evaluation.findings, "macro mean"]
    table = {m: {name: interval(of[:, c]) for c, name in enumerate(names)} for m, of in draws.items()}
    first = next(iter(METHODS))
    for m in [m for m in cells if m != first and first in cells]:
        gaps = draws[first][:, -1] - draws[m][:, -1]
        of_200 = np.std(gaps[1:]) * np.sqrt(len(labels) / 200)
        table[f"{first} less {m}"] = {"macro mean": interval(gaps), "deviation on 200 images": float(of_200)}
    return table


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("--workdir", default="workdir/benchmark_real_runs", type=pathlib.Path)
    parser.add_argument("--methods", nargs="+", default=list(METHODS)[:3], choices=list(METHODS))
    parser.add_argument("--folds", nargs="+", type=int, default=list(range(NUM_FOLDS)))
    parser.add_argument("--set", action="extend", nargs="+", default=[], dest="assignments")
    arguments = parser.parse_args()
    data, workdir = pathlib.Path(os.environ["MEDCLIP_DATA"]), arguments.workdir
    config = override(real_unpaired_64px(), arguments.assignments)
    names = list(load_table(config.data.concepts).names)
    make_records(data, workdir, config)
    cells = {m: [] for m in arguments.methods}
    labels, folds, patients = [], [], []
    for fold in arguments.folds:
        run = run_of_fold(config, workdir, fold)
        _, states, ids = test_fold(run)
        positive = finding_scores((states == LabelState.POSITIVE) * 1.0, names, run.evaluation.findings)
        labels.append(np.where(np.array(run.evaluation.findings) == ABNORMAL, positive == 0, positive > 0))
        folds.append(np.full(len(states), fold))
        patients.append(ids)
        for method in cells:
            cell = workdir / "cells" / f"{fold}-{method.replace(' ', '_')}.npy"
            if not cell.exists():
                began = time.monotonic()
                cell.parent.mkdir(exist_ok=True)
                np.save(cell, METHODS[method](run, workdir / f"run-{fold}", names))
                print(f"fold {fold}, {method}: {time.monotonic() - began:.0f} s", flush=True)
            cells[method].append(np.load(cell))
    joined = {m: np.concatenate(s) for m, s in cells.items()}
    table = summarise(joined, *map(np.concatenate, (labels, folds, patients)), config)
    (workdir / "real_runs.json").write_text(json.dumps(table, indent=1) + "\n")
    for row, values in table.items():
        print(row)
        for name, value in values.items():
            point, low, high = value if isinstance(value, tuple) else (value, np.nan, np.nan)
            print(f"  {name:<24} {point:+.3f}  [{low:+.3f}, {high:+.3f}]")


if __name__ == "__main__":
    main()
