"""Recall, latency, memory and build time of `medclip_keras.search`, and what composed queries find.

    python tests/benchmarks/search.py [--rows 1000000] [--dim 512] [--kind clustered]
    python tests/benchmarks/search.py --workdir workdir/phantom_tiny

The first form builds an index of generated vectors and asks it, a query at a time, each in a process of its
own. `clustered` vectors have what embeddings have: 1,000 clusters of unequal sizes (as 1 / (k + 10)) in a
subspace of 64 dimensions, noise within them and outside, and a common direction (a cone). Queries are new
vectors of the same kind (images), of another cone (texts), and image + 0.5 text - text (composed). `uniform`
vectors have no structure, which no index of groups can use. The peer is a matrix product with all rows.

The second form embeds the phantoms of a workdir of `python -m medclip_keras.fit`, asks for pictures like each
of those with exactly two findings, without one of them, and counts both findings in the ten nearest.

Exit status 1 if the recall@10 of a kind of query is under .95 on clustered vectors.
"""

import json
import os
import pathlib
import resource
import sys
import tempfile
import time

import numpy as np
from shared import new_parser, run_apart

from medclip_keras.embeddings import ModelProbe
from medclip_keras.search import index as indexes
from medclip_keras.search import queries
from medclip_keras.search.index import Rows, SearchIndex

PART, NUM_CLUSTERS, NUM_INNER, NUM_QUERIES = 50_000, 1000, 64, 300
FINDINGS = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


class Vectors:
    """Draws vectors of one kind."""

    def __init__(self, kind: str, dim: int):
        rng = np.random.default_rng(0)
        self.kind, self.dim = kind, dim
        self.basis = np.linalg.qr(rng.standard_normal((dim, NUM_INNER)))[0].T
        self.centres = unit(rng.standard_normal((NUM_CLUSTERS, NUM_INNER)))
        self.cones = unit(rng.standard_normal((2, dim)))  # of images, of texts
        shares = 1 / (np.arange(NUM_CLUSTERS) + 10)
        self.shares = shares / shares.sum()

    def draw(self, seed: int, number: int, cone: int = 0) -> np.ndarray:
        rng = np.random.default_rng([1, seed])
        if self.kind == "uniform":
            return unit(rng.standard_normal((number, self.dim), dtype=np.float32))
        centres = self.centres[rng.choice(NUM_CLUSTERS, number, p=self.shares)]
        noise = unit(rng.standard_normal((number, NUM_INNER), dtype=np.float32))
        inner = (0.7**0.5 * centres + 0.3**0.5 * noise) @ self.basis
        outer = unit(rng.standard_normal((number, self.dim), dtype=np.float32))
        return unit(0.6 * self.cones[cone] + 0.8 * inner + 0.1 * outer)

    def rows(self, num_rows: int) -> Rows:
        def parts():
            for start in range(0, num_rows, PART):
                number = min(PART, num_rows - start)
                yield {"path": [f"{start + n:09d}.png" for n in range(number)]}, self.draw(start, number)

        return Rows(parts, num_rows, self.dim, "path", ModelProbe("generated", (1.0,), (1.0,)), {})

    def queries(self) -> dict[str, np.ndarray]:
        images, texts, without = (self.draw(10**9 + n, NUM_QUERIES, cone) for n, cone in enumerate((0, 1, 1)))
        parts = zip(images[:, None], texts[:, None], without[:, None], strict=True)
        composed = np.stack([queries.compose(*one) for one in parts])
        return {"images": images, "texts": texts, "composed": composed}


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def build_it(vectors: Vectors, num_rows: int, place: str) -> dict:
    """Build the index; the time that drawing the vectors takes is left out."""
    rows, started = vectors.rows(num_rows), time.monotonic()
    for _ in rows.parts():
        pass
    drawing, started = time.monotonic() - started, time.monotonic()
    passes, parts = [0], rows.parts

    def counted():
        passes[0] += 1
        return parts()

    manifest = indexes.build(
        Rows(counted, *(getattr(rows, n) for n in ("num_rows", "dim", "key", "model", "made_from"))), place
    )
    seconds = time.monotonic() - started - passes[0] * drawing
    return {"seconds": seconds, "peak": peak_mib(), "method": manifest.method, "read": manifest.groups_read}


def ask_it(vectors: Vectors, num_rows: int, place: str) -> dict:
    """Recall and latency by kind of query, and the peak of memory after opening."""
    opened, asked = SearchIndex.open(place), vectors.queries()
    times = {
        name: [timed(lambda v=v: opened.search(v[None], 10)) for v in vectors_of]
        for name, vectors_of in asked.items()
    }
    memory, rows = peak_mib(), vectors.rows(num_rows)
    answer: dict = {"memory": memory, "load": os.getloadavg()[0]}
    for name, vectors_of in asked.items():
        exact = indexes.nearest_rows(rows, vectors_of)
        found = np.array([[int(m.name[:-4]) for m in row] for row in opened.search(vectors_of, 10)])
        low, high = (1000 * float(np.percentile(times[name], q)) for q in (50, 95))
        answer[name] = {"recall": indexes.recall_of(found, exact), "p50": low, "p95": high}
    everything = np.concatenate([part for _, part in rows.parts()])
    product = [timed(lambda v=v: np.argpartition(-(everything @ v), 10)[:10]) for v in asked["images"][:30]]
    answer["exact"] = {
        "p50": 1000 * float(np.percentile(product, 50)),
        "p95": 1000 * float(np.percentile(product, 95)),
    }
    return answer


def timed(work) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def compose_on_phantoms(workdir: str) -> None:
    """Shares of the avoided and of the other finding among the ten nearest, by weight."""
    import tensorflow as tf

    import medclip_keras
    from medclip_keras.evaluation.prompts import shipped_prompts
    from medclip_keras.records.manifest import load_concepts, read_manifest
    from medclip_keras.records.schema import parse_batch

    model, (folder,) = medclip_keras.load(workdir), pathlib.Path(workdir, "records").glob("images-*")
    manifest, embedded, states = read_manifest(folder), [], []
    for name in manifest.shard_names:
        records = list(tf.data.TFRecordDataset(str(folder / name)).as_numpy_iterator())
        batch = parse_batch(manifest.features, tf.constant(records), ("image", "label_states"))
        squares = batch["image"].numpy()
        embedded += [model.encode_stored_images(squares[i : i + 64]) for i in range(0, len(squares), 64)]
        states.append(batch["label_states"].numpy())
    columns = [load_concepts(folder).index(name) for name in FINDINGS]
    rows, labels = np.concatenate(embedded), (np.concatenate(states) == 1)[:, columns]
    texts = model.encode_texts([shipped_prompts()[name][0] for name in FINDINGS])
    print(f"{len(rows)} phantoms; shares among the ten nearest pictures")
    print(f"{'weight':>8} {'avoided':>8} {'other':>8} {'wanted':>8} {'other':>8}")
    for weight in (0.0, 0.25, 0.5, 1.0, 2.0):
        shares = []
        for i in np.flatnonzero(labels.sum(axis=1) == 2):
            for avoided, other in (pair := np.flatnonzero(labels[i]), pair[::-1]):
                given = {"images": rows[[i]], "without_weight": weight, "text_weight": weight}
                asked = [
                    queries.compose(**given, **{name: texts[[avoided]]}) for name in ("without", "texts")
                ]
                near = [
                    np.argsort(np.where(np.arange(len(rows)) == i, np.inf, -rows @ q))[:10] for q in asked
                ]
                shares.append([labels[best, column].mean() for best in near for column in (avoided, other)])
        print(f"{weight:8.2f}", *(f"{share:8.3f}" for share in np.mean(shares, axis=0)))


def main() -> int:
    parser = new_parser(__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--kind", choices=["clustered", "uniform"], default="clustered")
    parser.add_argument("--workdir", default="")
    parser.add_argument("--work", choices=["build", "ask"])  # in a process of its own
    parser.add_argument("--place")
    options = parser.parse_args()
    if options.workdir:
        compose_on_phantoms(options.workdir)
        return 0
    if options.work:
        work = {"build": build_it, "ask": ask_it}[options.work]
        print(json.dumps(work(Vectors(options.kind, options.dim), options.rows, options.place)))
        return 0
    settings = ["--rows", options.rows, "--dim", options.dim, "--kind", options.kind]
    with tempfile.TemporaryDirectory() as folder:
        place = os.path.join(folder, "index")
        built = run_apart(__file__, *settings, "--work", "build", "--place", place)
        size = sum(path.stat().st_size for path in pathlib.Path(place).iterdir()) / 2**20
        named = f"{options.rows:,} {options.kind} vectors of {options.dim}"
        print(f"{named}: {built['method']}, {built['read']} groups read")
        print(
            f"build {built['seconds']:.0f} s, peak {built['peak']:.0f} MiB; {size:.0f} MiB on disk",
            flush=True,
        )
        asked = run_apart(__file__, *settings, "--work", "ask", "--place", place)
    print(f"peak of a process that answers: {asked.pop('memory'):.0f} MiB; load {asked.pop('load'):.1f}")
    for name, figures in asked.items():
        print(f"{name:>9}:", ", ".join(f"{key} {value:.3f}" for key, value in figures.items()))
    recalls = [figures["recall"] for figures in asked.values() if "recall" in figures]
    return int(options.kind == "clustered" and min(recalls) < 0.95)


if __name__ == "__main__":
    sys.exit(main())
