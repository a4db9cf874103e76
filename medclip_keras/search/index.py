"""An index of embeddings on disk: faiss' index, the rows' names, and a manifest, which is written last."""

import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow
import pyarrow.feather
from etils import epath

from medclip_keras.embeddings import (
    MANIFEST_NAME,
    EmbeddingManifest,
    Encoder,
    ModelProbe,
    read_shards,
    write_bytes,
)
from medclip_keras.errors import refusal, require
from medclip_keras.evaluation.arrays import Floats, Ints
from medclip_keras.files import size_of
from medclip_keras.locks import sole_writer
from medclip_keras.provenance import sha256_of, versions

INDEX_NAME, NAMES_NAME = "index.faiss", "names.arrow"
EXACT_ROWS = 20_000  # a product with so many vectors of 512 dimensions takes 2 ms
TARGET_RECALL = 0.97
TRAINING_ROWS = 50  # for each group
NUM_TRIALS = 100  # queries of each kind that measure the recall
_NEIGHBOURS = 10

Part = tuple[Mapping[str, Sequence[str]], Floats]  # text columns, and embeddings float32 (n, D)


@dataclass(frozen=True)
class Match:
    """A row of an index that is near to a query.

    Attributes:
        name: path, record key or sentence.
        score: cosine of the query and the row; of an index of 8-bit vectors within some thousandths.
        columns: further text columns of the row, such as the split.
    """

    name: str
    score: float
    columns: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Rows:
    """Named embeddings, which are read as often as needed.

    Attributes:
        parts: returns the rows, part by part, in the same order each time.
        num_rows: of all parts.
        dim: width of the embeddings.
        key: the text column that names a row.
        model: the model's answers.
        made_from: provenance, as JSON types.
    """

    parts: Callable[[], Iterator[Part]]
    num_rows: int
    dim: int
    key: str
    model: ModelProbe
    made_from: Mapping[str, Any]

    @classmethod
    def of_folder(cls, directory: epath.PathLike) -> "Rows":
        """The rows of a folder that `beam_jobs.embed_images` wrote.

        Raises:
            ValueError: no such folder.
        """
        manifest = EmbeddingManifest.read(directory)
        made_from = {
            "embeddings": str(directory),
            "sha256": sha256_of([s["sha256"] for s in manifest.shards]),
        }
        read = lambda: read_shards(directory, manifest)  # noqa: E731
        return cls(read, manifest.num_rows, manifest.dim, manifest.key, manifest.probe, made_from)

    @classmethod
    def of_sentences(cls, sentences: Sequence[str], model: Encoder) -> "Rows":
        """Distinct sentences, embedded by a model."""
        distinct = list(dict.fromkeys(sentences))
        vectors = model.encode_texts(distinct)
        made_from = {"sentences": len(distinct), "sha256": sha256_of(distinct)}
        parts: list[Part] = [({"sentence": distinct}, vectors)]
        probe = ModelProbe.of(model)
        return cls(lambda: iter(parts), len(distinct), vectors.shape[1], "sentence", probe, made_from)


@dataclass(frozen=True)
class IndexManifest:
    """Contents and provenance of an index.

    Attributes:
        method: faiss' name of the index, "Flat" for the exact one.
        groups_read: of the inverted file, for a query; 0 for an exact index.
        recall: measured recall@10 of the exact answer, by kind of query.
        sizes: bytes of each file.
        key, dim, num_rows, model, made_from: as of `Rows`.
    """

    method: str
    groups_read: int
    recall: Mapping[str, float]
    sizes: Mapping[str, int]
    key: str
    dim: int
    num_rows: int
    model: Mapping[str, Any]
    made_from: Mapping[str, Any] = field(default_factory=dict)
    kind: str = "search_index"


class SearchIndex:
    """An index in memory.

    index = SearchIndex.open("INDEX")
    index.search(model.encode_texts("There is a pleural effusion."), k=3)
    """

    def __init__(self, faiss_index: Any, names: pyarrow.Table, manifest: IndexManifest):
        self._index, self._names, self.manifest = faiss_index, names, manifest
        self._probe = ModelProbe.from_json(manifest.model)
        self._accepted: Encoder | None = None  # the last model that was asked and is the index's

    def __len__(self) -> int:
        return self.manifest.num_rows

    @classmethod
    def open(cls, path: epath.PathLike) -> "SearchIndex":
        """Read an index.

        Raises:
            ValueError: no index, or one whose files are incomplete.
        """
        folder, form = epath.Path(path), "a folder that python -m medclip_keras.search build wrote"
        require((folder / MANIFEST_NAME).exists(), "index", form, str(path))
        try:
            manifest = IndexManifest(**json.loads((folder / MANIFEST_NAME).read_text()))
        except (json.JSONDecodeError, TypeError):
            raise refusal("index", form, str(path), "Build the index again.") from None
        for name, size in manifest.sizes.items():
            length = size_of(folder / name)
            received = f"{name} of {length} bytes, in the manifest {size}"
            require(length == size, "index", "complete", received, "Build the index again.")
        index = faiss().read_index(str(folder / INDEX_NAME))
        if manifest.groups_read:
            index.nprobe = manifest.groups_read
        names = pyarrow.feather.read_table(str(folder / NAMES_NAME), memory_map=True)
        return cls(index, names, manifest)

    def search(self, queries: Floats, k: int = _NEIGHBOURS) -> list[list[Match]]:
        """Return the `k` nearest rows of each query, the nearest first.

        Args:
            queries: float (num_queries, D), of unit length.
            k: at least 1; of an index with fewer rows, all.

        Raises:
            ValueError: queries of another width, or not finite.
        """
        require(k >= 1, "k", "at least 1", k)
        queries = np.ascontiguousarray(queries, np.float32)
        fits = (
            queries.ndim == 2 and queries.shape[1] == self.manifest.dim and bool(np.isfinite(queries).all())
        )
        require(fits, "queries", f"finite, of shape (num_queries, {self.manifest.dim})", queries.shape)
        scores, rows = self._index.search(queries, min(k, len(self)))
        return [self._matches(*one) for one in zip(rows, scores, strict=True)]

    def require_model(self, model: Encoder) -> None:
        """Refuse a model whose embeddings lie in another space.

        Raises:
            ValueError: its answers are not those of the model that made the embeddings.
        """
        if model is not self._accepted:
            self._probe.require_same(ModelProbe.of(model))
            self._accepted = model

    def _matches(self, rows: Ints, scores: Floats) -> list[Match]:
        found = [(int(row), float(score)) for row, score in zip(rows, scores, strict=True) if row >= 0]
        named = self._names.take([row for row, _ in found]).to_pylist() if found else []
        key = self.manifest.key
        return [Match(own.pop(key), score, own) for own, (_, score) in zip(named, found, strict=True)]


def build(rows: Rows, output: epath.PathLike) -> IndexManifest:
    """Build an index of the rows, measure it, and write it.

    Raises:
        ValueError: no row, or an output with files of others.
    """
    folder = epath.Path(output)
    require(rows.num_rows > 0, "--embeddings", "a folder with at least one embedding", rows.num_rows)
    others = [p.name for p in folder.iterdir() if not _is_ours(p)] if folder.exists() else []
    require(not others, "--output", "a new folder, an empty one or an older index", str(output))
    with sole_writer(output, "--output"):
        index, method = train_index(rows)
        columns: list[pyarrow.Table] = []
        for texts, vectors in rows.parts():
            index.add(np.ascontiguousarray(vectors, np.float32))
            columns.append(pyarrow.table({name: pyarrow.array(values) for name, values in texts.items()}))
        recall = set_groups_read(index, rows) if method != "Flat" else {}
        folder.mkdir(parents=True, exist_ok=True)
        for name in (MANIFEST_NAME, INDEX_NAME, NAMES_NAME):
            (folder / name).unlink(missing_ok=True)
        faiss().write_index(index, str(folder / INDEX_NAME))
        pyarrow.feather.write_feather(
            pyarrow.concat_tables(columns).combine_chunks(),
            str(folder / NAMES_NAME),
            compression="uncompressed",
        )
        manifest = IndexManifest(
            method=method,
            groups_read=getattr(index, "nprobe", 0),
            recall=recall,
            sizes={name: size_of(folder / name) for name in (INDEX_NAME, NAMES_NAME)},
            key=rows.key,
            dim=rows.dim,
            num_rows=rows.num_rows,
            model=dataclasses.asdict(rows.model),
            made_from={**rows.made_from, "versions": {**versions(), "faiss": faiss().__version__}},
        )
        text = json.dumps(dataclasses.asdict(manifest), indent=1) + "\n"
        write_bytes(folder / MANIFEST_NAME, text.encode())
    return manifest


def train_index(rows: Rows) -> tuple[Any, str]:
    """Return an empty index for the rows, and faiss' name of it."""
    inner_product = faiss().METRIC_INNER_PRODUCT
    if rows.num_rows <= EXACT_ROWS:
        return faiss().index_factory(rows.dim, "Flat", inner_product), "Flat"
    num_groups = 2 ** round(math.log2(2 * math.sqrt(rows.num_rows)))
    method = f"IVF{num_groups},SQ8"
    index = faiss().index_factory(rows.dim, method, inner_product)
    wanted = np.random.default_rng(0).choice(
        rows.num_rows, min(rows.num_rows, TRAINING_ROWS * num_groups), replace=False
    )
    index.train(take(rows, wanted))
    return index, method


def take(rows: Rows, wanted: Ints) -> Floats:
    """Embeddings of some rows, float32 (num_wanted, D), in the order of `wanted`."""
    found = np.empty((len(wanted), rows.dim), np.float32)
    order = np.argsort(wanted)
    start, sorted_rows = 0, np.asarray(wanted)[order]
    for _, vectors in rows.parts():
        inside = slice(*np.searchsorted(sorted_rows, [start, start + len(vectors)]))
        found[order[inside]] = vectors[sorted_rows[inside] - start]
        start += len(vectors)
    return found


def trial_queries(rows: Rows) -> dict[str, Floats]:
    """Queries that measure the recall: between two rows, and composed of three, x + y - z."""
    drawn = np.random.default_rng(1).integers(rows.num_rows, size=3 * NUM_TRIALS)
    x, y, z = np.split(take(rows, drawn), 3)
    queries = {"images": x + 0.5 * y, "composed": x + y - z + 1e-3 * x}
    return {name: q / np.linalg.norm(q, axis=1, keepdims=True) for name, q in queries.items()}


def set_groups_read(index: Any, rows: Rows) -> dict[str, float]:
    """Read as many groups as `TARGET_RECALL` needs; return the recall by kind of query."""
    queries = trial_queries(rows)
    exact = {name: nearest_rows(rows, vectors) for name, vectors in queries.items()}
    index.nprobe = 16
    while True:
        found = {name: index.search(vectors, _NEIGHBOURS)[1] for name, vectors in queries.items()}
        recall = {name: recall_of(found[name], exact[name]) for name in queries}
        least = min(recall.values())
        if least >= TARGET_RECALL or index.nprobe >= index.nlist:
            return recall
        index.nprobe *= 2


def nearest_rows(rows: Rows, queries: Floats, k: int = _NEIGHBOURS) -> Ints:
    """The exact answer, int (num_queries, k), by a product with every row."""
    scores, numbers = np.full((len(queries), 0), -np.inf), np.empty((len(queries), 0), np.int64)
    start = 0
    for _, vectors in rows.parts():
        own = np.broadcast_to(np.arange(start, start + len(vectors)), (len(queries), len(vectors)))
        scores = np.concatenate([scores, queries @ vectors.T], axis=1)
        numbers = np.concatenate([numbers, own], axis=1)
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        scores, numbers = np.take_along_axis(scores, best, 1), np.take_along_axis(numbers, best, 1)
        start += len(vectors)
    return numbers


def recall_of(found: Ints, exact: Ints) -> float:
    """Mean share of the exact answers, (num_queries, k), that were found.

    >>> recall_of(np.array([[1, 2], [3, 4]]), np.array([[2, 5], [4, 3]]))
    0.75
    """
    shared = [len(set(own) & set(best)) for own, best in zip(found.tolist(), exact.tolist(), strict=True)]
    return float(np.mean(shared)) / exact.shape[1]


def faiss() -> Any:
    """The library.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import faiss as library
    except ImportError:
        form, advice = "installed with its extra", "pip install 'medclip_keras[search]'"
        raise refusal("faiss", form, "no package faiss", advice) from None
    return library


def _is_ours(path: epath.Path) -> bool:
    return path.name in (INDEX_NAME, NAMES_NAME, MANIFEST_NAME)
