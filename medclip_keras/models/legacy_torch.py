"""State dicts of PyTorch's format before 1.6, without PyTorch: the format of many old `.pth` files.

Follows: `_legacy_load` of torch/serialization.py. A file is five pickles (a magic number, a version, sizes of
C types, the value, the keys of its storages), then the length (int64) and the numbers of each storage.
Nothing is executed: the pickles may name an OrderedDict, tensors and storages alone.
"""

import collections
import dataclasses
import math
import pathlib
import pickle
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

_MAGIC = 0x1950A86A20F9469CFC6C
_DTYPES = {
    "DoubleStorage": "<f8", "FloatStorage": "<f4", "HalfStorage": "<f2", "LongStorage": "<i8",
    "IntStorage": "<i4", "ShortStorage": "<i2", "CharStorage": "i1", "ByteStorage": "u1", "BoolStorage": "?",
    "BFloat16Storage": ml_dtypes.bfloat16,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _View:
    """A tensor: a view of a storage that comes later in the file."""

    storage: str  # its key
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in numbers

    def of(self, storages: dict[str, np.ndarray]) -> np.ndarray:
        """A copy of the numbers; ValueError for a view that leaves its storage."""
        storage = storages[self.storage]
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
        lowest, number = min(self.offset, *self.shape, *self.strides, 0), math.prod(self.shape)
        if number and not (lowest >= 0 and last < len(storage) >= number):
            raise ValueError("a tensor outside its storage")
        strides = tuple(s * storage.itemsize for s in self.strides)
        return np.lib.stride_tricks.as_strided(storage[self.offset :], self.shape, strides).copy()


def _rebuild(storage: str, offset: int, shape: tuple, strides: tuple, *_: Any) -> _View:
    return _View(storage, offset, tuple(shape), tuple(strides))


def _rebuild_parameter(data: _View, *_: Any) -> _View:
    return data


_REBUILD = {"_rebuild_tensor_v2": _rebuild, "_rebuild_parameter": _rebuild_parameter}


class _Unpickler(pickle.Unpickler):
    """Reads a state dict's pickle; notes the type of each storage."""

    def __init__(self, file: BinaryIO):
        super().__init__(file)
        self.dtypes: dict[str, Any] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if module == "torch._utils" and name in _REBUILD:
            return _REBUILD[name]
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        raise pickle.UnpicklingError(f"{module}.{name}, which no state dict needs")

    def persistent_load(self, pid: Any) -> str:
        kind, dtype, key, _, _, view = pid
        if kind != "storage" or view is not None:
            raise pickle.UnpicklingError("a view of a storage")
        self.dtypes[key] = dtype
        return key


def is_legacy(path: pathlib.Path) -> bool:
    """Whether a file begins as one of that format."""
    start = pickle.dumps(_MAGIC, 2)
    with path.open("rb") as file:
        return file.read(len(start)) == start


def read(path: pathlib.Path) -> dict[str, Any]:
    """Read the value of a file, with arrays in place of its tensors.

    Raises:
        ValueError, EOFError, pickle.UnpicklingError: a truncated file, or one of anything but tensors.
    """
    with path.open("rb") as file:
        for _ in range(3):
            _Unpickler(file).load()
        unpickler = _Unpickler(file)
        value = unpickler.load()
        storages = {}
        for key in _Unpickler(file).load():
            dtype = np.dtype(unpickler.dtypes[key])
            (length,) = np.frombuffer(file.read(8), "<i8")
            storages[key] = np.frombuffer(file.read(int(length) * dtype.itemsize), dtype)
            if len(storages[key]) != length:
                raise ValueError("fewer numbers than its header says")
    return _filled(value, storages)


def _filled(value: Any, storages: dict[str, np.ndarray]) -> Any:
    if isinstance(value, _View):
        return value.of(storages)
    if isinstance(value, dict):
        return {key: _filled(one, storages) for key, one in value.items()}
    return value
