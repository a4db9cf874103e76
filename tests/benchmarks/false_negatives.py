"""What repeated findings do to a batch: InfoNCE beside semantic matching, and what stands between them.

    python tests/benchmarks/false_negatives.py [--seeds 3] [--steps 200]

A study has one of 64 findings. Its image and its text are what that finding looks like and reads like (256
numbers each) with noise, and have nothing else in common: two studies with one finding are interchangeable,
as reports of one finding nearly are. Two linear encoders are trained on 1,024 studies in batches of 64. A
finding that occurs in a batch occurs k times: k = 1 has no false negatives, k = 16 has 4 findings of 16
studies. All findings are seen equally often whatever k is; only the company in the batch changes. Held-out
studies are then classified by prompts (a finding's text without noise; chance 1/64); printed are means over
the seeds. `tests/objectives/test_false_negatives.py` has the slopes. Two idle cores: two minutes.
"""

import keras
import numpy as np
import tensorflow as tf
from shared import new_parser

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
    """Studies for training, as many images for testing, and a prompt a finding."""

    def __init__(self, rng: np.random.Generator):
        """Draws what findings look like and read like, then studies with noise."""
        looks, self.prompts = rng.normal(size=(2, NUM_FINDINGS, FEATURES)).astype("float32")
        self.findings = np.repeat(np.arange(NUM_FINDINGS), STUDIES_A_FINDING)

        def noisy(clean):
            return clean[self.findings] + NOISE * rng.normal(size=(len(self.findings), FEATURES))

        self.train = [noisy(clean).astype("float32") for clean in (looks, self.prompts)]
        self.test = noisy(looks).astype("float32")

    def batch(self, rng: np.random.Generator, repeats: int) -> np.ndarray:
        """Indices of studies: `repeats` of each of some findings."""
        findings = rng.choice(NUM_FINDINGS, BATCH // repeats, replace=False)
        members = [rng.choice(STUDIES_A_FINDING, repeats, replace=False) for _ in findings]
        return (findings[:, None] * STUDIES_A_FINDING + np.stack(members)).reshape(-1)


def embed(features, weights):
    """Unit embeddings of a linear encoder."""
    return tf.math.l2_normalize(features @ weights, axis=1)


def make_step(objective, weights, optimizer):
    """One step of training."""

    @tf.function
    def step(images, texts, labels):
        with tf.GradientTape() as tape:
            v, t = embed(images, weights[0]), embed(texts, weights[1])
            loss = objective(v, t, labels).loss
        optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))

    return step


def accuracy_of(archive: Archive, weights) -> float:
    """Accuracy of held-out images by prompts."""
    v, prompts = embed(archive.test, weights[0]).numpy(), embed(archive.prompts, weights[1]).numpy()
    return float(((v @ prompts.T).argmax(1) == archive.findings).mean())


def train(name: str, archive: Archive, repeats: int, steps: int, seed: int, made: dict) -> float:
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
    for _ in range(steps):
        chosen = archive.batch(rng, repeats)
        labels = np.eye(NUM_FINDINGS, dtype="float32")[archive.findings[chosen]]
        step(archive.train[0][chosen], archive.train[1][chosen], labels)
    return accuracy_of(archive, weights)


def main() -> None:
    """Trains every objective at every k, for every seed."""
    parser = new_parser(__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args()
    archives, made = [Archive(np.random.default_rng(seed)) for seed in range(options.seeds)], {}
    print(f"{'accuracy':28}" + "".join(f"{f'k = {k}':>9}" for k in REPEATS))
    for name in OBJECTIVES:
        print(f"  {name:26}", end="", flush=True)
        for repeats in REPEATS:
            runs = [train(name, a, repeats, options.steps, seed, made) for seed, a in enumerate(archives)]
            print(f"{np.mean(runs):9.3f}", end="", flush=True)
        print()


if __name__ == "__main__":
    main()
