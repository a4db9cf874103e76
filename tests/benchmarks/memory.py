"""How much memory do a step, a tiled loss and a long run need?

    python tests/benchmarks/memory.py [--cases steps loss] [--run_steps 200000] [--output FILE]

`steps`: peak memory and seconds of one step of a small Swin and a two-layer BERT at batches of 64 to 4,096,
at once and in chunks, a process each; the gradients of 1,024 in chunks beside those of 1,024 at once. `loss`:
semantic matching of 32,768 images and texts in tiles, with its gradients. `run`: resident memory over
`--run_steps` steps of `train` on tiny data.
"""

import argparse
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Batch and chunk; 0: at once.
STEPS = ((64, 0), (128, 0), (1024, 0), (1024, 64), (4096, 64), (4096, 128))
COMPARED = ((1024, 0), (1024, 64))
SIDE, TOKENS, NUM_FINDINGS, PIECES = 64, 32, 21, 1000
LOSS_SIZES = ((4096, 0), (4096, 128), (32768, 128))
MIB = 2**20


def peak() -> float:
    """Peak resident memory of this process so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def resident() -> float:
    """Resident memory now, MiB."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MIB


def make_model(batch_size: int, chunk_size: int):
    """A Swin of four blocks and a BERT of two layers, without random draws, under SGD."""
    import keras
    import keras_hub

    from medclip_keras.config import (
        DataConfig,
        ImageEncoderConfig,
        ModelConfig,
        RunConfig,
        TextEncoderConfig,
        TrainConfig,
    )
    from medclip_keras.models.image_encoder import BACKBONES
    from medclip_keras.training.model import MedCLIP

    def small_swin(config):
        return keras_hub.models.SwinTransformerBackbone(
            image_shape=(SIDE, SIDE, 3), embed_dim=48, depths=(2, 2), num_heads=(3, 6), window_size=4,
            patch_size=4, drop_path=0.0,
        )  # fmt: skip

    BACKBONES["small_swin"] = small_swin
    keras.utils.set_random_seed(1)
    text = TextEncoderConfig(num_layers=2, num_heads=4, hidden_dim=128, intermediate_dim=512, dropout=0.0)
    run = RunConfig(
        "memory",
        data=DataConfig(max_tokens=TOKENS, stored_image_size=SIDE),
        model=ModelConfig(image=ImageEncoderConfig(backbone="small_swin", image_size=SIDE), text=text),
        train=TrainConfig(batch_size=batch_size, chunk_size=chunk_size),
    )
    model = MedCLIP(run, PIECES).build_towers()
    model.compile(optimizer=keras.optimizers.SGD(0.1), jit_compile=False)
    return model


def make_batch(size: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    mask = np.arange(TOKENS) < rng.integers(5, TOKENS + 1, (size, 1))
    labels = [(rng.random((size, NUM_FINDINGS)) < 0.1).astype("float32") for _ in range(2)]
    return {
        "images": rng.normal(size=(size, SIDE, SIDE, 1)).astype("float32"),
        "token_ids": (rng.integers(1, PIECES, (size, TOKENS)) * mask).astype("int32"),
        "padding_mask": mask.astype("int32"),
        "image_labels": labels[0], "text_labels": labels[1],
        "image_known": np.ones_like(labels[0]), "text_known": np.ones_like(labels[1]),
    }  # fmt: skip


def measure_step(batch_size: int, chunk_size: int, gradients_path: str) -> dict[str, float]:
    """Two steps in this process; the weights' change by the first, if there is a path for it."""
    import tensorflow as tf

    model, batch = make_model(batch_size, chunk_size), make_batch(batch_size)
    before, start = [v.numpy() for v in model.trainable_variables], peak()
    model.make_train_function()
    batches = iter(tf.data.Dataset.from_tensors(batch).repeat())
    began = time.monotonic()
    logs = model.train_function(batches)
    first = time.monotonic() - began
    loss = float(logs["loss"])
    if gradients_path:
        moved = [v.numpy() - b for v, b in zip(model.trainable_variables, before, strict=True)]
        np.savez(gradients_path, *moved)
    began = time.monotonic()
    float(model.train_function(batches)["loss"])
    seconds = time.monotonic() - began
    return {"loss": loss, "first_step": first, "seconds": seconds, "before": start, "peak": peak()}


def measure_loss(size: int, tile_size: int) -> dict[str, float]:
    """Value and gradients of semantic matching in this process."""
    import tensorflow as tf

    from medclip_keras.objectives.semantic_matching import semantic_matching

    rng = np.random.default_rng(0)
    v, t = (tf.math.l2_normalize(rng.normal(size=(size, 512)).astype("float32"), axis=1) for _ in range(2))
    a, b = (tf.constant((rng.random((size, NUM_FINDINGS)) < 0.1).astype("float32")) for _ in range(2))

    @tf.function
    def step(v, t, scale):
        with tf.GradientTape() as tape:
            tape.watch([v, t, scale])
            loss = semantic_matching(v, t, scale, a, b, tile_size=tile_size).loss
        return loss, tape.gradient(loss, [v, t, scale])

    start, began = peak(), time.monotonic()
    loss, gradients = step(v, t, tf.constant(14.0))
    norm = float(tf.linalg.global_norm(gradients))
    seconds = time.monotonic() - began
    return {"loss": float(loss), "norm": norm, "seconds": seconds, "before": start, "peak": peak()}


def measure_run(num_steps: int) -> dict:
    """Resident memory at every twentieth of a run of `train` on 60 phantoms."""
    from rich.console import Console

    from beam_jobs import decode_images, label_reports
    from medclip_keras.config import override
    from medclip_keras.runs import phantom_tiny
    from medclip_keras.sources.phantom import write_phantom
    from medclip_keras.training import model as training_model
    from medclip_keras.training.train import train

    found: list[float] = []
    sound = training_model.GlobalStep.make_train_function

    def counted(self, force=False):
        sound(self, force)
        step, count = self.train_function, [0]

        def and_measure(iterator):
            count[0] += 1
            if count[0] % max(1, num_steps // 20) == 0:
                found.append(resident())
            return step(iterator)

        self.train_function = and_measure

    training_model.GlobalStep.make_train_function = counted
    with tempfile.TemporaryDirectory() as folder:
        raw, records = pathlib.Path(folder) / "raw", pathlib.Path(folder) / "records"
        write_phantom(raw, seed=1, num_paired=60, num_image_only=0, num_text_only=0, image_size=36)
        options = {"source": "phantom", "input": str(raw)}
        label_reports.run(**options, output=f"{records}/reports")
        decode_images.run(**options, output=f"{records}/images", image_size=36, reports=f"{records}/reports")
        run = override(phantom_tiny(), [
            "data.stored_image_size=36", "model.image.image_size=32", "model.image.width=8",
            "model.text.hidden_dim=16", "model.text.intermediate_dim=16", "model.text.num_heads=2",
            "model.text.vocabulary_size=300", "train.batch_size=4", f"train.steps={num_steps}",
            "data.phantom=null",
            f'data.images=["{records}/images"]', f'data.texts=["{records}/reports"]',
            "train.checkpoint_every=5000", "train.validate_every=5000",
        ])  # fmt: skip
        began = time.monotonic()
        done = train(run, f"{folder}/run", Console(quiet=True)).step
    return {"steps": done, "seconds": time.monotonic() - began, "resident": found}


def in_process(kind: str, *arguments: object) -> dict:
    """The measurement in a process of its own."""
    command = [sys.executable, __file__, "--measure", kind, *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def compare_steps(folder: str) -> list[dict]:
    """A row for each of STEPS; the largest difference of the compared weights' changes."""
    rows = []
    for batch_size, chunk_size in STEPS:
        path = f"{folder}/{chunk_size}.npz" if (batch_size, chunk_size) in COMPARED else ""
        row = {"batch": batch_size, "chunk": chunk_size, **in_process("step", batch_size, chunk_size, path)}
        rows.append(row)
        print(
            f"batch {batch_size}, chunks of {chunk_size or batch_size}: peak {row['peak']:.0f} MiB, "
            f"{row['peak'] - row['before']:.0f} above the start, {row['seconds']:.1f} s", flush=True,
        )  # fmt: skip
    one, other = (np.load(f"{folder}/{chunk_size}.npz") for _, chunk_size in COMPARED)
    arrays = one.files
    largest = max(float(np.abs(one[n]).max()) for n in arrays)
    difference = max(float(np.abs(one[n] - other[n]).max()) for n in arrays) / largest
    print(f"1,024 in chunks of 64 beside 1,024 at once: gradients {difference:.1e} of the largest")
    return [*rows, {"difference": difference}]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--cases", nargs="+", default=["steps", "loss", "run"], choices=["steps", "loss", "run"]
    )
    parser.add_argument("--run_steps", type=int, default=200_000)
    parser.add_argument("--output", type=pathlib.Path, help="JSON file for the figures")
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        kind, *numbers = options.measure
        if kind == "step":
            found = measure_step(int(numbers[0]), int(numbers[1]), numbers[2])
        else:
            found = {"loss": measure_loss, "run": measure_run}[kind](*map(int, numbers))
        print(json.dumps(found))
        return
    figures: dict = {}
    if "steps" in options.cases:
        with tempfile.TemporaryDirectory() as folder:
            figures["steps"] = compare_steps(folder)
    if "loss" in options.cases:
        figures["loss"] = []
        for size, tile_size in LOSS_SIZES:
            row = {"size": size, "tile": tile_size, **in_process("loss", size, tile_size)}
            figures["loss"].append(row)
            print(
                f"loss of {size}, tiles of {tile_size or size}: {row['peak'] - row['before']:.0f} MiB above "
                f"the start, {row['seconds']:.1f} s, loss {row['loss']:.6f}", flush=True,
            )  # fmt: skip
    if "run" in options.cases:
        figures["run"] = row = in_process("run", options.run_steps)
        late = row["resident"][2:]
        print(f"{row['steps']} steps in {row['seconds']:.0f} s: {min(late):.0f} to {max(late):.0f} MiB")
    if options.output:
        options.output.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
