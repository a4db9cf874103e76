"""PyTorch state dicts from files: safetensors, or torch's own formats under `weights_only=True`.

Nothing in a file is executed: `torch.load(weights_only=True)` refuses every class and function that a tensor
does not need, and `legacy_torch` reads torch's format before 1.6 without torch.
"""

import contextlib
import functools
import json
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from medclip_keras.errors import refusal, require
from medclip_keras.models import legacy_torch

# Files of a folder, the first one found is read.
FILE_NAMES = (
    "model.safetensors",
    "pytorch_model.safetensors",
    "pytorch_model.bin",
    "model.pth",
    "model.pt",
    "model.safetensors.index.json",
    "pytorch_model.bin.index.json",
)
_INDEX = ".index.json"  # Hugging Face's map of the shards of a large model
_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt", ".ckpt")
_WRAPPERS = ("state_dict", "model_state_dict", "model")  # keys of the weights in training checkpoints
# DataParallel, torch.compile, a module that holds the model (Lightning's, MedCLIP's own classifiers).
_PREFIXES = ("module.", "_orig_mod.", "model.")
_POINTER = b"version https://git-lfs"

StateDict = dict[str, np.ndarray]


def find_weights(path: str | pathlib.Path) -> pathlib.Path:
    """Find the file of weights at a path: the file itself, the one in that folder, or the index of shards.

    Raises:
        ValueError: no such path, or a folder with no file of weights or with several.
    """
    path = pathlib.Path(path)
    if path.is_file():
        return path
    require(path.is_dir(), "weights", "an existing file or folder", str(path))
    for name in FILE_NAMES:
        if (path / name).is_file():
            return path / name
    found = sorted(p for p in path.iterdir() if p.suffix in _SUFFIXES and p.is_file())
    require(
        len(found) == 1,
        "weights",
        f"a folder with one file of weights ({', '.join(FILE_NAMES)} or another *{', *'.join(_SUFFIXES)})",
        [p.name for p in found],
        "Name the file itself.",
    )
    return found[0]


def files_of(path: pathlib.Path) -> list[pathlib.Path]:
    """List the files with the tensors: the file itself, or the shards of an index.

    Raises:
        ValueError: an invalid index, or one that names a missing file or one in another folder.
    """
    if not path.name.endswith(_INDEX):
        return [path]
    names = sorted(set(_weight_map(path).values()))
    for name in names:
        is_beside = pathlib.PurePath(name).name == name and (path.parent / name).is_file()
        require(is_beside, "weights", f"all the files that {path.name} names", f"no {name} beside it")
    return [path.parent / name for name in names]


def read_state_dict(path: str | pathlib.Path) -> StateDict:
    """Read every tensor of a file, or of the shards of an index.

    Prefixes that all names share (`module.`, `_orig_mod.`, `model.`) are removed; a state dict inside
    {"state_dict": …}, {"model_state_dict": …} or {"model": …} is extracted.

    Args:
        path: a .safetensors file, one of `torch.save` (from PyTorch 1.6 on with the extra `torch`), or an
            .index.json of several.

    Returns:
        Name → array: floats as float32, others as they are.

    Raises:
        ValueError: a truncated file or one of another format, a pickle of anything but tensors, or a tensor
            that is not finite; the sentence names the file, and the tensor.
    """
    path = pathlib.Path(path)
    tensors: StateDict = {}
    for file in files_of(path):
        tensors |= _read_file(file)
    if path.name.endswith(_INDEX):
        odd = sorted(_weight_map(path).keys() ^ tensors.keys())
        received = f"{len(odd)} missing or not listed: {', '.join(odd[:8])}"
        require(not odd, "weights", f"the tensors that {path.name} lists", received, "Fetch all again.")
    while prefix := next((p for p in _PREFIXES if all(name.startswith(p) for name in tensors)), None):
        tensors = {name.removeprefix(prefix): array for name, array in tensors.items()}
    return {name: _float32(name, array) for name, array in tensors.items()}


def _weight_map(index: pathlib.Path) -> dict[str, str]:
    """Tensor → the file that holds it."""
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
        files = json.loads(index.read_text())["weight_map"]
        if all(isinstance(name, str) for name in files.values()):
            return files
    raise refusal("weights", "an index with a weight_map of tensors and their files", index.name)


def _read_file(path: pathlib.Path) -> StateDict:
    with path.open("rb") as file:
        is_pointer = file.read(64).startswith(_POINTER)
    received = f"{path.name}, a Git LFS pointer of {path.stat().st_size} bytes"
    require(not is_pointer, "weights", "a file of weights", received, "Fetch the file itself: git lfs pull.")
    tensors = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    require(bool(tensors), "weights", "a file that holds tensors", f"{path.name} with none")
    return tensors


def read_settings(path: pathlib.Path, name: str = "config.json") -> dict:
    """Read the JSON file of that name beside a file of weights; empty if it does not exist.

    Raises:
        ValueError: anything but a JSON object.
    """
    file = path.parent / name
    if not file.is_file():
        return {}
    with contextlib.suppress(ValueError):
        settings = json.loads(file.read_text())
        if isinstance(settings, dict):
            return settings
    raise refusal("weights", f"beside a {name} that is a JSON object", str(file))


def _read_safetensors(path: pathlib.Path) -> StateDict:
    try:
        return safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        received = f"{path.name} of {path.stat().st_size} bytes ({error})"
        raise refusal("weights", "a complete safetensors file", received, "Fetch it again.") from None


def _read_torch(path: pathlib.Path) -> StateDict:
    if legacy_torch.is_legacy(path):
        loaded, tensor_type = _refused_by_name(path, legacy_torch.read), np.ndarray
    else:
        try:
            import torch
        except ImportError:
            needed, install = "a .safetensors file without torch", "pip install 'medclip_keras[torch]'."
            raise refusal("weights", needed, path.name, install) from None
        load = functools.partial(torch.load, map_location="cpu", weights_only=True)
        loaded, tensor_type = _refused_by_name(path, load), torch.Tensor
    require(isinstance(loaded, dict), "weights", "a state dict (name → tensor)", type(loaded).__name__)
    loaded = next((loaded[key] for key in _WRAPPERS if isinstance(loaded.get(key), dict)), loaded)
    for name, tensor in loaded.items():
        received = f"{path.name}, where {name!r} is a {type(tensor).__name__}"
        require(isinstance(tensor, tensor_type), "weights", "a state dict of tensors alone", received)
    if tensor_type is np.ndarray:
        return loaded
    detached = {name: tensor.detach() for name, tensor in loaded.items()}
    return {name: (x.float() if x.is_floating_point() else x).numpy() for name, x in detached.items()}


def _refused_by_name(path: pathlib.Path, load: Callable[[pathlib.Path], Any]) -> Any:
    """The value that `load` reads from a file; its errors as a refusal."""
    try:
        return load(path)
    except Exception as error:  # torch raises RuntimeError, UnpicklingError, EOFError and others
        # Only the first sentence: the next ones of torch advise to load without `weights_only`.
        why = str(error).strip().partition(". ")[0] or type(error).__name__
        raise refusal(
            "weights",
            "a complete torch file of tensors alone (weights_only=True)",
            f"{path.name} of {path.stat().st_size} bytes ({why})",
            "Fetch it again, or have it saved as safetensors.",
        ) from None


def _float32(name: str, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind in "iub":  # counters and indices
        return array
    array = np.asarray(array, np.float32)
    require(bool(np.isfinite(array).all()), name, "finite", "a tensor with NaN or infinite values")
    return array
