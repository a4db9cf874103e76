"""The account of a conversion: which tensor of a state dict went where, and a refusal where one did not."""

import dataclasses
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import keras
import numpy as np

from medclip_keras.errors import require
from medclip_keras.models import key_maps
from medclip_keras.models.key_maps import LAYOUTS, Entry
from medclip_keras.models.state_dicts import StateDict, find_weights, read_settings, read_state_dict

# Kind → architecture of its only tower, or of its image tower.
ARCHITECTURES = {
    "medclip_resnet50": "resnet",
    "medclip_swin": "swin",
    "torchvision_resnet50": "resnet",
    "timm_resnet": "resnet",
    "hf_swin": "swin",
    "hf_vit": "vit",
    "hf_bert": "bert",
}
VISION, TEXT = "vision_model.model.", "text_model.model."
# Kind → the field of its config.json that names it, and what may stand there: others have tensors of the same
# names and compute something else (RoBERTa's positions, the blurred strides of timm's resnetaa50).
_CALLED = {
    "hf_swin": ("model_type", "swin"),
    "hf_bert": ("model_type", "bert"),
    "torchvision_resnet50": ("architecture", r"resnet\d+"),
    "timm_resnet": ("architecture", r"resnet\d+"),
}

# What is left out, and why. Patterns are of whole names.
IGNORED = {
    r"(.*\.)?num_batches_tracked": "a counter of training steps",
    r"(.*\.)?(position_ids|token_type_ids)": "indices 0, 1, 2, …",
    r"(.*\.)?(relative_position_index|attn_mask)": "follows from the window size",
    r"text_model\.model\.pooler\.dense\.(weight|bias)": "BERT's pooler, which released MedCLIP does not use",
}
_IGNORED_OF_TOWER = {
    "resnet": {r"fc\.(weight|bias)": "the classifier"},
    "swin": {
        r"classifier\.(weight|bias)": "the classifier",
        r"decoder\.0\.(weight|bias)": "a head of its pretraining",
        r"embeddings\.mask_token": "a token of its pretraining",
    },
    "vit": {
        r"classifier\.(weight|bias)": "the classifier",
        r"pooler\.dense\.(weight|bias)": "the pooler of the class token",
        r"decoder\.0\.(weight|bias)": "a head of its pretraining",
        r"embeddings\.mask_token": "a token of its pretraining",
    },
    "bert": {
        r"cls\.(predictions|seq_relationship)\..*": "a head of its pretraining",
        r"(classifier|qa_outputs)\.(weight|bias)": "a head of another task",
    },
}


@dataclass(frozen=True)
class Row:
    """A line of the account: a tensor of the file, and where it went.

    Attributes:
        key: its name in the file.
        shape: its shape there.
        target: the variable's path, or "-" where it was left out.
        note: the variable's shape, or why it was left out.
    """

    key: str
    shape: tuple[int, ...]
    target: str
    note: str


@dataclass(frozen=True)
class Source:
    """A state dict under the names of `key_maps`.

    Attributes:
        file: its name, for messages.
        kind: a key of ARCHITECTURES.
        tensors: name → array.
        names: the same names → those in the file.
        settings: of the config.json beside it; empty without one.
    """

    file: str
    kind: str
    tensors: StateDict
    names: dict[str, str]
    settings: dict = dataclasses.field(default_factory=dict)

    def shapes(self, prefix: str = "") -> dict[str, tuple[int, ...]]:
        """Shapes of the tensors under a prefix, which is taken off."""
        return {k.removeprefix(prefix): a.shape for k, a in self.tensors.items() if k.startswith(prefix)}


def detect_kind(keys: Iterable[str]) -> str:
    """The kind of a state dict by its names; torchvision's and timm's ResNet share theirs.

    >>> detect_kind(["bert.embeddings.word_embeddings.weight", "bert.pooler.dense.bias"])
    'hf_bert'

    Raises:
        ValueError: a layout that is none of them.
    """
    keys = list(keys)

    def has(pattern: str) -> bool:
        return any(re.match(pattern, key) for key in keys)

    medclip = has(r"(vision|text)_model\.")
    prefix = r"vision_model\.model\." if medclip else ""
    if has(prefix + r"layer\d\.\d+\.conv\d\.weight"):
        return "medclip_resnet50" if medclip else "torchvision_resnet50"
    if has(prefix + r"(swin\.)?encoder\.layers\.\d+\.blocks\."):
        return "medclip_swin" if medclip else "hf_swin"
    if not medclip and has(r"(vit\.)?embeddings\.cls_token"):
        return "hf_vit"
    if not medclip and has(r"(bert\.)?embeddings\.word_embeddings\."):
        return "hf_bert"
    require(
        False,
        "weights",
        f"of a known layout ({', '.join(ARCHITECTURES)})",
        f"{len(keys)} tensors, such as {', '.join(sorted(keys)[:4])}",
    )


def read_source(path: str | pathlib.Path, kind: str = "auto") -> Source:
    """Reads a file of weights, or the one in a folder, and brings its names to those of `key_maps`.

    Raises:
        ValueError: an unreadable file, an unknown layout or another one than `kind`, a config.json of another
            architecture, or two names for one tensor.
    """
    path = find_weights(path)
    tensors = read_state_dict(path)
    found = detect_kind(tensors)
    same = {found, "timm_resnet"} if found == "torchvision_resnet50" else {found}
    require(
        kind in ("auto", *same),
        "--kind",
        f"{' or '.join(sorted(same))}, which the names in {path.name} are of, or auto",
        kind,
    )
    kind = found if kind == "auto" else kind
    settings = read_settings(path)
    _require_called(kind, settings)
    names: dict[str, str] = {}
    for name in tensors:
        renamed = _canonical(name, kind)
        require(renamed not in names, name, "the only name of its tensor", [names.get(renamed), name])
        names[renamed] = name
    return Source(path.name, kind, {k: tensors[n] for k, n in names.items()}, names, settings)


def _require_called(kind: str, settings: Mapping) -> None:
    field, pattern = _CALLED.get(kind, ("", ""))
    called = settings.get(field)
    fits = called is None or re.fullmatch(pattern, str(called)) is not None
    wanted = pattern.replace(r"\d+", "18, resnet50 or the like")
    require(fits, f"config.json: {field}", wanted, called, "This one has no twin here.")


def _canonical(name: str, kind: str) -> str:
    architecture = ARCHITECTURES[kind]
    if kind.startswith("medclip"):
        for prefix, tower in ((VISION, architecture), (TEXT, "bert")):
            if name.startswith(prefix):
                own = name.removeprefix(prefix).removeprefix(f"{tower}.")
                return prefix + key_maps.canonical(own, tower)
        return name
    return key_maps.canonical(name.removeprefix(f"{architecture}."), architecture)


def assign(source: Source, entries: list[Entry], variables: Sequence[keras.Variable]) -> list[Row]:
    """Fills variables from a state dict, all of them or none.

    Args:
        source: the state dict.
        entries: which tensor fills which variable.
        variables: every variable that must be filled.

    Returns:
        The account, a row for each tensor of the file.

    Raises:
        ValueError: a tensor that is missing, left over, or of a wrong shape, each by its name.
    """
    needed = {entry.key: entry for entry in entries}
    patterns = IGNORED | (
        {} if source.kind.startswith("medclip") else _IGNORED_OF_TOWER[ARCHITECTURES[source.kind]]
    )
    ignored = {}
    for key in source.tensors.keys() - needed.keys():
        reason = next((why for pattern, why in patterns.items() if re.fullmatch(pattern, key)), None)
        if reason:
            ignored[key] = reason
    _refuse_unless_complete(source, needed, ignored)
    values = _values(source, entries)
    unfilled = [v.path for v in variables if id(v) not in values or np.isnan(values[id(v)]).any()]
    require(not unfilled, "entries", "of every variable", unfilled)
    for variable in variables:
        variable.assign(values[id(variable)])
    return [_row(source, key, needed.get(key), ignored) for key in source.tensors]


def _values(source: Source, entries: list[Entry]) -> dict[int, np.ndarray]:
    """Identity of a variable → its value, NaN where no entry fills it."""
    values: dict[int, np.ndarray] = {}
    for entry in entries:
        shape = tuple(entry.variable.shape)
        whole = values.setdefault(id(entry.variable), np.full(shape, np.nan, np.float32))
        width = entry.shape[-1] if entry.shape else 0
        part = ... if entry.third is None else np.s_[..., entry.third * width : (entry.third + 1) * width]
        whole[part] = LAYOUTS[entry.layout].convert(source.tensors[entry.key], entry.shape)
    return values


def _row(source: Source, key: str, entry: Entry | None, ignored: Mapping[str, str]) -> Row:
    name, shape = source.names[key], source.tensors[key].shape
    if entry is None:
        return Row(name, shape, "-", f"left out: {ignored[key]}")
    third = "" if entry.third is None else f", third {entry.third + 1} of 3"
    return Row(name, shape, entry.variable.path, f"{tuple(entry.variable.shape)}{third}")


def _refuse_unless_complete(source: Source, needed: Mapping[str, Entry], ignored: Mapping[str, str]) -> None:
    present = source.tensors
    missing = [key for key in needed if key not in present]
    extra = [source.names[key] for key in present if key not in needed and key not in ignored]
    wrong = [
        f"{source.names[key]} is {present[key].shape} instead of {entry.torch_shape}"
        for key, entry in needed.items()
        if key in present and present[key].shape != entry.torch_shape
    ]
    whole = [
        f"{source.names[key]} is {present[key].dtype}" for key in needed if _is_no_float(present.get(key))
    ]
    faults = [
        f"{len(found)} {what}: {', '.join(found[:8])}{', …' if len(found) > 8 else ''}"
        for what, found in (
            ("missing", missing),
            ("not known", extra),
            ("of a wrong shape", wrong),
            ("of whole numbers", whole),
        )
        if found
    ]
    require(
        not faults,
        "weights",
        f"every tensor of a {source.kind}, in its shape, and no other",
        f"{source.file}: {'; '.join(faults)}",
        "Nothing was written.",
    )


def _is_no_float(tensor: np.ndarray | None) -> bool:
    """Whether it holds whole numbers, as quantised weights do."""
    return tensor is not None and tensor.dtype.kind != "f"


def table(rows: list[Row]) -> str:
    """The account as text: source key, its shape → variable, its shape."""
    cells = [(r.key, str(tuple(r.shape)), "→", r.target, r.note) for r in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(4)]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, (*widths, 0), strict=True)).rstrip() for row in cells]
    used = sum(r.target != "-" for r in rows)
    lines.append(f"{used} tensors converted, {len(rows) - used} left out as listed, none missing.")
    return "\n".join(lines)
