"""What tests of the data sets share: small image files, and the job's decoding of what a source names.

`dicom_files` is imported by the tests here.
"""

import contextlib
import io
import pathlib
import sys

import numpy as np
import PIL.Image
import pydicom
import pytest
from etils import epath

from medclip_keras.sources.rows import ImageRow

sys.path.append(str(pathlib.Path(__file__).parent))


class _BucketFile:
    """What TensorFlow opens on a bucket: no `closed`, and a `seek` that returns nothing."""

    def __init__(self, file):
        self._file = file

    def read(self, size=-1):
        return self._file.read(size)

    def seek(self, offset, whence=0):
        self._file.seek(offset, whence)

    def tell(self):
        return self._file.tell()


@pytest.fixture
def like_a_bucket(monkeypatch):
    """Paths open local files as they open those of a bucket: as a context that has a file and is none."""

    @contextlib.contextmanager
    def open_file(path, mode="r"):
        with open(path, mode) as file:
            yield _BucketFile(file)

    monkeypatch.setattr(type(epath.Path("/")), "open", open_file)


@pytest.fixture(scope="session")
def dicom_file():
    """A function: pixels of 8 bits or more, bits that they use, further elements → an uncompressed file."""

    def make(pixels: np.ndarray, bits: int = 8, **elements) -> bytes:
        dataset = pydicom.Dataset()
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        dataset.SOPClassUID, dataset.SOPInstanceUID = pydicom.uid.SecondaryCaptureImageStorage, "1.2.3"
        dataset.Rows, dataset.Columns = pixels.shape
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8 * pixels.itemsize, bits, bits - 1
        dataset.PixelRepresentation, dataset.PixelData = 0, pixels.tobytes()
        dataset.update(elements)
        file = io.BytesIO()
        dataset.save_as(file, enforce_file_format=True)
        return file.getvalue()

    return make


@pytest.fixture(scope="session")
def image_file(dicom_file):
    """A function: seed, format → an image file of noise."""

    def make(seed: int, kind: str = "png") -> bytes:
        pixels = np.random.default_rng(seed).integers(0, 256, (20, 28), np.uint8)
        if kind == "dicom":
            return dicom_file(pixels)
        file = io.BytesIO()
        PIL.Image.fromarray(pixels).save(file, kind)
        return file.getvalue()

    return make


@pytest.fixture
def archive(request, tmp_path, image_file):
    """The folder that the test module's `write_layout` writes."""
    return request.module.write_layout(tmp_path, image_file)


@pytest.fixture(scope="session")
def decoded():
    """A function: source, path → {image_id: its stated concepts, or the reason why it is a bad row}.

    Stated are positive, negative and uncertain concepts, as a dict of name to state.
    It decodes as the job does, without a pipeline.
    """
    from beam_jobs.dataset.sharding import key_row, reason_of
    from beam_jobs.decode_images import DecodeImage, DecodeOptions
    from medclip_keras.knowledge.concepts import load_table
    from medclip_keras.knowledge.states import is_stated

    def decode(source, path, concepts="thorax") -> dict[str, dict | str]:
        table = load_table(concepts)
        options = DecodeOptions(source="csv", input=str(path), output=f"{path}-records", image_size=16)
        make = DecodeImage(source.read_image, table, options.image_size)

        def outcome(row: ImageRow) -> dict | str:
            try:
                record = make(key_row(row, options)).record
            except Exception as error:  # as the job takes them
                return reason_of(error)
            assert record["image"].std() > 10  # noise, not a black square
            states = record["label_states"]
            return {table.names[k]: int(states[k]) for k in np.flatnonzero(is_stated(states))}

        return {row.image_id: outcome(row) for row in source.image_rows(path)}

    return decode
