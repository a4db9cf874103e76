"""Keys and TFRecord shards; the shard of a record is a function of its key and the number of shards."""

import hashlib
import math
import re
import struct
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import google_crc32c
from etils import epath

RECORDS_PER_SHARD = 2000  # 131 MB of 256 px images
_HEAD_BYTES, _TAIL_BYTES = 12, 4  # of a record's frame: length and its checksum, the record's checksum
_FILE_NAME = re.compile(r"\w+-(train|valid|test)\.tfrecord-(\d{5})-of-(\d{5})")
_KEY_CHARACTERS = 16  # 64 bits: two of 400,000 records meet with a probability of 4e-9


@dataclass(frozen=True)
class Shard:
    """One of the shards of a split."""

    split: str
    index: int
    num_shards: int

    def file_name(self, dataset: str) -> str:
        """Name of the file, in the form of TFDS.

        >>> Shard("train", 0, 2).file_name("openi_reports")
        'openi_reports-train.tfrecord-00000-of-00002'
        """
        return f"{dataset}-{self.split}.tfrecord-{self.index:05d}-of-{self.num_shards:05d}"


@dataclass(frozen=True)
class ShardFile:
    """A written shard."""

    name: str
    num_records: int
    num_bytes: int
    sha256: str


def salted_hash(salt: str, kind: str, identifier: str) -> str:
    """Key of an identifier: the first 64 bits of SHA-256, as 16 hexadecimal digits.

    Args:
        salt: a secret, if identifiers must not be found again by trying them all.
        kind: "record", "study" or "patient"; equal identifiers of different kinds get different keys.
        identifier: as the source writes it.
    """
    return hashlib.sha256(f"{salt}\0{kind}\0{identifier}".encode()).hexdigest()[:_KEY_CHARACTERS]


def shard_index(key_hash: str, num_shards: int) -> int:
    """Shard of a key: floor(num_shards * key / 2^64); sorted keys stay sorted over the shards.

    >>> shard_index("8000000000000000", 3)
    1
    """
    return int(key_hash, 16) * num_shards >> 64


def shard_of_file(name: str) -> Shard | None:
    """Inverse of `Shard.file_name`; None for another or an unfinished file.

    >>> shard_of_file("openi_reports-train.tfrecord-00000-of-00002")
    Shard(split='train', index=0, num_shards=2)
    """
    match = _FILE_NAME.fullmatch(name)
    return Shard(match[1], int(match[2]), int(match[3])) if match else None


def num_shards_of(num_records: int, records_per_shard: int = RECORDS_PER_SHARD) -> int:
    """Number of shards of a split: one per `records_per_shard`; at least four of 50, to be read in parallel.

    >>> [num_shards_of(count) for count in (0, 5, 200, 8000, 8001)]
    [0, 1, 4, 4, 5]
    """
    return max(math.ceil(num_records / records_per_shard), min(4, math.ceil(num_records / 50)))


def write_shard(directory: epath.PathLike, name: str, records: Iterable[bytes]) -> ShardFile:
    """Write one TFRecord file, a record at a time; it takes its name when it is complete.

    A repeated step writes the same bytes under the same name.
    """
    directory = epath.Path(directory)
    unfinished = directory / f"{name}.{uuid.uuid4().hex}"
    digest = hashlib.sha256()
    num_records = num_bytes = 0
    with unfinished.open("wb") as file:
        for record in records:
            framed = _frame(record)
            file.write(framed)
            digest.update(framed)
            num_records += 1
            num_bytes += len(framed)
    unfinished.replace(directory / name)
    return ShardFile(name, num_records, num_bytes, digest.hexdigest())


def read_records(path: epath.PathLike) -> Iterator[tuple[int, bytes]]:
    """Records of a TFRecord file, each with the offset of its first byte; checksums are not verified."""
    with epath.Path(path).open("rb") as file:
        offset = 0
        while head := file.read(_HEAD_BYTES):
            (num_bytes,) = struct.unpack_from("<Q", head)
            offset += _HEAD_BYTES
            yield offset, file.read(num_bytes)
            file.read(_TAIL_BYTES)
            offset += num_bytes + _TAIL_BYTES


def _frame(record: bytes) -> bytes:
    """The TFRecord frame: length, its checksum, the bytes, their checksum; all little-endian."""
    length = struct.pack("<Q", len(record))
    return b"".join((length, _masked_crc(length), record, _masked_crc(record)))


def _masked_crc(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    return struct.pack("<I", masked)
