"""The log of a run: TensorBoard's events and training.jsonl, without a duplicate point after a resume.

A line of training.jsonl is one point: {"kind": "train", "step": 20, "loss": 1.2, …}; the kinds are train,
valid and zero_shot.
"""

import contextlib
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from etils import epath

from medclip_keras.files import write_whole

LOG_FILE = "training.jsonl"
BOARD = "tensorboard/training"  # folder of the scalars; without a folder TensorBoard calls the run "."


class RunLog:
    """The log of the run in `workdir` from `start_step` on; opening it deletes later points.

    A context manager, which closes the files.
    """

    def __init__(self, workdir: epath.PathLike, start_step: int):
        workdir = epath.Path(workdir)
        drop_later_lines(workdir / LOG_FILE, start_step)
        for folder in {(workdir / BOARD).parent, workdir / BOARD}:  # earlier versions wrote into the first
            for path in sorted(folder.glob("events.out.tfevents.*")):
                drop_later_events(path, start_step)
        self._writer = tf.summary.create_file_writer(str(workdir / BOARD))
        self._opened = contextlib.ExitStack()  # on a bucket `open` gives no file, but a context with one
        self._lines = self._opened.enter_context((workdir / LOG_FILE).open("a"))

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(self, *error: object) -> None:
        self._opened.close()
        self._writer.close()

    def scalars(self, kind: str, step: int, values: Mapping[str, Any]) -> None:
        """Log scalars: TensorBoard's "kind/name", and one line."""
        line: dict[str, Any] = {"kind": kind, "step": step}
        with self._writer.as_default(step=step):
            for name, value in values.items():
                tf.summary.scalar(f"{kind}/{name}", value)
                line[name] = number if math.isfinite(number := float(value)) else None
        self._lines.write(json.dumps(line) + "\n")
        self._lines.flush()

    def image(self, name: str, step: int, image: np.ndarray) -> None:
        """Log an image uint8 (1, H, W, 4) in TensorBoard."""
        with self._writer.as_default(step=step):
            tf.summary.image(name, image)

    def flush(self) -> None:
        """Write every point to its file; called before a checkpoint is saved, so that none is missing."""
        self._lines.flush()
        self._writer.flush()


def last_step(workdir: epath.PathLike) -> int:
    """The last step of training.jsonl; 0 without one."""
    return max((line["step"] for line in read_lines(epath.Path(workdir) / LOG_FILE)), default=0)


def read_lines(path: epath.PathLike) -> list[dict[str, Any]]:
    """Complete lines of training.jsonl; a killed process may have cut the last one."""
    path = epath.Path(path)
    found = []
    for text in path.read_text().splitlines() if path.exists() else ():
        try:
            found.append(json.loads(text))
        except ValueError:
            continue
    return found


def drop_later_lines(path: epath.Path, step: int) -> None:
    """Delete the lines of later steps, and a line that a killed process cut."""
    if path.exists():
        kept = [json.dumps(line) + "\n" for line in read_lines(path) if line["step"] <= step]
        if (text := "".join(kept)) != path.read_text():
            write_whole(path, text)


def drop_later_events(path: epath.Path, step: int) -> None:
    """Delete the points of later steps from an event file of TensorBoard, and the file if none is left."""
    events = list(_events(path))
    kept = [event for event in events if event.step <= step]
    if len(kept) == len(events):
        return
    if not any(event.HasField("summary") for event in kept):
        path.unlink()
        return
    beside = path.with_name(f".{path.name}")
    with tf.io.TFRecordWriter(str(beside)) as writer:
        for event in kept:
            writer.write(event.SerializeToString())
    beside.replace(path)


def _events(path: epath.Path) -> Iterator[Any]:
    """Events of a file up to the first damaged one."""
    try:
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            yield tf.compat.v1.Event.FromString(record)
    except tf.errors.DataLossError:
        return
