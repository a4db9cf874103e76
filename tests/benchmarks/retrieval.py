"""Retrieval among a million candidates: seconds and peak memory, beside faiss's flat index.

    python -m tests.benchmarks.retrieval [--candidates N] [--queries N] [--dim N] [--peer faiss|numpy|ranks]

The candidates are a file of float32 that this process reads in chunks. Without --peer the figures are
Precision@{1, 5, 10, 50} with ties, as the evaluation has them; "ranks" adds the ranks of pairs. The exit
status is 1 if the process used 2 GiB or more.
"""

import argparse
import pathlib
import resource
import sys
import tempfile
import time

import numpy as np

from medclip_keras.evaluation.nearest import Corpus, pair_ranks, precisions

LIMIT = 2.0  # GiB
CLASSES, TOP = 8, (1, 5, 10, 50)


class FileRows:
    """Rows of a file of float32, read by slices and not kept."""

    def __init__(self, path: pathlib.Path, dim: int):
        self._path, self._dim = path, dim
        self._num_rows = path.stat().st_size // (4 * dim)

    def __len__(self) -> int:
        return self._num_rows

    def __getitem__(self, rows: slice, /) -> np.ndarray:
        start, stop, _ = rows.indices(self._num_rows)
        flat = np.fromfile(self._path, np.float32, (stop - start) * self._dim, offset=4 * start * self._dim)
        return flat.reshape(-1, self._dim)


def write(path: pathlib.Path, num_rows: int, dim: int) -> None:
    """Write random directions, a tenth of them equal to others."""
    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        for start in range(0, num_rows, 50_000):
            rows = rng.standard_normal((min(50_000, num_rows - start), dim), dtype=np.float32)
            rows[::10] = rows[0]
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            rows.tofile(file)


def measure(rows: FileRows, queries: np.ndarray, peer: str) -> str:
    """Retrieve once; returns what was done."""
    classes = np.arange(len(rows)) % CLASSES
    of_queries, nobody = np.arange(len(queries)) % CLASSES, np.full(len(queries), -1)
    if peer == "faiss":
        import faiss

        index = faiss.IndexFlatIP(queries.shape[1])
        for start in range(0, len(rows), 100_000):
            index.add(rows[start : start + 100_000])
        _, found = index.search(queries, max(TOP))
        return f"faiss flat, P@10 {(classes[found[:, :10]] == of_queries[:, None]).mean():.4f}"
    if peer == "numpy":
        cosines = queries @ rows[0 : len(rows)].T
        found = np.argpartition(-cosines, 10, axis=1)[:, :10]
        return f"whole matrix in NumPy, P@10 {(classes[found] == of_queries[:, None]).mean():.4f}"
    corpus = Corpus(rows, classes, np.arange(len(rows)))
    found = precisions(queries, of_queries, nobody, corpus, TOP)
    if peer == "ranks":
        nearer, _ = pair_ranks(queries, np.arange(len(queries)), corpus)
        return f"ranks of pairs (two passes) after P@K, median {np.median(nearer) + 1:.0f}"
    return "P@K with ties: " + ", ".join(f"P@{k} {values.mean():.4f}" for k, values in found.items())


def main() -> int:
    """Print seconds and peak memory of the whole process; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--candidates", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=1_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--peer", choices=("", "faiss", "numpy", "ranks"), default="")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "candidates.f32"
        write(path, options.candidates, options.dim)
        rows = FileRows(path, options.dim)
        queries = np.random.default_rng(1).standard_normal((options.queries, options.dim), dtype=np.float32)
        queries /= np.linalg.norm(queries, axis=1, keepdims=True)
        start, cpu = time.perf_counter(), time.process_time()
        done = measure(rows, queries, options.peer)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    size = f"{options.candidates:,} x {options.dim} candidates, {options.queries:,} queries"
    print(f"{size}: {seconds:.1f} s ({cpu:.1f} processor seconds), peak {peak:.2f} GiB; {done}")
    return int(peak >= LIMIT)


if __name__ == "__main__":
    sys.exit(main())
