"""DICOM files in memory: whole, compressed, and with headers of every kind."""

import io

import imagecodecs
import numpy as np
import pydicom
from PIL import Image
from pydicom import uid
from pydicom.encaps import encapsulate

from medclip_keras.sources import dicom, dicom_jpeg

STORED = np.arange(0, 4096, 35, np.uint16)[:112].reshape(8, 14)  # 12 bits: 0, 35, … 3885
SECRETS = {"PatientName": "Doe^Jane", "PatientID": "ID-4711", "StudyDate": "20200229"}
LOSSLESS = [uid.RLELossless, uid.JPEG2000Lossless, uid.JPEGLSLossless, uid.JPEGLossless, uid.JPEGLosslessSV1]


def make(stored=STORED, bits=12, photometric="MONOCHROME2", **elements):
    """A DICOM file in memory, with a patient in its header."""
    file = pydicom.Dataset()
    file.file_meta = pydicom.dataset.FileMetaDataset()
    file.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    file.SOPClassUID, file.SOPInstanceUID = uid.DigitalXRayImageStorageForPresentation, uid.generate_uid()
    file.Rows, file.Columns = stored.shape[:2]
    file.SamplesPerPixel, file.PhotometricInterpretation = 3 if stored.ndim == 3 else 1, photometric
    if stored.ndim == 3:
        file.PlanarConfiguration = 0
    file.BitsAllocated, file.BitsStored, file.HighBit = 8 * stored.itemsize, bits, bits - 1
    file.PixelRepresentation = int(np.issubdtype(stored.dtype, np.signedinteger))
    file.update({**SECRETS, **elements})
    file.PixelData = stored.tobytes()
    return file


def to_bytes(file):
    buffer = io.BytesIO()
    file.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def decode(file, **options):
    picture = dicom.decode_dicom(file if isinstance(file, bytes) else to_bytes(file), **options)
    assert picture.dtype == np.uint16
    return picture.astype(int)


def compress(file, syntax):
    """The bytes of a file whose pixels are compressed."""
    if syntax in (uid.JPEGBaseline8Bit, *dicom_jpeg.SYNTAXES):
        encapsulate_frame(file, syntax, encode_jpeg(file.pixel_array, file.BitsStored, syntax))
    else:
        file.compress(syntax, generate_instance_uid=False)
    return to_bytes(file)


def encapsulate_frame(file, syntax, frame):
    file.PixelData = encapsulate([frame])
    file["PixelData"].VR = "OB"
    file.file_meta.TransferSyntaxUID = syntax


def encode_jpeg(stored, bits, syntax):
    """The stored values as a JPEG file; of negative ones, the lowest bits, as PS3.5 8.2.1 keeps them."""
    if syntax == uid.JPEGBaseline8Bit:
        jpeg = io.BytesIO()
        Image.fromarray(stored).save(jpeg, "JPEG", quality=95)
        return jpeg.getvalue()
    values = (stored.astype(np.int64) % 2**bits).astype(np.uint8 if bits <= 8 else np.uint16)
    if syntax == uid.JPEGLossless:  # by another encoder, with another predictor
        return imagecodecs.ljpeg_encode(values, bitspersample=bits)
    options = {"level": 98} if syntax == uid.JPEGExtended12Bit else {"lossless": True, "predictor": 1}
    return imagecodecs.jpeg8_encode(values, bitspersample=bits, **options)


def encode_frame(cells, bits, syntax):
    """Cells without a sign as a codestream of a precision, whatever the header says."""
    if syntax in dicom_jpeg.SYNTAXES:
        return encode_jpeg(cells, bits, syntax)
    if syntax == uid.JPEGLSLossless:
        return imagecodecs.jpegls_encode(cells)
    return imagecodecs.jpeg2k_encode(cells, reversible=True, level=0, codecformat="j2k")


STRETCHED = np.round(STORED / 3885 * 65535)
