"""Images a second and peak memory of the input pipeline, on generated records.

    python tests/benchmarks/input_pipeline.py --image_size 64 --stored_size 64 --batch_size 32
    python tests/benchmarks/input_pipeline.py --image_size 224 --stored_size 256 --batch_size 100

Memory must not grow with `--num_images`.
"""

import dataclasses
import pathlib
import resource
import tempfile
import time

import numpy as np
from shared import new_parser

from medclip_keras.config import DataConfig, ImageEncoderConfig, ModelConfig, RunConfig, TrainConfig
from medclip_keras.knowledge.concepts import load_table
from medclip_keras.preprocess.text import REQUIRED_PIECES, Tokenizer
from medclip_keras.records.batches import training_batches
from medclip_keras.records.manifest import Manifest, write_manifest
from medclip_keras.records.schema import encode, features_of
from medclip_keras.records.shards import write_shard

WORDS = ["lungs", "are", "clear", "no", "effusion", "opacity", "left", "right", "heart", "normal"]


def write_dataset(directory: pathlib.Path, kind: str, num_records: int, image_size: int) -> None:
    """Writes random records: a positive finding in every fifth, five sentences in every report."""
    table = load_table("chest21")
    features = features_of(kind, image_size, len(table))
    rng = np.random.default_rng(0)
    directory.mkdir()
    num_shards = max(4, num_records // 2000)
    positives = np.zeros((2, len(table)), int)

    def states():
        drawn = np.zeros(len(table), np.int8)
        drawn[rng.integers(len(table))] = rng.random() < 0.2
        return drawn

    def row(number):
        sentences = [
            {"text": " ".join(rng.choice(WORDS, 8)), "section": "findings", "label_states": states()}
            for _ in range(5 if kind == "reports" else 0)
        ]
        record = {"record_key": f"{number}", "study_id": "", "patient_id": "", "split": "train"}
        record |= {"label_states": states(), "sentences": sentences}
        positives[0] += record["label_states"]
        positives[1] += sum((sentence["label_states"] for sentence in sentences), np.zeros(len(table), int))
        if kind == "images":
            record |= {"view": "", "image": rng.integers(0, 256, (image_size, image_size, 1), np.uint8)}
        return encode(features, record)

    shards = [
        dataclasses.asdict(write_shard(directory, f"train-{i}", map(row, range(i, num_records, num_shards))))
        for i in range(num_shards)
    ]
    split = {"num_records": num_records, "shards": shards, "positives": positives[0].tolist()}
    split |= {"num_sentences": 5 * num_records, "sentence_positives": positives[1].tolist()}
    (directory / "concepts.jsonl").write_text(table.to_jsonl())
    manifest = Manifest(
        kind, "generated", image_size, table.name, table.fingerprint, len(table), {"train": split}
    )
    write_manifest(directory, manifest)


def main() -> None:
    """Prints one line a measurement."""
    parser = new_parser(__doc__)
    parser.add_argument("--num_images", type=int, default=4000)
    parser.add_argument("--image_size", type=int, default=64)
    parser.add_argument("--stored_size", type=int, default=64)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=300)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        directory = pathlib.Path(directory)
        write_dataset(directory / "images", "images", options.num_images, options.stored_size)
        write_dataset(directory / "reports", "reports", 4000, 0)
        data = DataConfig(
            images=(str(directory / "images"),),
            texts=(str(directory / "reports"),),
            stored_image_size=options.stored_size,
        )
        config = RunConfig(
            "benchmark",
            data=data,
            model=ModelConfig(image=ImageEncoderConfig(image_size=options.image_size)),
            train=TrainConfig(batch_size=options.batch_size),
        )
        tokenizer = Tokenizer([*REQUIRED_PIECES, *WORDS], lower_case=True, max_tokens=77)
        begin = time.perf_counter()
        steps_per_epoch = max(1, options.num_images // options.batch_size)
        batches = iter(training_batches(config, tokenizer, steps_per_epoch=steps_per_epoch))
        next(batches)
        print(f"first batch after {time.perf_counter() - begin:.1f} s")
        begin = time.perf_counter()
        for _ in range(options.steps):
            next(batches)
        seconds = time.perf_counter() - begin
    rate = options.steps / seconds
    print(f"{rate * options.batch_size:,.0f} images/s, {rate:.1f} batches/s")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


if __name__ == "__main__":
    main()
