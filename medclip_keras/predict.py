"""Score images without labels: `python -m medclip_keras.predict`.

    python -m medclip_keras.predict --model MODELS_DIR/1 --images FOLDER \\
        --findings "Edema,Pleural Effusion" --output scores.csv

Three files are written: scores.csv has a row an image, a column a class; scores.csv.unreadable.csv lists the
files that cannot be read, with their reasons; scores.csv.json says what the scores were made from. When a
stopped command is given again, it goes on where it was, and its files have the same bytes.
"""

import argparse
import csv
import glob
import json
import os
import pathlib
import shutil
import sys
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet
from rich.console import Console

from medclip_keras.command import new_parser, run_command
from medclip_keras.embeddings import as_table
from medclip_keras.errors import refusal, require
from medclip_keras.evaluation.class_scores import MODES
from medclip_keras.evaluation.prompts import read_prompts
from medclip_keras.inference import Classifier, InferenceModel, Prompts, load
from medclip_keras.locks import sole_writer
from medclip_keras.provenance import sha256_of, versions
from medclip_keras.sources.dicom import ALLOW_ANNOTATION
from medclip_keras.sources.files import is_hidden
from medclip_keras.sources.tables import read_table

SUFFIXES = (".png", ".jpg", ".jpeg", ".dcm", ".dicom")
_SUFFIXES = ", ".join(SUFFIXES)
IMAGES_PER_CHUNK = 256  # a stopped command repeats at most one chunk
SECONDS_BETWEEN_LINES = 10

Parts = Callable[[], Iterator[tuple[np.ndarray, np.ndarray]]]  # each chunk's paths (n,) and embeddings (n, D)


def list_images(images: str, console: Console, argument: str = "--images") -> dict[str, str]:
    """List the image files of a folder (with all below it), a pattern, or a table with a column `path`.

    Folders are followed through links; hidden files and folders, such as `._1.png`, are left out. Files of a
    folder with other suffixes, and rows without a path, are counted on the console.

    Returns:
        {name: path}, sorted for a folder and a pattern. The name is the path, for a table as it is written
        there, relative to the table's folder.

    Raises:
        ValueError: no image, a table without the column, or an image that is there twice.
    """
    place = pathlib.Path(images)
    if place.is_dir():
        files = list(_files_below(place))
        names = sorted(str(path) for path in files if path.suffix.lower() in SUFFIXES)
        paths, passed_over = {name: name for name in names}, f"files with other suffixes than {_SUFFIXES}"
        num_passed_over = len(files) - len(names)
    elif place.suffix.lower() == ".csv" and place.is_file():
        rows = list(read_table(place, ("path",)))
        paths = {row["path"]: str(place.parent / row.image_name()) for row in rows if row["path"]}
        passed_over, num_passed_over = "rows without a path", sum(not row["path"] for row in rows)
        twice = len(rows) - num_passed_over - len(paths)
        require(not twice, argument, "a table that names each image once", f"{twice} rows of named images")
    else:
        names = [images] if place.is_file() else sorted(glob.glob(images, recursive=True))
        paths = {name: name for name in names if os.path.isfile(name)}
        num_passed_over = 0
    form = "a folder, a pattern or a CSV file that names at least one image"
    require(bool(paths), argument, form, images, f"A folder is searched for {_SUFFIXES}.")
    if num_passed_over:
        console.print(f"Passed over: {num_passed_over} {passed_over}.", highlight=False, soft_wrap=True)
    return paths


def _files_below(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Files of a folder and of those in it, through links too, each folder once; hidden ones are left out."""
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        folders[:] = [] if real in seen else sorted(name for name in folders if not is_hidden(name))
        found = (pathlib.Path(place, name) for name in names if real not in seen and not is_hidden(name))
        yield from (path for path in found if path.is_file())
        seen.add(real)


@dataclass(frozen=True)
class Prediction:
    """A `predict` command.

    Attributes:
        model: embeds the images.
        classifier: scores their embeddings.
        images: {name: path}, in the order of the rows.
        output: the CSV file of the scores.
        embeddings: the .npz or .parquet file of the embeddings, or None.
        max_bad_fraction: the command fails if a larger share of the files cannot be read.
        made_from: everything that decides the scores, as JSON types.
    """

    model: InferenceModel
    classifier: Classifier
    images: Mapping[str, str]
    output: pathlib.Path
    embeddings: pathlib.Path | None
    max_bad_fraction: float
    made_from: Mapping[str, Any]

    @property
    def chunks(self) -> pathlib.Path:
        """The folder of the finished chunks; it is removed at the end."""
        return _beside(self.output, ".chunks")

    def run(self, console: Console) -> None:
        """Score every image that no earlier start of the same command has scored.

        Raises:
            ValueError: an output of another command, or too many unreadable files.
        """
        record = _beside(self.output, ".json")
        if record.exists() and self.output.exists():
            self._require_same(json.loads(record.read_text()), record)
            console.print(f"{self.output} holds these scores already.", highlight=False, soft_wrap=True)
            return
        claim = self.chunks / "made_from.json"
        if claim.exists():
            self._require_same(json.loads(claim.read_text()), self.chunks)
        else:
            self.chunks.mkdir(parents=True, exist_ok=True)
            _write(claim, json.dumps(self.made_from))
        num_bad = self._score(console)
        self._write_scores()
        if self.embeddings:
            written = _beside(self.embeddings, ".tmp")
            WRITERS[self.embeddings.suffix](written, self._readable, self.model.config.model.projection_dim)
            os.replace(written, self.embeddings)
        counts = {"images": len(self.images), "unreadable": num_bad}
        _write(record, json.dumps({**self.made_from, "counts": counts}, indent=2) + "\n")
        shutil.rmtree(self.chunks)
        done = f"{len(self.images) - num_bad} images scored, {num_bad} unreadable: {self.output}"
        console.print(done, highlight=False, soft_wrap=True)

    def _require_same(self, earlier: Mapping[str, Any], place: pathlib.Path) -> None:
        differing = [name for name, value in self.made_from.items() if earlier.get(name) != value]
        form = "a new file, or that of an equal command"
        advice = f"{place} was made with other {', '.join(differing)}. Name another file, or delete it."
        require(not differing, "--output", form, str(self.output), advice)

    def _score(self, console: Console) -> int:
        """Write the missing chunks; return the number of unreadable files."""
        names, began, last_line, num_scored, num_bad = list(self.images), time.monotonic(), 0.0, 0, 0
        for start in range(0, len(names), IMAGES_PER_CHUNK):
            chunk = names[start : start + IMAGES_PER_CHUNK]
            path = self.chunks / f"{start:09d}.npz"
            if not path.exists():
                self._score_chunk(chunk, path)
                num_scored += len(chunk)
            with np.load(path) as content:
                num_bad += int(np.count_nonzero(content["reasons"]))
            self._refuse_bad(num_bad)
            if num_scored and time.monotonic() - last_line > SECONDS_BETWEEN_LINES:
                last_line = time.monotonic()
                rate, done = num_scored / (last_line - began), start + len(chunk)
                left = time.strftime("%H:%M:%S", time.gmtime((len(names) - done) / rate))
                console.print(
                    f"{done}/{len(names)} images, {rate:.0f} images/s, {left} left", highlight=False
                )
        return num_bad

    def _score_chunk(self, names: Sequence[str], path: pathlib.Path) -> None:
        embeddings, reasons = self.model.encode_readable([self.images[name] for name in names])
        written = path.with_suffix(".tmp")
        with written.open("wb") as stream:
            scores = self.classifier(embeddings)
            np.savez(stream, names=names, reasons=reasons, scores=scores, embeddings=embeddings)
        os.replace(written, path)

    def _refuse_bad(self, num_bad: int) -> None:
        if num_bad > self.max_bad_fraction * len(self.images):
            share = f"{self.max_bad_fraction} for {num_bad} unreadable of {len(self.images)} files"
            advice = f"{self._write_unreadable()} lists them. A larger fraction goes on from here."
            raise refusal("--max_bad_fraction", "at least the share of unreadable files", share, advice)

    def _finished(self) -> Iterator[dict[str, np.ndarray]]:
        for path in sorted(self.chunks.glob("*.npz")):
            with np.load(path) as chunk:
                yield dict(chunk)

    def _readable(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Names (n,) and embeddings (n, D) of the readable images of each chunk."""
        for chunk in self._finished():
            yield chunk["names"][chunk["reasons"] == ""], chunk["embeddings"]

    def _write_scores(self) -> None:
        def rows() -> Iterator[Sequence[object]]:
            yield ("path", *self.classifier.classes)
            for chunk in self._finished():
                readable = chunk["names"][chunk["reasons"] == ""]
                for name, scores in zip(readable, chunk["scores"], strict=True):
                    yield (name, *(f"{score:.6g}" for score in scores))

        _write_csv(self.output, rows())
        self._write_unreadable()

    def _write_unreadable(self) -> pathlib.Path:
        def rows() -> Iterator[Sequence[object]]:
            yield ("path", "reason")
            for chunk in self._finished():
                bad = chunk["reasons"] != ""
                yield from zip(chunk["names"][bad], chunk["reasons"][bad], strict=True)

        path = _beside(self.output, ".unreadable.csv")
        _write_csv(path, rows())
        return path


def _write_parquet(path: pathlib.Path, parts: Parts, dim: int) -> None:
    """A table of `path` and `embedding`, a list of `dim` floats; a row group a chunk."""
    with pyarrow.parquet.ParquetWriter(path, as_table({"path": []}, np.empty((0, dim))).schema) as writer:
        for names, embeddings in parts():
            writer.write_table(as_table({"path": names.tolist()}, embeddings))


def _write_npz(path: pathlib.Path, parts: Parts, dim: int) -> None:
    """Arrays `paths` (num_readable,) and `embeddings` (num_readable, dim), written a chunk at a time."""
    names = [names for names, _ in parts()]
    dtype, num_rows = max(part.dtype for part in names), sum(map(len, names))
    with zipfile.ZipFile(path, "w") as archive:
        for name, column, kind, shape in (
            ("paths", 0, dtype, ()),
            ("embeddings", 1, np.dtype("<f4"), (dim,)),
        ):
            member = zipfile.ZipInfo(f"{name}.npy")  # without the time: the bytes depend on the content alone
            with archive.open(member, "w", force_zip64=True) as stream:
                header = {"descr": kind.str, "fortran_order": False, "shape": (num_rows, *shape)}
                np.lib.format.write_array_header_1_0(stream, header)
                for part in parts():
                    stream.write(part[column].astype(kind).tobytes())


WRITERS = {".npz": _write_npz, ".parquet": _write_parquet}


def predict(options: argparse.Namespace) -> None:
    """Score the images that the command line names.

    Raises:
        ValueError: a wrong option, before an image is read; an output of another command; too many
            unreadable files.
    """
    share, embeddings = options.max_bad_fraction, options.embeddings
    require(0 <= share <= 1, "--max_bad_fraction", "in [0, 1]", share)
    form = f"a file that ends in {' or '.join(WRITERS)}"
    require(embeddings is None or embeddings.suffix in WRITERS, "--embeddings", form, str(embeddings))
    for file in filter(None, (options.output, embeddings)):
        usable = file.parent.is_dir() and not file.is_dir()
        require(usable, "--output", "a file in an existing folder", str(file))
    os.environ[ALLOW_ANNOTATION] = str(int(options.allow_annotation))
    console = Console()
    images = list_images(options.images, console)
    findings = [name.strip() for name in options.findings.split(",") if name.strip()]
    prompts: Prompts = read_prompts(options.prompts) if options.prompts else findings
    model = load(options.model)
    classifier = model.classifier(prompts, mode=options.mode, contrast=options.contrast)
    made_from = {
        "model": model.made_from,
        "images": {"named": options.images, "sha256": sha256_of(list(images))},
        "classes": list(classifier.classes),
        "prompts": sha256_of([classifier.prompts.classes, classifier.prompts.texts]),
        "mode": options.mode,
        "contrast": options.contrast,
        "allow_annotation": options.allow_annotation,
        "embeddings": str(embeddings or ""),
        "versions": versions(),
    }
    prediction = Prediction(model, classifier, images, options.output, embeddings, share, made_from)
    with sole_writer(options.output, "--output"):
        prediction.run(console)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = new_parser("medclip_keras.predict", __doc__.partition(":")[2])
    add = parser.add_argument
    add(
        "--model", required=True, metavar="PATH", help="a workdir, an exported version, or a server's address"
    )
    add("--images", required=True, help="a folder, a pattern, or a CSV file with a column path")
    classes = parser.add_mutually_exclusive_group(required=True)
    classes.add_argument("--prompts", default="", metavar="JSON", help="{class: [prompt, …]}")
    classes.add_argument("--findings", default="", metavar="NAME,…", help="findings with shipped prompts")
    add("--output", required=True, metavar="CSV", type=pathlib.Path, help="receives the scores")
    add("--embeddings", metavar="FILE", type=pathlib.Path, help="receives the embeddings, .npz or .parquet")
    add("--mode", default="ensemble", choices=MODES, help="maximum or mean of a class's prompts")
    add(
        "--contrast",
        default="normal",
        choices=["normal", "none"],
        help="whether to subtract the normal prompts",
    )
    add(
        "--max_bad_fraction",
        type=float,
        default=0.01,
        help="allowed share of unreadable files (default 0.01)",
    )
    add("--allow_annotation", action="store_true", help="accept DICOM files with words burned into the image")
    options = parser.parse_args(argv)
    return run_command("medclip_keras.predict", lambda: predict(options))


def _beside(path: pathlib.Path, suffix: str) -> pathlib.Path:
    return path.with_name(path.name + suffix)


def _write(path: pathlib.Path, text: str) -> None:
    written = _beside(path, ".tmp")
    written.write_text(text)
    os.replace(written, path)


def _write_csv(path: pathlib.Path, rows: Iterable[Sequence[object]]) -> None:
    written = _beside(path, ".tmp")
    with written.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, lineterminator="\n").writerows(rows)
    os.replace(written, path)


if __name__ == "__main__":
    sys.exit(main())
