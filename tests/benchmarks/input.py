"""How much processor time do 1,000 augmented training images take, beside a PyTorch DataLoader?

    python tests/benchmarks/input.py [--image_size 224] [--stored_size 256] [--batch 100] [--steps 30]
        [--rounds 3] [--sides ours torch_decoded torch_jpeg] [--environment DIR] [--output FILE]

The same generated pictures and the same random changes: flip, affine map, crop, brightness, contrast,
normalisation. Ours are records of decoded pixels, with sentences and labels drawn, tokenised and joined; the
peers are torchvision's transforms on PIL images, of decoded pixels in memory (torch_decoded) and of small
JPEG files (torch_jpeg), images alone. Each side runs in a process of its own, in turn; the figures are
processor seconds (user and system, all threads) for 1,000 images, the median of the rounds, and peak memory;
ours must not grow with --num_images. torch and torchvision are installed into an environment of their own on
the first run, as for step.py.
"""

import argparse
import dataclasses
import io
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import venv

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGES = ("torch==2.13.0", "torchvision", "transformers>=5", "numpy<2")  # the environment of step.py
SIDES = ("ours", "torch_decoded", "torch_jpeg")
WORDS = ["lungs", "are", "clear", "no", "effusion", "opacity", "left", "right", "heart", "normal"]
WARM_UP = 5  # batches


def write_pictures(folder: pathlib.Path, number: int, side: int) -> np.ndarray:
    """Write JPEG files of smooth, noisy pictures; return their pixels, uint8 (number, side, side)."""
    from PIL import Image

    rng = np.random.default_rng(0)
    folder.mkdir()
    pictures = np.zeros((number, side, side), np.uint8)
    for k in range(number):
        coarse = Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).resize((side, side), Image.BICUBIC)
        noisy = np.asarray(coarse) + rng.normal(0, 4, (side, side))
        file = io.BytesIO()
        Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
        (folder / f"{k:05}.jpg").write_bytes(file.getvalue())
        pictures[k] = np.asarray(Image.open(file))
    np.save(folder / "pixels.npy", pictures)
    return pictures


def write_records(folder: pathlib.Path, kind: str, number: int, pictures: np.ndarray | None = None) -> None:
    """Write records: a positive finding in every fifth, five sentences in every report."""
    from medclip_keras.knowledge.concepts import load_table
    from medclip_keras.records.manifest import Manifest, write_manifest
    from medclip_keras.records.schema import encode, features_of
    from medclip_keras.records.shards import write_shard

    table, side = load_table("chest21"), 0 if pictures is None else pictures.shape[1]
    features = features_of(kind, side, len(table))
    rng = np.random.default_rng(0)
    folder.mkdir()
    num_shards = max(4, number // 2000)
    positives = np.zeros((2, len(table)), int)

    def states():
        drawn = np.zeros(len(table), np.int8)
        drawn[rng.integers(len(table))] = rng.random() < 0.2
        return drawn

    def row(k):
        sentences = [
            {"text": " ".join(rng.choice(WORDS, 8)), "section": "findings", "label_states": states()}
            for _ in range(5 if kind == "reports" else 0)
        ]
        record = {"record_key": f"{k}", "study_id": "", "patient_id": "", "split": "train"}
        record |= {"label_states": states(), "sentences": sentences}
        positives[0] += record["label_states"]
        positives[1] += sum((sentence["label_states"] for sentence in sentences), np.zeros(len(table), int))
        if pictures is not None:
            record |= {"view": "", "image": pictures[k % len(pictures), ..., None]}
        return encode(features, record)

    shards = [
        dataclasses.asdict(write_shard(folder, f"train-{i}", map(row, range(i, number, num_shards))))
        for i in range(num_shards)
    ]
    split = {"num_records": number, "shards": shards, "positives": positives[0].tolist()}
    split |= {"num_sentences": 5 * number, "sentence_positives": positives[1].tolist()}
    (folder / "concepts.jsonl").write_text(table.to_jsonl())
    manifest = Manifest(kind, "generated", side, table.name, table.fingerprint, len(table), {"train": split})
    write_manifest(folder, manifest)


def our_batches(options: argparse.Namespace):
    """Batches of `fit`, endless."""
    from medclip_keras.config import DataConfig, ImageEncoderConfig, ModelConfig, RunConfig, TrainConfig
    from medclip_keras.preprocess.text import REQUIRED_PIECES, Tokenizer
    from medclip_keras.records.batches import training_batches

    folders = {name: (str(options.data / name),) for name in ("images", "texts")}
    config = RunConfig(
        "input",
        data=DataConfig(**folders, stored_image_size=options.stored_size),
        model=ModelConfig(image=ImageEncoderConfig(image_size=options.image_size)),
        train=TrainConfig(batch_size=options.batch),
    )
    tokenizer = Tokenizer([*REQUIRED_PIECES, *WORDS], lower_case=True, max_tokens=77)
    steps_per_epoch = max(1, options.num_images // options.batch)
    return iter(training_batches(config, tokenizer, steps_per_epoch=steps_per_epoch))


def torch_batches(options: argparse.Namespace):
    """Batches of a DataLoader with torchvision's transforms, endless; in this process, on one thread."""
    import torch
    from PIL import Image
    from torchvision import transforms

    torch.set_num_threads(1)
    pixels = np.load(options.data / "jpeg" / "pixels.npy")
    files = sorted((options.data / "jpeg").glob("*.jpg"))
    bilinear = transforms.InterpolationMode.BILINEAR
    change = transforms.Compose([
        transforms.RandomHorizontalFlip(),
        transforms.RandomAffine(
            10, translate=(0.0625, 0.0625), scale=(0.8, 1.1), interpolation=bilinear
        ),
        transforms.RandomCrop(options.image_size),
        transforms.ColorJitter(brightness=0.2, contrast=0.2),
        transforms.ToTensor(),
        transforms.Normalize([0.5863], [0.2795]),
    ])  # fmt: skip

    class Pictures(torch.utils.data.Dataset):
        def __len__(self):
            return len(files)

        def __getitem__(self, k):
            if options.sides[0] == "torch_jpeg":
                return change(Image.open(files[k]).convert("L"))
            return change(Image.fromarray(pixels[k]))

    while True:
        yield from torch.utils.data.DataLoader(Pictures(), options.batch, shuffle=True, drop_last=True)


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Times of one side in this process."""
    began = time.monotonic()
    batches = (our_batches if options.sides[0] == "ours" else torch_batches)(options)
    next(batches)
    first = time.monotonic() - began
    for _ in range(WARM_UP):
        next(batches)
    wall, processor = time.monotonic(), time.process_time()
    for _ in range(options.steps):
        next(batches)
    processor, wall = time.process_time() - processor, time.monotonic() - wall
    images = options.steps * options.batch
    return {
        "processor_seconds_per_1000": 1000 * processor / images,
        "images_per_second": images / wall,
        "first_batch_seconds": first,
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def run_side(side: str, options: argparse.Namespace, folder: str) -> dict[str, float]:
    """Figures of one side in a new process."""
    python = sys.executable if side == "ours" else options.environment / "bin" / "python"
    sizes = ("image_size", "stored_size", "batch", "steps", "num_images")
    command = [python, __file__, "--measure", "--data", folder, "--sides", side]
    command += [text for name in sizes for text in (f"--{name}", str(getattr(options, name)))]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name, default in (("image_size", 224), ("stored_size", 256), ("batch", 100), ("steps", 30)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--num_images", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sides", nargs="+", default=SIDES, choices=SIDES)
    home = pathlib.Path.home() / ".cache/medclip_torch"
    parser.add_argument("--environment", type=pathlib.Path, default=home)
    parser.add_argument("--output", type=pathlib.Path, help="JSON file for the figures")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--data", type=pathlib.Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options)))
        return
    has_peer = any(side.startswith("torch") for side in options.sides)
    if has_peer and not (options.environment / "bin" / "python").exists():
        venv.create(options.environment, with_pip=True)
        install = [options.environment / "bin" / "python", "-m", "pip", "install", "--quiet", *PACKAGES]
        subprocess.run(install, check=True)
    rows = {side: [] for side in options.sides}
    with tempfile.TemporaryDirectory() as folder:
        data = pathlib.Path(folder)
        pictures = write_pictures(data / "jpeg", min(options.num_images, 2000), options.stored_size)
        write_records(data / "images", "images", options.num_images, pictures)
        write_records(data / "texts", "reports", 4000)
        for number in range(options.rounds):
            for side in options.sides:
                rows[side].append(run_side(side, options, folder))
                said = "  ".join(f"{name} {value:.3g}" for name, value in rows[side][-1].items())
                print(f"round {number + 1}  {side}  {said}", flush=True)
    medians = {
        side: {name: statistics.median(row[name] for row in found) for name in found[0]}
        for side, found in rows.items()
    }
    for side, found in medians.items():
        ratio = found["processor_seconds_per_1000"] / medians[options.sides[0]]["processor_seconds_per_1000"]
        said = f"{found['processor_seconds_per_1000']:.3f} processor seconds for 1,000 images"
        print(f"{side}: {said}, {ratio:.2f} times {options.sides[0]}, {found['peak_gib']:.2f} GiB")
    if options.output:
        options.output.write_text(json.dumps({"medians": medians, "rounds": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
