"""Size of a compressed picture, from its header, before a decoder allocates memory."""

_START, _JPEG_2000 = b"\xff\xd8", b"\xff\x4f\xff\x51"
_FRAMES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # the markers SOF0 to SOF15, and JPEG-LS' SOF55
_BOXES = 4096  # bytes of a JP2 file that may stand before its codestream


def size_of_codestream(frame: bytes) -> tuple[int, int] | None:
    """Rows and columns of a JPEG, JPEG-LS or JPEG 2000 picture; None for others, such as RLE.

    >>> size_of_codestream(bytes.fromhex("ffd8 ffe00004aabb fff7000b 08 0007 0102 01 011100"))
    (7, 258)
    """
    start = frame.find(_JPEG_2000, 0, _BOXES)
    if start >= 0:
        columns, rows, left, top = (
            int.from_bytes(frame[at : at + 4]) for at in range(start + 8, start + 24, 4)
        )
        return rows - top, columns - left
    return _size_of_jpeg(frame) if frame.startswith(_START) else None


def _size_of_jpeg(frame: bytes) -> tuple[int, int] | None:
    at = 2
    while at + 9 <= len(frame):
        marker = frame[at + 1]
        if marker in _FRAMES:
            return int.from_bytes(frame[at + 5 : at + 7]), int.from_bytes(frame[at + 7 : at + 9])
        at += 1 if marker == 0xFF else 2 + int.from_bytes(frame[at + 2 : at + 4])  # 0xFF before it fills up
    return None
