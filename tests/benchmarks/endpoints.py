"""Latency and throughput of each endpoint, beside the same networks in PyTorch eager and ONNX Runtime.

    python tests/benchmarks/endpoints.py [--batches 1 8 32] [--seconds 4] [--environment DIR] [--output FILE]

ResNet-50 and BERT-base of MedCLIP's published sizes with random weights, gray JPEG files of 1,024 x 1,024
pixels, sentences of some 12 tokens. Each side runs in a process of its own on two threads: this project as
the exported SavedModel, files and strings in; the peers with Pillow, NumPy and Hugging Face's tokenizers in
front of the networks. The peers' environment is made on the first run (torch, 5 GB). Takes some ten minutes.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
import venv

import numpy as np

PACKAGES = (
    "torch==2.13.0", "torchvision", "transformers>=5", "onnx", "onnxscript", "onnxruntime", "numpy<2",
    "pillow", "tokenizers",
)  # fmt: skip
SIDES, THREADS, BATCHES = ("saved_model", "torch", "onnx"), 2, (1, 8, 32)
NUM_CLASSES, NUM_SENTENCES, DIM, LENGTH = 5, 210, 512, 12
ENDPOINTS = (
    "encode_image", "encode_stored_images", "encode_pixels", "encode_text", "encode_tokens", "zero_shot",
    "zero_shot_prompts", "similarity", "retrieve", "retrieve_embeddings",
)  # fmt: skip


def requests(folder: pathlib.Path, batch: int) -> dict[str, dict]:
    """The request of each endpoint."""
    rng = np.random.default_rng(batch)
    files = np.array([(folder / f"{n}.jpg").read_bytes() for n in range(batch)], object)
    words = (folder / "words.txt").read_text().split()
    texts = np.array([" ".join(rng.choice(words, LENGTH - 2)) for _ in range(batch)], object)
    tokens = rng.integers(4, 1000, (batch, LENGTH)).astype(np.int32)
    image, lists = {"image_bytes": files}, np.array([[t, texts[0]] for t in texts], object)
    return {
        "encode_image": image,
        "encode_stored_images": {
            "stored_images": rng.integers(0, 256, (batch, 256, 256, 1)).astype(np.uint8)
        },
        "encode_pixels": {"pixels": rng.uniform(0, 255, (batch, 224, 224, 1)).astype(np.float32)},
        "encode_text": {"texts": texts},
        "encode_tokens": {"token_ids": tokens, "padding_mask": np.ones_like(tokens)},
        "zero_shot": image,
        "zero_shot_prompts": image
        | {"prompts": lists, "prompt_class": np.tile(np.array([0, 1], np.int32), (batch, 1))},
        "similarity": image | {"texts": lists},
        "retrieve": image,
        "retrieve_embeddings": {"embeddings": rng.normal(size=(batch, DIM)).astype(np.float32)},
    }


def measure(functions: dict, folder: pathlib.Path, options: argparse.Namespace) -> dict:
    """Endpoint → batch → median seconds of a call."""
    found: dict = {}
    for batch in options.batches:
        for name, request in requests(folder, batch).items():
            functions[name](**request)
            seconds: list[float] = []
            while sum(seconds) < options.seconds or len(seconds) < 3:
                started = time.perf_counter()
                functions[name](**request)
                seconds.append(time.perf_counter() - started)
            found.setdefault(name, {})[batch] = statistics.median(seconds)
    return found


def of_saved_model(folder: pathlib.Path) -> dict:
    """The signatures of the SavedModel."""
    import tensorflow as tf
    import tensorflow_text  # noqa: F401 (registers operations)

    tf.config.threading.set_intra_op_parallelism_threads(THREADS)
    tf.config.threading.set_inter_op_parallelism_threads(THREADS)
    loaded = tf.saved_model.load(str(folder / "model"))

    def function(name):
        signature = loaded.signatures[name]
        return lambda **request: {
            k: v.numpy() for k, v in signature(**{k: tf.constant(v) for k, v in request.items()}).items()
        }

    return {name: function(name) for name in ENDPOINTS}


def of_peer(folder: pathlib.Path, side: str) -> dict:
    """The same answers by PyTorch or ONNX Runtime."""
    import io

    import torch
    import torchvision
    from PIL import Image
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertConfig, BertModel

    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    vision = torchvision.models.resnet50()
    vision.fc = torch.nn.Linear(2048, DIM, bias=False)
    bert = BertModel(BertConfig(vocab_size=len((folder / "vocab.txt").read_text().splitlines())))

    class Text(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.bert, self.head = bert, torch.nn.Linear(768, DIM, bias=False)

        def forward(self, ids, mask):
            states = self.bert(ids, attention_mask=mask, output_hidden_states=True).hidden_states
            hidden, there = (states[1] + states[2] + states[-1]) / 3, mask[..., None].float()
            return self.head((hidden * there).sum(1) / there.sum(1))

    vision, text = vision.eval(), Text().eval()
    run_vision, run_text = (vision, text) if side == "torch" else onnx_sessions(folder, vision, text)
    tokenizer = BertWordPieceTokenizer(str(folder / "vocab.txt"), lowercase=True)
    tokenizer.enable_padding()
    rng = np.random.default_rng(0)
    classes, sentences = (rng.normal(size=(n, DIM)).astype(np.float32) for n in (NUM_CLASSES, NUM_SENTENCES))

    def call(network, *arrays):
        if side == "torch":
            with torch.inference_mode():
                found = network(*map(torch.from_numpy, arrays)).numpy()
        else:
            found = network(*arrays)
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    def stored(content):
        picture = Image.open(io.BytesIO(content)).convert("L")
        square = Image.new("L", (max(picture.size),) * 2)
        square.paste(picture, ((square.width - picture.width) // 2, (square.height - picture.height) // 2))
        return square.resize((256, 256), Image.BICUBIC)

    def pixels(pixels):
        gray = (pixels / 255 - 0.5863) / 0.2795
        return call(run_vision, np.repeat(gray.reshape(len(gray), 1, 224, 224), 3, axis=1).astype(np.float32))

    def seen(squares):
        return np.stack([np.asarray(s.resize((224, 224), Image.BICUBIC), np.float32) for s in squares])

    def images(image_bytes):
        return pixels(seen([stored(content) for content in image_bytes]))

    def tokens(token_ids, padding_mask):
        return call(run_text, token_ids.astype(np.int64), padding_mask.astype(np.int64))

    def texts(texts):
        distinct, positions = np.unique(texts, return_inverse=True)
        encoded = tokenizer.encode_batch(list(distinct))
        ids, mask = np.array([e.ids for e in encoded]), np.array([e.attention_mask for e in encoded])
        return tokens(ids, mask)[positions.reshape(np.shape(texts))]

    def nearest(embeddings):
        cosines = embeddings @ sentences.T
        return np.take_along_axis(cosines, np.argsort(-cosines, axis=1)[:, :10], axis=1)

    def compare(image_bytes, lists):
        return np.einsum("bd,bnd->bn", images(image_bytes), texts(lists))

    return {
        "encode_image": images,
        "encode_stored_images": lambda stored_images: pixels(
            seen([Image.fromarray(s[..., 0]) for s in stored_images])
        ),
        "encode_pixels": pixels,
        "encode_text": texts,
        "encode_tokens": tokens,
        "zero_shot": lambda image_bytes: images(image_bytes) @ classes.T,
        "zero_shot_prompts": lambda image_bytes, prompts, prompt_class: compare(image_bytes, prompts),
        "similarity": lambda image_bytes, texts: compare(image_bytes, texts),
        "retrieve": lambda image_bytes: nearest(images(image_bytes)),
        "retrieve_embeddings": nearest,
    }


def onnx_sessions(folder: pathlib.Path, vision, text):
    """Both networks in ONNX Runtime, of any batch size."""
    import onnxruntime
    import torch

    batch, length = torch.export.Dim("batch"), torch.export.Dim("length", max=512)
    ids = torch.ones((2, LENGTH), dtype=torch.int64)
    inputs = {"vision": (torch.zeros(2, 3, 224, 224),), "text": (ids, ids)}
    shapes = {"vision": ({0: batch},), "text": ({0: batch, 1: length}, {0: batch, 1: length})}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS

    def session(name, network):
        path = str(folder / f"{name}.onnx")
        torch.onnx.export(network, inputs[name], path, dynamic_shapes=shapes[name], dynamo=True)
        started = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        names = [one.name for one in started.get_inputs()]
        return lambda *arrays: started.run(None, dict(zip(names, arrays, strict=True)))[0]

    return session("vision", vision), session("text", text)


def prepare(folder: pathlib.Path) -> None:
    """Write pictures, words, a vocabulary and the SavedModel."""
    from PIL import Image

    from medclip_keras.config import RunConfig, to_dict
    from medclip_keras.knowledge.concepts import load_table
    from medclip_keras.preprocess.text import Tokenizer
    from medclip_keras.serving.folding import fold
    from medclip_keras.serving.signatures import Endpoints, export_model
    from medclip_keras.training.model import MedCLIP

    rng = np.random.default_rng(0)
    for n in range(max(BATCHES)):
        coarse = Image.fromarray(rng.integers(0, 256, (64, 64)).astype(np.uint8))
        coarse.resize((1024, 1024), Image.BICUBIC).save(folder / f"{n}.jpg", quality=90)
    words = [f"w{n}" for n in range(4, 28996)]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words[1:]]
    (folder / "words.txt").write_text(" ".join(words[1:1000]))
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    config = RunConfig("serving")
    model = MedCLIP(config, len(vocabulary)).build_towers()
    fold(model)  # as an export does
    endpoints = Endpoints(model, Tokenizer(vocabulary, lower_case=True, max_tokens=config.data.max_tokens))
    export_model(endpoints, load_table("chest21"), folder / "model", {"config": to_dict(config)})


def table(found: dict) -> str:
    """Milliseconds a call of each side, and this project's rate by each peer's."""
    heads = ("endpoint", "batch", "rows/s", "ms", "PyTorch, ms", "ratio", "ONNX Runtime, ms", "ratio")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name in ENDPOINTS:
        for batch, seconds in found["saved_model"][name].items():
            peers = [found[side][name][batch] for side in SIDES[1:] if side in found]
            beside = "".join(f" {1000 * p:.1f} | {p / seconds:.2f} |" for p in peers)
            lines.append(f"| {name} | {batch} | {int(batch) / seconds:.1f} | {1000 * seconds:.1f} |{beside}")
    return "\n".join(lines)


def make_environment(folder: pathlib.Path) -> pathlib.Path:
    """The Python of the peers' environment, made where there is none."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
    return python


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cache = pathlib.Path.home() / ".cache/medclip_serving_peers"
    parser.add_argument("--environment", type=pathlib.Path, default=cache)
    parser.add_argument("--batches", nargs="+", type=int, default=BATCHES)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each endpoint and batch")
    parser.add_argument("--output", type=pathlib.Path, help="JSON file for the figures")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=pathlib.Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        here = options.side == "saved_model"
        functions = of_saved_model(options.folder) if here else of_peer(options.folder, options.side)
        print(json.dumps(measure(functions, options.folder, options)))
        return
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        prepare(pathlib.Path(folder))
        for side in SIDES:
            python = sys.executable if side == "saved_model" else make_environment(options.environment)
            command = [str(python), __file__, "--side", side, "--folder", folder]
            command += ["--seconds", str(options.seconds), "--batches", *map(str, options.batches)]
            environment = os.environ | {"OMP_NUM_THREADS": str(THREADS), "TF_CPP_MIN_LOG_LEVEL": "3"}
            done = subprocess.run(
                command, env=environment, check=True, stdout=subprocess.PIPE, stderr=sys.stderr, text=True
            )
            found[side] = json.loads(done.stdout.splitlines()[-1])
    print(table(found))
    if options.output:
        options.output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
