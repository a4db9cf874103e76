"""PyTorch state dicts from files: safetensors, or torch's own format under `weights_only=True`.

Nothing in a file is ever executed: a torch file's pickle is searched for foreign names before torch sees it,
and torch then refuses every class that a tensor does not need.
"""

import json
import pathlib
import pickletools
import zipfile

import numpy as np
import safetensors
import safetensors.numpy

from medclip_keras.errors import require

# In the order in which a folder is searched.
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
_WRAPPERS = ("state_dict", "model_state_dict", "model")  # of training loops, the weights beside other things
# DataParallel, torch.compile, a module that holds the model (Lightning's, MedCLIP's own classifiers).
_PREFIXES = ("module.", "_orig_mod.", "model.")
_POINTER = b"version https://git-lfs"
_HARMLESS = {"collections.OrderedDict", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter"}

StateDict = dict[str, np.ndarray]


def find_weights(path: str | pathlib.Path) -> pathlib.Path:
    """The file of weights that a path names: itself, or the one in that folder, or the index of its shards.

    Raises:
        ValueError: nothing there, or a folder with no file of weights or with several.
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
    """The files that hold a file's tensors: itself, or the shards that an index names.

    Raises:
        ValueError: an index that is none, or names a file elsewhere or one that is not there.
    """
    if not path.name.endswith(_INDEX):
        return [path]
    names = sorted(set(_weight_map(path).values()))
    for name in names:
        is_beside = pathlib.PurePath(name).name == name and (path.parent / name).is_file()
        require(is_beside, "weights", f"all the files that {path.name} names", f"no {name} beside it")
    return [path.parent / name for name in names]


def read_state_dict(path: str | pathlib.Path) -> StateDict:
    """Reads every tensor of a file, or of the shards that an index names.

    Prefixes that all names share (`module.`, `_orig_mod.`, `model.`) are taken off, and a state dict inside
    of {"state_dict": …}, {"model_state_dict": …} or {"model": …} is taken out.

    Args:
        path: a .safetensors file, or one that `torch.save` wrote (the extra `torch` reads those), or a
            .index.json of several.

    Returns:
        Name → array: floats as float32, others as they are.

    Raises:
        ValueError: truncated, no such format, a pickle that names foreign classes, a value that is no tensor,
            or a tensor that is not finite; the sentence names the file, and the tensor.
    """
    path, tensors = pathlib.Path(path), {}
    files = files_of(path)
    for file in files:
        tensors |= _read_file(file)
    if files != [path]:
        _require_as_mapped(path, tensors)
    while prefix := next((p for p in _PREFIXES if all(name.startswith(p) for name in tensors)), None):
        tensors = {name.removeprefix(prefix): array for name, array in tensors.items()}
    return {name: _float32(name, array) for name, array in tensors.items()}


def _weight_map(index: pathlib.Path) -> dict[str, str]:
    """Tensor → the file that holds it."""
    try:
        files = json.loads(index.read_text())["weight_map"]
        is_map = all(isinstance(name, str) for name in files.values())
    except (ValueError, KeyError, TypeError, AttributeError):
        is_map = False
    require(is_map, "weights", "an index with a weight_map of tensors and their files", index.name)
    return files


def _require_as_mapped(index: pathlib.Path, tensors: StateDict) -> None:
    listed = _weight_map(index).keys()
    for what, names in (("missing", listed - tensors.keys()), ("not listed", tensors.keys() - listed)):
        received = f"{len(names)} {what}: {', '.join(sorted(names)[:8])}"
        require(not names, "weights", f"the tensors that {index.name} lists", received, "Fetch all again.")


def _read_file(path: pathlib.Path) -> StateDict:
    with path.open("rb") as file:
        start = file.read(64)
    require(
        not start.startswith(_POINTER),
        "weights",
        "a file of weights",
        f"{path.name}, a Git LFS pointer of {path.stat().st_size} bytes",
        "Fetch the file itself: git lfs pull.",
    )
    tensors = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    require(bool(tensors), "weights", "a file that holds tensors", f"{path.name} with none")
    return tensors


def read_settings(path: pathlib.Path, name: str = "config.json") -> dict:
    """The JSON file of that name beside a file of weights; empty where there is none.

    Raises:
        ValueError: it is no JSON object.
    """
    file = path.parent / name
    if not file.is_file():
        return {}
    try:
        settings = json.loads(file.read_text())
    except ValueError:
        settings = None
    require(isinstance(settings, dict), "weights", f"beside a {name} that is a JSON object", str(file))
    return settings


def _read_safetensors(path: pathlib.Path) -> StateDict:
    try:
        return safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"`weights` must be a complete safetensors file. Received: {path.name} of {path.stat().st_size} "
            f"bytes ({error}). Fetch it again."
        ) from None


def _read_torch(path: pathlib.Path) -> StateDict:
    foreign = sorted(name for name in names_in_pickle(path) if not _is_harmless(name))
    require(
        not foreign,
        "weights",
        "a torch file of tensors alone",
        f"{path.name}, whose pickle names {', '.join(foreign)}",
        "It was not opened, for a pickle runs what it names. Have it saved as safetensors.",
    )
    try:
        import torch
    except ImportError:
        raise ValueError(
            f"`weights` must be a .safetensors file where torch is not installed. Received: {path.name}. "
            "pip install 'medclip_keras[torch]'."
        ) from None
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises RuntimeError, UnpicklingError, EOFError and others
        raise ValueError(
            f"`weights` must be a torch file of tensors alone (weights_only=True). Received: {path.name}: "
            f"{str(error).strip().splitlines()[0] if str(error) else type(error).__name__}"
        ) from None
    require(isinstance(loaded, dict), "weights", "a state dict (name → tensor)", type(loaded).__name__)
    loaded = next((loaded[key] for key in _WRAPPERS if isinstance(loaded.get(key), dict)), loaded)
    tensors = {}
    for name, tensor in loaded.items():
        require(
            isinstance(tensor, torch.Tensor),
            "weights",
            "a state dict of tensors alone",
            f"{path.name}, where {name!r} is a {type(tensor).__name__}",
        )
        tensor = tensor.detach()
        tensors[name] = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    return tensors


def names_in_pickle(path: pathlib.Path) -> set[str]:
    """Every class and function that a torch file's pickle names, found without running it.

    Raises:
        ValueError: the file holds no whole pickle: truncated, or of another format.
    """
    names: set[str] = set()
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for entry in archive.namelist():
                    if entry.endswith(".pkl"):
                        names |= _named(archive.read(entry))
                require(
                    any(entry.endswith("data.pkl") for entry in archive.namelist()),
                    "weights",
                    "a file that torch.save wrote",
                    f"{path.name}, a zip file without data.pkl",
                    "Unpack it, where it is an archive of weights.",
                )
        else:  # torch before 1.6: five pickles, then the raw numbers
            with path.open("rb") as file:
                for _ in range(5):
                    names |= _named(file)
    except (ValueError, EOFError, zipfile.BadZipFile, KeyError) as error:
        if str(error).startswith("`"):
            raise
        raise ValueError(
            f"`weights` must be a complete file that torch.save wrote, or *.safetensors. Received: "
            f"{path.name} of {path.stat().st_size} bytes ({str(error) or 'it ends early'}). Fetch it again."
        ) from None
    return names


def _named(pickle) -> set[str]:
    """Names behind GLOBAL and STACK_GLOBAL (which takes two strings from the stack: the last two seen)."""
    names, strings = set(), []
    for opcode, argument, _ in pickletools.genops(pickle):
        if opcode.name in ("GLOBAL", "INST"):
            names.add(argument.replace(" ", "."))
        elif opcode.name == "STACK_GLOBAL":
            names.add(".".join(strings[-2:]))
        elif isinstance(argument, str):
            strings.append(argument)
    return names


def _is_harmless(name: str) -> bool:
    module, _, leaf = name.rpartition(".")
    return name in _HARMLESS or (module in ("torch", "torch.storage") and leaf.endswith("Storage"))


def _float32(name: str, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind in "iub":  # counters and indices
        return array
    array = np.asarray(array, np.float32)
    require(bool(np.isfinite(array).all()), name, "finite", "a tensor with NaN or infinite values")
    return array
