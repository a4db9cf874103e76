"""What repeated findings do to a batch: InfoNCE beside semantic matching, and what stands between them.

    python tests/benchmarks/false_negatives.py [--output DIR] [--seeds 3] [--steps 200]

A study has one of 64 findings. Its image and its text are what that finding looks like and reads like (256
numbers each) with noise, and have nothing else in common: two studies with one finding are interchangeable,
as reports of one finding nearly are. Two linear encoders are trained on 1,024 studies in batches of 64. A
finding that occurs in a batch occurs k times: k = 1 has no false negatives, k = 16 has 4 findings of 16
studies. All findings are seen equally often whatever k is; only the company in the batch changes. Held-out
studies are then classified by prompts (a finding's text without noise; chance 1/64). Means over the seeds; in
the figure their range. Two idle cores: two minutes.

    accuracy    of classifying held-out images by prompts
    alike       cosine of held-out image and text, with the same finding (of another study) less with another
    force       of the loss on studies with the same finding: the sum of its slopes by their logits over the
                sum of all slopes' sizes, last 50 steps; above 0 it drives them apart, below 0 together
"""

import argparse
import json
import pathlib

import keras
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from medclip_keras.objectives.info_nce import info_nce
from medclip_keras.objectives.mixed_matching import mixed_matching
from medclip_keras.objectives.semantic_matching import semantic_matching
from medclip_keras.objectives.sigmoid_matching import sigmoid_matching

NUM_FINDINGS, STUDIES_A_FINDING, BATCH, FEATURES, DIM = 64, 16, 64, 256, 64
REPEATS = (1, 2, 4, 8, 16)
NOISE = 2.5  # of each feature, beside a finding's features of variance 1
SCALE = 1 / 0.07
LEARNING_RATE = 3e-3
OWN = {"image_study": np.arange(BATCH), "text_study": np.arange(BATCH)}
OBJECTIVES = {
    "InfoNCE": lambda v, t, labels: info_nce(v, t, SCALE),
    "semantic matching": lambda v, t, labels: semantic_matching(v, t, SCALE, labels, labels),
    "semantic matching, T = 0.1": lambda v, t, labels: semantic_matching(
        v, t, SCALE, labels, labels, target_temperature=0.1
    ),
    "mixed matching, T = 0.1": lambda v, t, labels: mixed_matching(
        v, t, SCALE, labels, labels, **OWN, target_temperature=0.1
    ),
    "sigmoid matching": lambda v, t, labels: sigmoid_matching(
        v, t, SCALE, labels, labels, logit_bias=-SCALE / 2
    ),
}


class Archive:
    """Studies for training, as many for testing, and a prompt a finding."""

    def __init__(self, rng: np.random.Generator):
        """Draws what findings look like and read like, then studies with noise."""
        looks, self.prompts = rng.normal(size=(2, NUM_FINDINGS, FEATURES)).astype("float32")
        self.findings = np.repeat(np.arange(NUM_FINDINGS), STUDIES_A_FINDING)

        def noisy(clean):
            return clean[self.findings] + NOISE * rng.normal(size=(len(self.findings), FEATURES))

        self.train = [noisy(clean).astype("float32") for clean in (looks, self.prompts)]
        self.test = [noisy(clean).astype("float32") for clean in (looks, self.prompts)]

    def batch(self, rng: np.random.Generator, repeats: int) -> np.ndarray:
        """Indices of studies: `repeats` of each of some findings."""
        findings = rng.choice(NUM_FINDINGS, BATCH // repeats, replace=False)
        members = [rng.choice(STUDIES_A_FINDING, repeats, replace=False) for _ in findings]
        return (findings[:, None] * STUDIES_A_FINDING + np.stack(members)).reshape(-1)


def embed(features, weights):
    """Unit embeddings of a linear encoder."""
    return tf.math.l2_normalize(features @ weights, axis=1)


def make_step(objective, weights, optimizer):
    """One step of training; returns the force on pairs of studies with the same finding."""

    @tf.function
    def step(images, texts, labels):
        with tf.GradientTape(persistent=True) as tape:
            v, t = embed(images, weights[0]), embed(texts, weights[1])
            outcome = objective(v, t, labels)
        slopes = tape.gradient(outcome.loss, outcome.logits)
        optimizer.apply_gradients(zip(tape.gradient(outcome.loss, weights), weights, strict=True))
        others = labels @ tf.transpose(labels) - tf.eye(BATCH)  # same finding, another study
        return tf.reduce_sum(slopes * others) / tf.reduce_sum(tf.abs(slopes))

    return step


def evaluate(archive: Archive, weights) -> dict[str, float]:
    """Accuracy by prompts, and how much more alike studies with one finding are, on held-out studies."""
    v, t = (embed(x, w).numpy() for x, w in zip(archive.test, weights, strict=True))
    prompts = embed(archive.prompts, weights[1]).numpy()
    same = archive.findings[:, None] == archive.findings[None]
    other_study = ~np.eye(len(v), dtype=bool)
    cosines = v @ t.T
    return {
        "accuracy": float(((v @ prompts.T).argmax(1) == archive.findings).mean()),
        "alike": float(cosines[same & other_study].mean() - cosines[~same].mean()),
    }


def train(name: str, archive: Archive, repeats: int, steps: int, seed: int, made: dict) -> dict[str, float]:
    """One run from new weights; `made` keeps the compiled step of each objective."""
    rng = np.random.default_rng((seed, repeats))
    start = rng.normal(size=(2, FEATURES, DIM)).astype("float32") / np.sqrt(FEATURES)
    if name not in made:
        weights = [tf.Variable(x) for x in start]
        optimizer = keras.optimizers.Adam(LEARNING_RATE)
        optimizer.build(weights)
        made[name] = weights, optimizer, make_step(OBJECTIVES[name], weights, optimizer)
    weights, optimizer, step = made[name]
    for variable, value in zip(weights, start, strict=True):
        variable.assign(value)
    for variable in optimizer.variables:
        if variable is not optimizer.learning_rate:
            variable.assign(tf.zeros_like(variable))
    forces = []
    for _ in range(steps):
        chosen = archive.batch(rng, repeats)
        labels = np.eye(NUM_FINDINGS, dtype="float32")[archive.findings[chosen]]
        forces.append(step(archive.train[0][chosen], archive.train[1][chosen], labels))
    return {**evaluate(archive, weights), "force": float(np.mean(forces[-50:]))}


def draw(results: dict[str, np.ndarray], path: pathlib.Path) -> None:
    """A panel a measure: objectives over k, mean and range of the seeds."""
    figure = Figure(figsize=(12, 4), layout="constrained")
    titles = (
        "accuracy by prompts",
        "cosine, same finding less another",
        "force on the same finding (> 0: apart)",
    )
    for panel, (axes, title) in enumerate(zip(figure.subplots(1, 3), titles, strict=True)):
        for name, values in results.items():
            values = values[..., panel]  # (repeats, seeds)
            line = axes.plot(REPEATS, values.mean(1), marker="o", label=name)[0]
            axes.fill_between(REPEATS, values.min(1), values.max(1), color=line.get_color(), alpha=0.2)
        axes.set_xscale("log", base=2)
        axes.set_xticks(REPEATS, [str(k) for k in REPEATS])
        axes.set(title=title, xlabel="studies of a batch that share a finding (k)")
        axes.axhline(0, color="black", linewidth=0.8)
        axes.grid(alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
    figure.savefig(path, dpi=120)


def print_table(results: dict[str, np.ndarray]) -> None:
    """Means over the seeds."""
    for panel, measure in enumerate(("accuracy", "alike", "force")):
        print(f"{measure:28}" + "".join(f"{f'k = {k}':>9}" for k in REPEATS))
        for name, values in results.items():
            print(f"  {name:26}" + "".join(f"{x:9.3f}" for x in values[..., panel].mean(1)))


def main() -> None:
    """Trains every objective at every k, for every seed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=pathlib.Path, help="a folder for false_negatives.png and .json")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args()
    results = {name: np.zeros((len(REPEATS), options.seeds, 3)) for name in OBJECTIVES}
    made = {}
    for seed in range(options.seeds):
        archive = Archive(np.random.default_rng(seed))
        for row, repeats in enumerate(REPEATS):
            for name, values in results.items():
                values[row, seed] = list(train(name, archive, repeats, options.steps, seed, made).values())
    print_table(results)
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
        draw(results, options.output / "false_negatives.png")
        text = json.dumps({name: values.tolist() for name, values in results.items()}, indent=1)
        (options.output / "false_negatives.json").write_text(text)


if __name__ == "__main__":
    main()
