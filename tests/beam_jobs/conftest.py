"""A small archive of our own: images and reports in one folder, with a table of rows."""

import csv
import dataclasses
import io
import pathlib
import types

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from beam_jobs import label_reports
from medclip_keras.knowledge.concepts import ConceptTable, load_table
from medclip_keras.knowledge.sections import Section
from medclip_keras.knowledge.states import LabelState
from medclip_keras.records.manifest import read_manifest
from medclip_keras.sources.rows import ImageRow, ReportRow

_STATE = {"1": LabelState.POSITIVE, "0": LabelState.NEGATIVE}


def png_bytes(seed: int, width: int = 20, height: int = 14) -> bytes:
    """A PNG file of noise; another seed, another picture."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8)
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def image_rows(path):
    with open(pathlib.Path(path) / "images.csv") as file:
        for row in csv.DictReader(file):
            labels = (
                {"Edema": _STATE[row["edema"]], "Unheard Of": LabelState.POSITIVE} if row["edema"] else {}
            )
            file_path = str(pathlib.Path(path) / "images" / row["image"])
            yield ImageRow(
                row["image"], row["study"], row["patient"], file_path, "frontal", labels, row["split"]
            )


def read_image(row):
    return pathlib.Path(row.path).read_bytes()


def report_rows(path):
    for file in sorted(pathlib.Path(path, "reports").iterdir()):
        patient, _ = file.stem.split("-")
        yield ReportRow(file.stem, file.stem, patient, str(file))


def read_report(row):
    text = pathlib.Path(row.path).read_bytes().decode()
    return (Section("findings", text),) if text else ()


@pytest.fixture
def source():
    """The module that reads the archive."""
    module = types.ModuleType("small")
    module.__file__ = __file__
    for function in (image_rows, read_image, report_rows, read_report):
        setattr(module, function.__name__, function)
    module.CITATION, module.LICENCE = "Small et al., 2026", "CC0"
    return module


@pytest.fixture(scope="session")
def concepts(tmp_path_factory):
    """The file of a table of few concepts: a labeller of all of them takes two seconds to make."""
    few = ("Edema", "Cardiomegaly", "Pleural Effusion", "Pneumothorax", "Pneumonia")
    table = load_table("chest21")
    rows = (dataclasses.replace(table.concepts[table.index(name)], parents=()) for name in few)
    path = tmp_path_factory.mktemp("concepts") / "few.jsonl"
    path.write_text(ConceptTable("few", tuple(rows)).to_jsonl())
    return str(path)


class Archive:
    """Writes the archive's files."""

    def __init__(self, path: pathlib.Path):
        self.path = path
        (path / "images").mkdir(parents=True)
        (path / "reports").mkdir()
        self._rows = []
        self.write_table()

    def add_image(self, patient: int, study: int, edema: str = "", split: str = "") -> pathlib.Path:
        name = f"{patient}-{study}-{len(self._rows)}.png"
        path = self.path / "images" / name
        path.write_bytes(png_bytes(len(self._rows)))
        self._rows.append((name, f"{patient}-{study}", patient, edema, split))
        self.write_table()
        return path

    def write_table(self):
        with open(self.path / "images.csv", "w") as file:
            csv.writer(file).writerows([("image", "study", "patient", "edema", "split"), *self._rows])

    def add_report(self, patient: int, study: int, text: str) -> pathlib.Path:
        path = self.path / "reports" / f"{patient}-{study}.txt"
        path.write_text(text)
        return path


@pytest.fixture
def archive(tmp_path):
    return Archive(tmp_path / "archive")


def files_of(directory) -> dict[str, bytes]:
    """Name and content of everything below a folder."""
    paths = sorted(path for path in pathlib.Path(directory).rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in paths}


@pytest.fixture
def contents():
    return files_of


@pytest.fixture(scope="session")
def records_of():
    """A function: folder → its records, shard by shard."""

    def read(directory):
        manifest = read_manifest(directory)
        for name in manifest.shard_names:
            for record in tf.data.TFRecordDataset(str(pathlib.Path(directory) / name)):
                yield tfds.as_numpy(manifest.features.deserialize_example(record))

    return read


@pytest.fixture
def job(archive, source, concepts, monkeypatch, tmp_path):
    """Runs label_reports on the small archive."""
    monkeypatch.setattr(label_reports, "get_source", lambda name: source)

    def run(**options):
        output = options.pop("output", str(tmp_path / "records"))
        options = {"concepts": concepts, **options}
        return label_reports.run(source="small", input=str(archive.path), output=output, **options)

    return run
