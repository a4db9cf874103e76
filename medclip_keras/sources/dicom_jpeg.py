"""Decode lossless and 12-bit JPEG for pydicom, whose own plug-ins for them are under the GPL.

Importing this module adds a decoder named `PLUGIN` to pydicom for each of `SYNTAXES`. It is libjpeg-turbo as
`imagecodecs` brings it. `jpegsof3_decode` of the same package is no choice: it crashes on pictures cut short.
"""

from importlib.util import find_spec

from pydicom.pixels import get_decoder
from pydicom.pixels.decoders.base import DecodeRunner
from pydicom.uid import UID, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1

PLUGIN = "imagecodecs"
SYNTAXES = (JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1)
DECODER_DEPENDENCIES = dict.fromkeys(SYNTAXES, ("imagecodecs>=2025.3",))  # pydicom asks for it by this name

_START_OF_SCAN, _END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"


def is_available(uid: UID) -> bool:
    """Whether the decoder handles a transfer syntax; pydicom's interface of a plug-in."""
    return uid in SYNTAXES and find_spec("imagecodecs") is not None


def decode_frame(frame: bytes, runner: DecodeRunner) -> bytes:
    """Decode one JPEG picture to stored values; pydicom's interface of a plug-in.

    Args:
        frame: the JPEG file, bytes of padding after it allowed.
        runner: the picture's header; receives the number of bits of the values.

    Returns:
        (rows, columns[, 3]) uint8, or uint16 where JPEG keeps more than 8 bits; colours as they are stored,
        pydicom converts them.

    Raises:
        ValueError: the picture is cut short.
        imagecodecs.Jpeg8Error: no JPEG file.
    """
    from imagecodecs import jpeg8_decode  # here: few files need it

    if frame.rfind(_END_OF_IMAGE) < frame.rfind(_START_OF_SCAN):  # libjpeg would make up the rest
        raise ValueError("the JPEG picture is cut short")
    colours = "RGB" if runner.samples_per_pixel == 3 else "GRAYSCALE"
    picture = jpeg8_decode(frame, colorspace=colours, outcolorspace=colours)  # the same twice: no conversion
    runner.set_option("bits_allocated", 8 * picture.dtype.itemsize)
    runner.set_option("planar_configuration", 0)
    return picture.tobytes()


for _syntax in SYNTAXES:
    if PLUGIN not in get_decoder(_syntax).available_plugins:  # a second import adds nothing
        get_decoder(_syntax).add_plugin(PLUGIN, (__name__, "decode_frame"))
