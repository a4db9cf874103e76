"""How long is a training step, and how much memory does it take, beside the same networks in PyTorch?

    python tests/benchmarks/step.py [--images resnet50 swin_tiny] [--precisions float32 bfloat16]
        [--sides ours ours_xla torch torch_compiled] [--environment DIR] [--batch 8] [--steps 6] [--output
        FILE] [--kept]

An image encoder with BERT-base, 224 px, 77 tokens, semantic matching, clipped AdamW. Each side runs in a
process of its own, in turn; the figures are the median step after the first two, the first step, and the
peak of resident memory. torch, torchvision and transformers are installed into an environment of their own
on the first run, as for pretrained.py. On a GPU (`pip install medclip_keras[gpu]`, CUDA's torch in the
environment) the same command with `--batch 64` measures the GPU: memory is then that of the device. With
`--profile DIR` our side writes a trace of one step for TensorBoard's profiler. `--kept` prints, instead of
times, the memory that each of our towers keeps for its backward pass, by operation.
"""

import argparse
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import time
import venv

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGES = ("torch==2.13.0", "torchvision", "transformers>=5", "numpy<2")
SIDE, TOKENS, PIECES, NUM_FINDINGS, WIDTH = 224, 77, 28996, 21, 512
SIDES = ("ours", "ours_xla", "torch", "torch_compiled")


def make_batch(size: int) -> dict[str, np.ndarray]:
    """Random images and sentences; half of the tokens are padding."""
    rng = np.random.default_rng(0)
    mask = np.arange(TOKENS) < rng.integers(10, TOKENS + 1, (size, 1))
    labels = [(rng.random((size, NUM_FINDINGS)) < 0.2).astype("float32") for _ in range(2)]
    return {
        "images": rng.normal(size=(size, SIDE, SIDE, 1)).astype("float32"),
        "token_ids": (rng.integers(1, PIECES, (size, TOKENS)) * mask).astype("int32"),
        "padding_mask": mask.astype("int32"),
        "image_labels": labels[0], "text_labels": labels[1],
        "image_known": np.ones_like(labels[0]), "text_known": np.ones_like(labels[1]),
    }  # fmt: skip


def our_model(options: argparse.Namespace):
    """The model and the run of our side."""
    import keras

    from medclip_keras.config import DataConfig, ImageEncoderConfig, ModelConfig, RunConfig, TrainConfig
    from medclip_keras.training.model import MedCLIP

    precision = "mixed_bfloat16" if options.precisions[0] == "bfloat16" else "float32"
    keras.mixed_precision.set_global_policy(precision)
    run = RunConfig(
        "step",
        data=DataConfig(max_tokens=TOKENS),
        model=ModelConfig(image=ImageEncoderConfig(backbone=options.images[0], image_size=SIDE)),
        train=TrainConfig(
            batch_size=options.batch, precision=precision, jit_compile=options.sides[0] == "ours_xla"
        ),
    )
    return MedCLIP(run, PIECES).build_towers(), run


def our_step(options: argparse.Namespace):
    """The function of one step of `fit`."""
    import tensorflow as tf

    from medclip_keras.training.model import build_optimizer

    model, run = our_model(options)
    model.compile(optimizer=build_optimizer(run, 1000), jit_compile=False)
    model.optimizer.build(model.trainable_variables)  # as `train` does, else the step is traced twice
    model.make_train_function()
    batches = iter(tf.data.Dataset.from_tensors(make_batch(options.batch)).repeat())

    def step() -> float:
        return float(model.train_function(batches)["loss"])

    def profiled() -> None:
        with tf.profiler.experimental.Profile(str(options.profile)):
            step()

    return step, profiled


def print_kept(options: argparse.Namespace) -> None:
    """Print the MiB that a tower keeps for its backward pass, by operation, the largest first."""
    import collections

    import tensorflow as tf

    model, _ = our_model(options)
    batch = {name: tf.constant(array) for name, array in make_batch(options.batch).items()}
    texts = {name: batch[name] for name in ("token_ids", "padding_mask")}
    towers = {
        "image": lambda: model.image_encoder(batch["images"], training=True).embeddings_unnormalized,
        "text": lambda: model.text_encoder(texts, training=True)[0],
    }
    for name, tower in towers.items():
        functions = tf.function(tower, autograph=False).get_concrete_function()._delayed_rewrite_functions
        functions.forward_backward()  # adds what the backward pass needs to the forward graph's outputs
        kept = collections.Counter()
        for tensor in {id(t): t for t in functions._func_graph.outputs}.values():
            if tensor.dtype not in (tf.variant, tf.resource) and tensor.shape.is_fully_defined():
                kept[tensor.op.type] += tensor.shape.num_elements() * tensor.dtype.size / 2**20
        operations = ", ".join(f"{kind} {mib:.0f}" for kind, mib in kept.most_common(8))
        print(f"{options.images[0]} {options.precisions[0]}, {name}: {kept.total():.0f} MiB: {operations}")


def torch_step(options: argparse.Namespace):
    """The function of one step of the same networks and loss in PyTorch, in the other environment."""
    import torch
    import torchvision
    from transformers import BertConfig, BertModel, SwinConfig, SwinModel

    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    class Image(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.swin = options.images[0] == "swin_tiny"
            self.backbone = SwinModel(SwinConfig()) if self.swin else torchvision.models.resnet50()
            features = 768 if self.swin else 2048
            self.projection = torch.nn.Linear(features, WIDTH, bias=False)
            if not self.swin:
                self.backbone.fc = torch.nn.Identity()

        def forward(self, images):
            found = self.backbone(images.repeat(1, 3, 1, 1))
            return self.projection(found.pooler_output if self.swin else found)

    class Text(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = BertModel(BertConfig(vocab_size=PIECES), add_pooling_layer=False)
            self.projection = torch.nn.Linear(768, WIDTH, bias=False)

        def forward(self, ids, mask):
            states = self.backbone(ids, attention_mask=mask, output_hidden_states=True).hidden_states
            hidden = (states[1] + states[2] + states[-1]) / 3
            there = mask[..., None].to(hidden.dtype)
            return self.projection((hidden * there).sum(1) / there.sum(1))

    image, text = Image().to(device).train(), Text().to(device).train()
    scale = torch.nn.Parameter(torch.tensor(np.log(1 / 0.07), dtype=torch.float32, device=device))
    parameters = [*image.parameters(), *text.parameters(), scale]
    optimizer = torch.optim.AdamW(parameters, lr=1e-6, weight_decay=1e-4)
    given = {name: torch.from_numpy(array).to(device) for name, array in make_batch(options.batch).items()}
    given["images"] = given["images"].permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
    a, b = (torch.nn.functional.normalize(given[f"{side}_labels"], dim=1) for side in ("image", "text"))
    similarity = a @ b.T
    if options.sides[0] == "torch_compiled":
        image, text = torch.compile(image), torch.compile(text)

    def step() -> float:
        bfloat16 = options.precisions[0] == "bfloat16"
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bfloat16):
            v, t = image(given["images"]), text(given["token_ids"].long(), given["padding_mask"])
        v, t = (torch.nn.functional.normalize(x.float(), dim=1) for x in (v, t))
        logits = scale.exp() * v @ t.T
        loss = sum(
            -(similarity.softmax(axis) * logits.log_softmax(axis)).sum(axis).mean() / 2 for axis in (0, 1)
        )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        return float(loss)

    return step, lambda: None


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Times of one side in this process."""
    ours = options.sides[0].startswith("ours")
    step, profiled = (our_step if ours else torch_step)(options)
    seconds = []
    for _ in range(options.steps + 2):
        began = time.monotonic()
        loss = step()
        seconds.append(time.monotonic() - began)
    if options.profile:
        profiled()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    if not ours:
        import torch

        memory = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else memory
    else:
        import tensorflow as tf

        if tf.config.list_physical_devices("GPU"):
            memory = tf.config.experimental.get_memory_info("GPU:0")["peak"] / 2**30
    steady = statistics.median(seconds[2:])
    return {"seconds": steady, "first_step": seconds[0], "peak_gib": memory, "loss": loss}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", nargs="+", default=["resnet50", "swin_tiny"])
    parser.add_argument("--precisions", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--sides", nargs="+", default=SIDES, choices=SIDES)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=6, help="measured steps, after two others")
    parser.add_argument(
        "--environment", type=pathlib.Path, default=pathlib.Path.home() / ".cache/medclip_torch"
    )
    parser.add_argument("--profile", type=pathlib.Path, help="folder for a trace of our side")
    parser.add_argument("--output", type=pathlib.Path, help="JSON file for the figures")
    parser.add_argument("--kept", action="store_true", help="what our towers keep for the backward pass")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options)))
        return
    if options.kept:
        print_kept(options)
        return
    theirs = options.environment / "bin" / "python"
    if not theirs.exists() and any(side.startswith("torch") for side in options.sides):
        venv.create(options.environment, with_pip=True)
        subprocess.run([theirs, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
    rows = []
    for image in options.images:
        for precision in options.precisions:
            for side in options.sides:
                command = [sys.executable if side.startswith("ours") else theirs, __file__, "--measure"]
                command += ["--images", image, "--precisions", precision, "--sides", side]
                command += ["--batch", str(options.batch), "--steps", str(options.steps)]
                command += ["--profile", str(options.profile)] * bool(options.profile)
                environment = os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
                done = subprocess.run(command, capture_output=True, text=True, env=environment)
                if done.returncode:
                    print(f"{image} {precision} {side}: failed: {done.stderr[-500:]}", flush=True)
                    continue
                row = {"image": image, "precision": precision, "side": side}
                row |= json.loads(done.stdout.splitlines()[-1])
                rows.append(row)
                print(
                    f"{image} {precision} {side}: {row['seconds']:.2f} s a step, "
                    f"first {row['first_step']:.0f} s, peak {row['peak_gib']:.2f} GiB", flush=True,
                )  # fmt: skip
    if options.output:
        options.output.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
