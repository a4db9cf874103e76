"""The steps: decode a part, embed it by Beam's RunInference, write its shard."""

import hashlib
import itertools
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow as tf
from apache_beam.ml.inference.base import ModelHandler, PredictionResult
from etils import epath

from beam_jobs.dataset.local_workers import end_with_job
from beam_jobs.embedding.plan import Part, Workplace
from medclip_keras import embeddings
from medclip_keras.errors import require
from medclip_keras.inference import IMAGES_AT_ONCE, InferenceModel, load, read_square
from medclip_keras.records import schema
from medclip_keras.sources.dicom import ALLOW_ANNOTATION

RECORD_COLUMNS = ("record_key", "study_id", "patient_id", "split")
_models: dict[str, InferenceModel] = {}  # of this process


@dataclass(frozen=True)
class Pictures:
    """A part, decoded.

    Attributes:
        part: where it is from.
        columns: text columns of the readable images.
        squares: uint8 (num_readable, S, S, 1).
        bad: {key column: name, "reason": sentence} of each unreadable image.
    """

    part: Part
    columns: Mapping[str, Sequence[str]] = field(repr=False)
    squares: np.ndarray = field(repr=False)
    bad: Sequence[Mapping[str, str]] = ()


class ReadPicturesFn(beam.DoFn):
    """Decode the images of a part; an unreadable one is listed with its reason."""

    def __init__(self, workplace: Workplace, image_size: int, allow_annotation: bool):
        self._workplace, self._size, self._allow_annotation = workplace, image_size, allow_annotation

    def setup(self):
        """Tie a local worker to its job."""
        end_with_job()
        os.environ[ALLOW_ANNOTATION] = str(int(self._allow_annotation))

    def process(self, part):
        """Decode one part, which is a batch of RunInference."""
        yield [read_records(part, self._size) if part.records else self._read_files(part)]

    def _read_files(self, part: Part) -> Pictures:
        names, paths = json.loads(self._workplace.listing(part.index).read_text())
        with ThreadPoolExecutor(os.cpu_count()) as decoders:
            read = list(decoders.map(self._read, paths))
        bad = [
            {"path": name, "reason": square}
            for name, square in zip(names, read, strict=True)
            if isinstance(square, str)
        ]
        readable = [not isinstance(square, str) for square in read]
        squares = np.zeros((sum(readable), self._size, self._size, 1), np.uint8)
        for row, square in enumerate(itertools.compress(read, readable)):
            squares[row] = square
        return Pictures(part, {"path": list(itertools.compress(names, readable))}, squares, bad)

    def _read(self, path: str) -> np.ndarray | str:
        try:
            return read_square(path, self._size)
        except ValueError as error:
            return str(error)
        except Exception as error:  # a file may hold anything: never a crash, never silence
            return f"it cannot be read ({type(error).__name__})"


def read_records(part: Part, image_size: int) -> Pictures:
    """Read the pixels and keys of some records of a shard.

    Raises:
        ValueError: a damaged shard.
    """
    place = part.records
    features = schema.image_features(image_size, place["num_findings"])
    records = tf.data.TFRecordDataset(place["path"]).skip(place["start"]).take(part.num_images)
    try:
        serialized = list(records.as_numpy_iterator())
    except tf.errors.DataLossError:
        serialized = []
    form, advice = f"a shard with {part.num_images} records there", "Run beam_jobs.decode_images again."
    name = epath.Path(place["path"]).name
    require(len(serialized) == part.num_images, "input", form, f"{name}, damaged", advice)
    batch = schema.parse_batch(features, tf.constant(serialized), (*RECORD_COLUMNS, "image"))
    columns = {name: [text.decode() for text in batch[name].numpy()] for name in RECORD_COLUMNS}
    return Pictures(part, columns, batch["image"].numpy())


class EmbeddingHandler(ModelHandler[Pictures, PredictionResult, InferenceModel]):
    """RunInference's handler of a workdir or a SavedModel, which a process loads once.

    An example is a whole part and is no further batched: its images are always embedded in the same batches,
    so that a repeated step gives the same bits.
    """

    def __init__(self, model: str):
        super().__init__()
        self._model = model

    def load_model(self) -> InferenceModel:
        """Load the model, or take that of this process."""
        return load_once(self._model)

    def run_inference(
        self,
        batch: Sequence[Pictures],
        model: InferenceModel,
        inference_args: dict[str, Any] | None = None,
    ) -> Iterable[PredictionResult]:
        """Embed parts: float32 (num_readable, D) each."""
        for pictures in batch:
            squares = pictures.squares
            starts = range(0, len(squares), IMAGES_AT_ONCE)
            embedded = [model.encode_stored_images(squares[i : i + IMAGES_AT_ONCE]) for i in starts]
            empty = np.empty((0, model.config.model.projection_dim), np.float32)
            yield PredictionResult(pictures, np.concatenate([empty, *embedded]))

    def should_skip_batching(self) -> bool:
        """Elements are lists of one part."""
        return True

    def get_num_bytes(self, batch: Sequence[Pictures]) -> int:
        """Bytes of the pixels; Beam's default pickles them to count."""
        return sum(pictures.squares.nbytes for pictures in batch)


def load_once(path: str) -> InferenceModel:
    """Load a model, once a process."""
    if path not in _models:
        _models[path] = load(path)
    return _models[path]


class WriteShardFn(beam.DoFn):
    """Write a shard, then its summary, which makes it a finished one."""

    def __init__(self, workplace: Workplace):
        self._workplace = workplace

    def process(self, result):
        """Write one shard."""
        pictures, index = result.example, result.example.part.index
        content = embeddings.shard_bytes(pictures.columns, result.inference)
        name = self._workplace.shard_name(index)
        embeddings.write_bytes(self._workplace.dataset / name, content)
        entry = {"name": name, "num_rows": len(result.inference), "num_bytes": len(content)}
        entry["sha256"] = hashlib.sha256(content).hexdigest()
        summary = json.dumps({"shard": entry, "bad": list(pictures.bad)})
        embeddings.write_bytes(self._workplace.summary(index), summary.encode())
        yield index
