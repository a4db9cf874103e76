"""DICOM radiographs → PNG bytes, as every source hands images on; nothing of the header but a picture leaves.

`read_image_file` is what a source's `read_image` calls: JPEG and PNG files pass as they are, DICOM files become
gray PNG. A file whose header says that names or dates are burned into its pixels is refused, unless the
environment variable MEDCLIP_ALLOW_ANNOTATION is 1 where the images are decoded.
"""

from etils import epath

ALLOW_ANNOTATION = "MEDCLIP_ALLOW_ANNOTATION"


def dicom_to_png(file_bytes: bytes, *, allow_annotation: bool = False) -> bytes:
    """Decodes a DICOM radiograph to a gray PNG file in which black is what the screen shows black.

    Args:
        file_bytes: the whole file, of any transfer syntax.
        allow_annotation: take files whose header says BurnedInAnnotation YES as well.

    Returns:
        A PNG file, gray, 8 bits a pixel or 16 bits of full range; it holds nothing but the pixels.

    Raises:
        BadRowError: not DICOM, truncated, no single picture, a transfer syntax that cannot be read, or burned-in
            annotation.
    """
    raise NotImplementedError


def read_image_file(path: epath.PathLike) -> bytes:
    """A JPEG or PNG file as it is, a DICOM file as PNG.

    Raises:
        OSError: the file cannot be read.
        BadRowError: see `dicom_to_png`.
    """
    raise NotImplementedError


def view_of_file(path: epath.PathLike) -> str:
    """ "frontal" or "lateral" by the header of a DICOM file, "" where it does not say; reads no pixels."""
    raise NotImplementedError
