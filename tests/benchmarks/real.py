"""Ablations on real radiographs: what makes zero-shot classification work, beside supervised learning.

Usage: MEDCLIP_DATA=FOLDER python tests/benchmarks/real.py [--workdir DIR] [--cells NAME …] [--seeds N]
    [--run_seeds N] [--folds N …] [--list] [--budget SECONDS]

Patients of NIH ChestX-ray14 in two folders, 649 images of 256 px and 723 of 64 px, fall into five folds; a
patient of both is in one fold. For each fold a model learns from the other four of both folders, from the
further archives of its cell (Kermany's children, Hannover's COVID-19 patients), and from the sentences of
Open-i's reports, which belong to none of these images. It is tested on the fold.

Runs: `real_unpaired` itself, with its own settings and others, trained without the fold (`real_tuned.py`).
Supervised: the same image tower from the same start, with cross-entropy on the labels, the same augmentation,
optimizer, rates and number of steps. Frozen cells, which are cheap, compare labels, targets and data: two
linear heads on standardised features of frozen towers, EfficientNet-lite0 (mean and maximum over space at 224
px) and MiniLM (mean over tokens), trained by the product's objective, labels, masks and balance. Scores are
zero-shot: ten prompts a finding less the normal ones; the last weights are taken. Bars: logistic regression
on the features of the frozen tower, and on 60 principal components of the pixels.

Nothing is chosen but on these folds: not on the images that were kept back. An AUROC counts pairs within a
fold only. Intervals and differences are of a bootstrap over patients, the same resamples for all cells,
seeds averaged. Each training is saved, so a killed benchmark goes on where it stopped; `--folds` trains some
alone, for processes side by side once the records are made. Scores of runs and of supervised learning,
which take hours, are kept in `real_scores` beside this file; remove what a change of the training makes
stale. `real_runs.py` trains the run `real_unpaired_64px` from random weights.
"""

import argparse
import dataclasses
import itertools
import json
import os
import pathlib
import shutil
import time

import numpy as np
import real_data
from real_data import CLASSES, CONCEPTS, NAMES
from real_metrics import Folds, interval
from shared import new_parser

from medclip_keras.config import IMAGE_STATISTICS, DataConfig, EvaluationConfig, override, to_dict
from medclip_keras.evaluation.class_scores import class_scores
from medclip_keras.evaluation.prompts import ABNORMAL, ClassPrompts, finding_prompts
from medclip_keras.evaluation.supervised import finding_scores
from medclip_keras.knowledge.concepts import NO_FINDING, load_table
from medclip_keras.knowledge.states import LabelState
from medclip_keras.provenance import sha256_of
from medclip_keras.records.shards import salted_hash
from medclip_keras.runs import real_unpaired

KEPT = pathlib.Path(__file__).parent / "real_scores"
TRAINED = ("run", "supervised")  # methods that train towers
KEPT_CONTRASTS = ("normal", "sentences")  # of a run: those of its cells
NIH = ("nih_256px", "nih_64px")
CONTRASTS = ("normal", "negated", "none")
REFERENCE = "both frozen"


@dataclasses.dataclass(frozen=True)
class Setting:
    """One way to learn."""

    method: str = "heads"  # "heads", "run", "supervised", "probe" or "components"
    image: str = "efficientnet_lite0"  # or "random"
    text: str = "minilm"  # or "random"
    temperature: float = 0.2
    known: str = "labelled"
    coding: str = "multi_hot"
    closure: bool = False
    uncertain: str = "positive"
    balance: bool = True
    archives: tuple[str, ...] = (*NIH, "kermany")
    image_share: float = 1.0  # of the NIH patients
    report_share: float = 1.0
    steps: int = 600
    decay: float = 0.001
    dropout: float = 0.0
    strength: float = 0.001  # inverse of the probe's penalty
    own: bool = False  # a probe learns from the tested folder alone
    assignments: tuple[str, ...] = ()  # settings of the run `real_unpaired`: "run" and "supervised" alone


@dataclasses.dataclass(frozen=True)
class Cell:
    """A row of the table: a setting, and the contrast of its zero-shot scores, or "sentences"."""

    setting: Setting
    contrast: str = "normal"


def _cells() -> dict[str, Cell]:
    base = Setting()
    probe = Setting("probe", archives=NIH)

    def but(**changes) -> Cell:
        return Cell(dataclasses.replace(base, **changes))

    def probed(**changes) -> Cell:
        return Cell(dataclasses.replace(probe, **changes))

    def run(*assignments: str, archives=base.archives) -> Cell:
        return Cell(Setting("run", archives=archives, assignments=assignments))

    def supervised(*assignments: str) -> Cell:
        return Cell(Setting("supervised", archives=NIH, assignments=assignments))

    shares = (0.03, 0.1, 0.3)
    return {
        "the run": run(),
        "the run, frozen": run("train.frozen=both"),
        "the run, lower stages frozen": run("model.image.frozen_stages=3"),
        "the run, random image tower": run("model.image.preset=", "model.image.backbone=efficientnet_lite0"),
        "the run without Kermany": run(archives=NIH),
        "supervised, the run's start": supervised(),
        "supervised, random start": supervised(
            "model.image.preset=", "model.image.backbone=efficientnet_lite0"
        ),
        REFERENCE: Cell(base),
        "image ImageNet, text random": but(text="random"),
        "image random, text BERT": but(image="random"),
        "both random, frozen": but(image="random", text="random"),
        "T = 1": but(temperature=1.0),
        "T = 0.5": but(temperature=0.5),
        "T = 0.1": but(temperature=0.1),
        "known = all": but(known="all"),
        "known = all, T = 1": but(known="all", temperature=1.0),
        "signed": but(coding="signed"),
        "signed, known = all": but(coding="signed", known="all"),
        "closure": but(closure=True),
        "closure, known = all": but(closure=True, known="all"),
        "uncertain ignored": but(uncertain="ignored"),
        "negated prompts": Cell(base, "negated"),
        "no contrast": Cell(base, "none"),
        "sentences as prompts": Cell(base, "sentences"),
        "the run, sentences as prompts": dataclasses.replace(run(), contrast="sentences"),
        "signed, negated prompts": Cell(dataclasses.replace(base, coding="signed"), "negated"),
        "no balance": but(balance=False),
        "without Kermany": but(archives=NIH),
        "with COVID": but(archives=(*NIH, "kermany", "covid")),
        "feature dropout 0.5": but(dropout=0.5),
        "feature dropout 0.8": but(dropout=0.8),
        "weight decay 0.1": but(decay=0.1),
        "200 steps": but(steps=200),
        "2,000 steps": but(steps=2000),
        **{f"images {share:g}": but(image_share=share) for share in shares},
        **{f"reports {share:g}": but(report_share=share) for share in shares},
        "probe": probed(),
        "probe, its own folder": probed(own=True),
        "probe of random features": probed(image="random"),
        **{f"probe, images {share:g}": probed(image_share=share) for share in shares},
        "principal components": Cell(Setting("components", archives=NIH, own=True, strength=1.0)),
    }


CELLS = _cells()


def _under(names: np.ndarray, what: str, seed: int, share: float) -> np.ndarray:
    """Whether each name's hash is under a share: a smaller share is part of a larger one."""
    if share == 1:
        return np.ones(len(names), bool)
    unique, index = np.unique(names, return_inverse=True)
    hashes = [int(salted_hash("real_benchmark", f"{what} {seed}", name), 16) for name in unique]
    return (np.array(hashes, np.float64) < share * 16.0**16)[index]


class Benchmark:
    """The data, and the scores of each setting, fold and seed."""

    def __init__(self, workdir: pathlib.Path):
        self.workdir, self.table = workdir, load_table(CONCEPTS)
        data = pathlib.Path(os.environ["MEDCLIP_DATA"])
        self.images = {name: real_data.read_images(name, data, workdir) for name in real_data.IMAGES}
        self.sentences = real_data.read_sentences(data, workdir)
        every = tuple(dict.fromkeys(name for of in CLASSES.values() for name in of))
        settings = EvaluationConfig(task="multi_label", findings=every, contrast="negated", num_prompts=10)
        self.prompts = ClassPrompts.of(finding_prompts(settings))
        self.sentences_as_prompts = self._sentences_as_prompts()
        self.folds = {
            name: Folds(real_data.labels_of(self.images[name], of), *self._folds_of(name))
            for name, of in CLASSES.items()
        }

    def _sentences_as_prompts(self) -> ClassPrompts:
        """At most fifty sentences of the reports for each class: those that state it and nothing else."""
        positive = self.sentences.states == LabelState.POSITIVE
        order = np.random.default_rng(0).permutation(len(positive))
        order = order[positive[order].sum(axis=1) == 1]
        return ClassPrompts.of(
            {
                name: [self.sentences.texts[k] for k in order if positive[k, NAMES.index(name)]][:50]
                for name in self.prompts.classes
                if name in NAMES
            }
        )

    def _folds_of(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        return self.images[name].folds, self.images[name].patients

    def scores(self, setting: Setting, fold: int, seed: int) -> dict[str, np.ndarray]:
        """Scores of a fold's images, by "folder contrast", and the "seconds" that they took; saved."""
        made_from = self._made_from(setting)
        home = KEPT if setting.method in TRAINED else self.workdir / "cells"
        folder = home / sha256_of(made_from)[:16]
        file = folder / f"{fold}-{seed}.npz"
        if not file.exists():
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "setting.json").write_text(json.dumps(made_from, indent=1) + "\n")
            began = time.monotonic()
            found = getattr(self, f"_{setting.method}")(setting, fold, seed)
            unfinished = folder / f"{fold}-{seed}.unfinished.npz"
            np.savez_compressed(unfinished, seconds=time.monotonic() - began, **found)
            unfinished.replace(file)
        with np.load(file) as saved:
            return dict(saved)

    def _made_from(self, setting: Setting) -> dict:
        found = dataclasses.asdict(setting)
        if setting.method in ("heads", "run"):
            found["prompts"] = sha256_of(self._prompt_texts())
        if setting.method not in TRAINED:  # records may differ in a pixel between processors
            found["images"] = [self.images[n].fingerprint for n in setting.archives]
            found["sentences"] = self.sentences.fingerprint
        else:
            found["run"] = to_dict(override(real_unpaired(), setting.assignments))
            for name in ("validate_every", "checkpoint_every", "best_by"):  # nothing is held out of a fold
                del found["run"]["train"][name]
        return found

    def _features(self, name: str, setting: Setting) -> np.ndarray:
        return real_data.image_features(self.images[name], setting.image, self.workdir)

    def _rows(self, name: str, setting: Setting, fold: int, seed: int) -> np.ndarray:
        """Whether an image of an archive is learned from."""
        images = self.images[name]
        if name not in NIH:
            return np.ones(len(images.patients), bool)
        return (images.folds != fold) & _under(images.patients, "patient", seed, setting.image_share)

    def _heads(self, setting: Setting, fold: int, seed: int) -> dict[str, np.ndarray]:
        from real_heads import Recipe, Side, train_heads

        rows = {name: self._rows(name, setting, fold, seed) for name in setting.archives}
        features = np.concatenate([self._features(name, setting)[kept] for name, kept in rows.items()])
        states = np.concatenate([self.images[name].states[kept] for name, kept in rows.items()])
        images = Side(features, states)
        said = _under(self.sentences.reports, "report", seed, setting.report_share)
        spoken = self._text_features(self.sentences.texts, setting)
        texts = Side(spoken[said], self.sentences.states[said])
        prompts = Side(self._text_features(self._prompt_texts(), setting), texts.states[:0])
        data = DataConfig(
            known_concepts=setting.known,
            coding=setting.coding,
            closure=setting.closure,
            uncertain=setting.uncertain,
            balance=setting.balance,
        )
        heads = train_heads(
            images.standardised(images),
            texts.standardised(texts),
            data,
            self.table,
            Recipe(setting.temperature, setting.steps, setting.decay, setting.dropout, seed),
        )
        columns = heads.embed_texts(prompts.standardised(texts).features).numpy()
        logits = {}
        for name in CLASSES:
            at = self.images[name].folds == fold
            held = Side(self._features(name, setting)[at], self.images[name].states[at])
            logits[name] = heads.embed_images(held.standardised(images).features).numpy() @ columns.T
        return self._zero_shot(logits)

    def _prompt_texts(self) -> tuple[str, ...]:
        return (*self.prompts.texts, *self.sentences_as_prompts.texts)

    def _zero_shot(self, logits: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Scores, by "folder contrast", of the logits of `_prompt_texts`."""
        found, number = {}, len(self.prompts.texts)
        for name, classes in CLASSES.items():
            for contrast in CONTRASTS:
                options = {"contrast": contrast != "none", "negated": contrast == "negated"}
                of_prompts = logits[name][:, :number]
                scores = class_scores(of_prompts, self.prompts, classes, "ensemble", **options)
                found[f"{name} {contrast}"] = scores
            by_sentences = logits[name][:, number:], self.sentences_as_prompts
            found[f"{name} sentences"] = class_scores(*by_sentences, classes, "ensemble")
        return found

    def _run(self, setting: Setting, fold: int, seed: int) -> dict[str, np.ndarray]:
        from real_tuned import zero_shot_logits

        config, workdir = self._training(setting, fold, seed)
        logits = zero_shot_logits(config, workdir, self._prompt_texts())
        found = {name: logits(self._stored(name, fold, config)) for name in CLASSES}
        shutil.rmtree(workdir)
        scores = self._zero_shot(found)
        return {n: of.astype(np.float32) for n, of in scores.items() if n.split()[1] in KEPT_CONTRASTS}

    def _supervised(self, setting: Setting, fold: int, seed: int) -> dict[str, np.ndarray]:
        from real_tuned import supervised_logits

        config, workdir = self._training(setting, fold, seed)
        logits, names = supervised_logits(config, workdir)
        found = {}
        for name, classes in CLASSES.items():
            of_fold = logits(self._stored(name, fold, config))
            found[f"{name} normal"] = finding_scores(of_fold, names, classes)
        shutil.rmtree(workdir)
        return found

    def _training(self, setting: Setting, fold: int, seed: int):
        """The configuration and the workdir of a training without a fold."""
        from real_tuned import Fold

        def keeps(patients):
            return _under(patients, "patient", seed, setting.image_share)

        of = Fold(fold, seed, setting.archives, setting.assignments, keeps)
        name = f"{sha256_of(dataclasses.asdict(setting))[:16]}-{fold}-{seed}"
        return of.config(self.workdir), self.workdir / "runs" / name

    def _stored(self, name: str, fold: int, config) -> np.ndarray:
        """A fold's images as the run stores them."""
        data = pathlib.Path(os.environ["MEDCLIP_DATA"])
        images = real_data.read_images(name, data, self.workdir, config.data.stored_image_size)
        return images.pixels[images.folds == fold]

    def _text_features(self, texts, setting: Setting) -> np.ndarray:
        return real_data.text_features(texts, setting.text, self.workdir)

    def _probe(self, setting: Setting, fold: int, seed: int) -> dict[str, np.ndarray]:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        def fit(features, labels):
            regression = LogisticRegression(C=setting.strength, max_iter=2000)
            return make_pipeline(StandardScaler(), regression).fit(features, labels)

        return self._classified(setting, fold, seed, self._features, fit)

    def _components(self, setting: Setting, fold: int, seed: int) -> dict[str, np.ndarray]:
        from shared import fit_components

        def pixels(name, setting):
            pixels = self.images[name].pixels[..., 0]
            side = pixels.shape[1] // 4
            images = pixels.reshape(-1, side, 4, side, 4).mean(axis=(2, 4))
            (mean,), (deviation,) = IMAGE_STATISTICS["medclip"]
            return ((images / 255 - mean) / deviation).reshape(len(images), -1).astype(np.float32)

        return self._classified(setting, fold, seed, pixels, fit_components)

    def _classified(self, setting: Setting, fold: int, seed: int, features, fit) -> dict[str, np.ndarray]:
        found = {}
        for tested, classes in CLASSES.items():
            archives = (tested,) if setting.own else setting.archives
            rows = {name: self._rows(name, setting, fold, seed) for name in archives}
            seen = np.concatenate([features(name, setting)[kept] for name, kept in rows.items()])
            states = np.concatenate([self.images[name].states[kept] for name, kept in rows.items()])
            unseen = features(tested, setting)[self.images[tested].folds == fold]
            needed = [NO_FINDING, *(name for name in classes if name != ABNORMAL)]
            columns = []
            for name in needed:
                positive = states[:, NAMES.index(name)] == LabelState.POSITIVE
                learns = 0 < positive.sum() < len(positive)
                columns.append(
                    fit(seen, positive).decision_function(unseen) if learns else np.zeros(len(unseen))
                )
            scores = finding_scores(np.stack(columns, axis=1), needed, classes)
            found[f"{tested} normal"] = scores
        return found

    def measure(self, cell: Cell, num_seeds: int, resamples: int) -> dict:
        """By folder, draws of the AUROC by class and macro; and the seconds of a seed's five trainings."""
        parts = [
            [self.scores(cell.setting, fold, seed) for fold in range(real_data.NUM_FOLDS)]
            for seed in range(num_seeds)
        ]
        found = {"seconds": float(np.mean([sum(part["seconds"] for part in of) for of in parts]))}
        for name, folds in self.folds.items():
            scores = []
            for of_seed in parts:
                joined = np.zeros(folds.labels.shape)
                for fold, part in enumerate(of_seed):
                    joined[folds.folds == fold] = part[f"{name} {cell.contrast}"]
                scores.append(joined)
            found[name] = folds.measure(scores, resamples)
        return found


def summarise(measured: dict[str, dict], num_seeds: dict[str, int]) -> dict:
    """Cell → seeds, seconds, and by folder the AUROCs and the macro mean's difference from the reference."""
    table = {}
    for cell, of in measured.items():
        table[cell] = {"seeds": num_seeds[cell], "seconds": round(of["seconds"], 1)}
        for name, classes in CLASSES.items():
            values = {label: interval(of[name][:, k]) for k, label in enumerate((*classes, "macro"))}
            if REFERENCE in measured and cell != REFERENCE:
                values["less reference"] = interval(of[name][:, -1] - measured[REFERENCE][name][:, -1])
            table[cell][name] = values
    return table


def _figure(estimate, signed: bool = False) -> str:
    value, low, high = (f"{x:+.3f}" if signed else f"{x:.3f}".replace("0.", ".") for x in estimate)
    return f"{value} [{low}, {high}]".replace("0.", ".")


def markdown(table: dict) -> str:
    """The table of a README."""
    header = "| cell | 256 px | less reference | 64 px | less reference | seeds | s |"
    lines = [header, "|---|---|---|---|---|---|---|"]
    for cell, of in table.items():
        cells = [cell]
        for name in CLASSES:
            cells.append(_figure(of[name]["macro"]))
            difference = of[name].get("less reference")
            cells.append(_figure(difference, signed=True) if difference else "")
        cells += [str(of["seeds"]), f"{of['seconds']:.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _seeds_of(setting: Setting, arguments: argparse.Namespace) -> int:
    """Seeds of a cell; the bars have no chance in them."""
    if setting.method in TRAINED:
        return min(arguments.run_seeds, arguments.seeds)
    return arguments.seeds if setting.method == "heads" or setting.image_share < 1 else 1


def main() -> None:
    """Measure the cells, seed by seed, and write real.json and real.md."""
    parser = new_parser(__doc__)
    parser.add_argument("--workdir", default="workdir/benchmark_real", type=pathlib.Path)
    parser.add_argument("--cells", nargs="+", default=list(CELLS), choices=list(CELLS), metavar="NAME")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--run_seeds", type=int, default=1, help="of the cells that train towers")
    parser.add_argument("--run", type=pathlib.Path)
    parser.add_argument(
        "--folds", nargs="+", type=int, help="train on these alone, for processes side by side"
    )
    parser.add_argument("--resamples", type=int, default=500)
    parser.add_argument(
        "--budget", type=float, default=float("inf"), help="seconds after which no cell starts"
    )
    parser.add_argument("--list", action="store_true", help="print the names of the cells")
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join(CELLS))
        return
    began = time.monotonic()
    arguments.workdir.mkdir(parents=True, exist_ok=True)
    benchmark, cells = Benchmark(arguments.workdir), arguments.cells
    if arguments.folds:
        for seed, name, fold in itertools.product(range(arguments.seeds), cells, arguments.folds):
            if seed >= _seeds_of(CELLS[name].setting, arguments):
                continue
            taken = benchmark.scores(CELLS[name].setting, fold, seed)["seconds"]
            print(f"{name}, fold {fold}, seed {seed}: {taken:.0f} s", flush=True)
        return
    measured, num_seeds = {}, {}
    for seeds in range(1, arguments.seeds + 1):  # all cells once before any twice
        for name in cells:
            if time.monotonic() - began > arguments.budget:
                break
            if seeds > _seeds_of(CELLS[name].setting, arguments):
                continue
            resamples = arguments.resamples
            measured[name], num_seeds[name] = benchmark.measure(CELLS[name], seeds, resamples), seeds
            macros = (f"{measured[name][folder][0, -1]:.3f}" for folder in CLASSES)
            print(name, *macros, f"{measured[name]['seconds']:.0f} s", flush=True)
    table = summarise({name: measured[name] for name in cells if name in measured}, num_seeds)
    (arguments.workdir / "real.json").write_text(json.dumps(table, indent=1) + "\n")
    (arguments.workdir / "real.md").write_text(markdown(table))
    print(markdown(table))


if __name__ == "__main__":
    main()
