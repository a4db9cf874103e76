"""Folders of embeddings: Parquet shards, and a manifest that says which model and which images they are of.

A shard has a column of keys (`path` of an image file, or `record_key`), further text columns, and
`embedding`, a list of `dim` floats of unit length. `manifest.json` is written last: a folder without it holds
no embeddings.
"""

import dataclasses
import hashlib
import io
import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pyarrow
import pyarrow.parquet
from etils import epath

from medclip_keras.errors import refusal, require
from medclip_keras.evaluation.arrays import Array, Floats
from medclip_keras.files import size_of

MANIFEST_NAME, UNREADABLE_NAME = "manifest.json", "unreadable.jsonl"
EMBEDDING = "embedding"
SAME_ANSWERS = 1e-3  # largest difference between coordinates of one probe, by equal weights on two machines
_PROBE_SENTENCE = "There is a small left pleural effusion."


class Encoder(Protocol):
    """The interface of the object that `medclip_keras.load` returns."""

    @property
    def made_from(self) -> Mapping[str, Any]:
        """Name of the run, `run`, and further provenance."""

    def encode_images(self, images: Any) -> Floats:
        """Embed images: float32 (num_images, D)."""

    def encode_texts(self, texts: Any) -> Floats:
        """Embed sentences: float32 (num_texts, D)."""


@dataclass(frozen=True)
class ModelProbe:
    """A model by its answers: embeddings of one fixed picture and one fixed sentence.

    A workdir, its export and a server of it answer alike, though their files differ; other weights do not.

    Attributes:
        run: name of the model's run.
        image: float (D,), rounded to six decimals.
        text: likewise.
    """

    run: str
    image: tuple[float, ...]
    text: tuple[float, ...]

    @classmethod
    def of(cls, model: Encoder) -> "ModelProbe":
        """Ask a model."""
        image, text = model.encode_images(probe_picture())[0], model.encode_texts(_PROBE_SENTENCE)[0]
        rounded = [tuple(round(float(value), 6) for value in vector) for vector in (image, text)]
        return cls(str(model.made_from.get("run", "")), *rounded)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "ModelProbe":
        """Inverse of `dataclasses.asdict` and JSON."""
        return cls(value["run"], tuple(value["image"]), tuple(value["text"]))

    @property
    def fingerprint(self) -> str:
        """First digits of SHA-256 of the answers, a name for messages; equal models may differ in it."""
        return hashlib.sha256(json.dumps([self.image, self.text]).encode()).hexdigest()[:12]

    def require_same(self, other: "ModelProbe", argument: str = "--model") -> None:
        """Refuse a different model: its embeddings are not comparable.

        Raises:
            ValueError: the answers differ by more than `SAME_ANSWERS`.
        """
        same = len(self.image) == len(other.image) and all(
            np.abs(np.subtract(own, others)).max() <= SAME_ANSWERS
            for own, others in ((self.image, other.image), (self.text, other.text))
        )
        form = f"the model that made the embeddings: run {self.run!r}, fingerprint {self.fingerprint}"
        received = f"run {other.run!r}, fingerprint {other.fingerprint}"
        require(same, argument, form, received, "Embed the images again with this model, or name that one.")


def probe_picture() -> Array:
    """A fixed gray picture with edges and a gradient: uint8 (64, 48)."""
    rows, columns = np.mgrid[:64, :48]
    return ((rows * 3 + (columns // 6 + rows // 9) % 2 * 60) % 256).astype(np.uint8)


@dataclass(frozen=True)
class EmbeddingManifest:
    """Contents and provenance of a folder of embeddings.

    Attributes:
        key: the name of the shards' first column.
        dim: width of the embeddings.
        num_rows: embeddings of all shards.
        model: the `ModelProbe` as JSON types.
        shards: {"name", "num_rows", "num_bytes", "sha256"} of each shard, in order.
        counts: images, embedded and unreadable.
        made_from: input, options, code and versions, and the fingerprint of all that decides the bytes.
    """

    key: str
    dim: int
    num_rows: int
    model: Mapping[str, Any]
    shards: Sequence[Mapping[str, Any]]
    counts: Mapping[str, int] = field(default_factory=dict)
    made_from: Mapping[str, Any] = field(default_factory=dict)
    kind: str = "embeddings"

    @property
    def probe(self) -> ModelProbe:
        """The model's answers."""
        return ModelProbe.from_json(self.model)

    def write(self, directory: epath.PathLike) -> None:
        """Write the manifest, which makes the folder one of embeddings."""
        text = json.dumps(dataclasses.asdict(self), indent=1) + "\n"
        write_bytes(epath.Path(directory) / MANIFEST_NAME, text.encode())

    @classmethod
    def read(cls, directory: epath.PathLike) -> "EmbeddingManifest":
        """Read the manifest of a folder.

        Raises:
            ValueError: no folder of embeddings, or one with a missing or truncated shard.
        """
        path, form = epath.Path(directory) / MANIFEST_NAME, "a folder of embeddings with a manifest.json"
        advice = "Make one with python -m beam_jobs.embed_images; a job that did not finish leaves none."
        require(path.exists(), "embeddings", form, str(directory), advice)
        try:
            manifest = cls(**json.loads(path.read_text()))
        except (json.JSONDecodeError, TypeError):
            raise refusal("embeddings", form, str(directory), advice) from None
        require(manifest.kind == "embeddings", "embeddings", form, manifest.kind, advice)
        for shard in manifest.shards:
            length = size_of(epath.Path(directory) / shard["name"])
            received = f"{shard['name']} of {length} bytes, in the manifest {shard['num_bytes']}"
            require(length == shard["num_bytes"], "embeddings", "a complete folder", received, advice)
        return manifest


def shard_bytes(columns: Mapping[str, Sequence[str]], embeddings: Floats) -> bytes:
    """A Parquet file of text columns and embeddings float32 (n, D); equal values give equal bytes."""
    file = io.BytesIO()
    table = as_table(columns, embeddings)
    pyarrow.parquet.write_table(table, file, use_dictionary=False, compression="zstd")
    return file.getvalue()


def as_table(columns: Mapping[str, Sequence[str]], embeddings: Floats) -> pyarrow.Table:
    """An Arrow table of text columns and of embeddings float32 (n, D), each a list of D floats."""
    values = pyarrow.array(np.ascontiguousarray(embeddings, np.float32).ravel())
    lists = pyarrow.FixedSizeListArray.from_arrays(values, embeddings.shape[1])
    texts = [pyarrow.array(list(texts), pyarrow.string()) for texts in columns.values()]
    return pyarrow.table([*texts, lists], names=[*columns, EMBEDDING])


def read_shards(
    directory: epath.PathLike, manifest: EmbeddingManifest
) -> Iterator[tuple[dict[str, list[str]], Floats]]:
    """The text columns and the embeddings float32 (n, D) of each shard, in order; checksums are compared.

    Raises:
        ValueError: a shard that is not the manifest's.
    """
    for shard in manifest.shards:
        content = (epath.Path(directory) / shard["name"]).read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        form = f"of the manifest's SHA-256 {shard['sha256']}"
        require(digest == shard["sha256"], shard["name"], form, digest, "Embed the images again.")
        table = pyarrow.parquet.read_table(io.BytesIO(content))
        embeddings = table[EMBEDDING].combine_chunks().flatten().to_numpy().reshape(-1, manifest.dim)
        yield {n: table[n].to_pylist() for n in table.column_names if n != EMBEDDING}, embeddings


def write_bytes(path: epath.Path, content: bytes) -> None:
    """Write a file, which takes its name when it is complete."""
    unfinished = path.parent / f"{path.name}.{uuid.uuid4().hex}"
    unfinished.write_bytes(content)
    unfinished.replace(path)
