"""The account of a conversion: the destination of every tensor of a state dict, or a refusal by name."""

import pathlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from medclip_keras.errors import require
from medclip_keras.models.architectures import (
    ARCHITECTURES,
    KINDS,
    Architecture,
    Checkpoint,
    canonical,
    detect_kind,
)
from medclip_keras.models.key_maps import Entry
from medclip_keras.models.state_dicts import StateDict, find_weights, read_settings, read_state_dict

VISION, TEXT = "vision_model.model.", "text_model.model."
# Tensors that no model needs: pattern of whole names → why.
_IGNORED = {
    r"(.*\.)?num_batches_tracked": "a counter of training steps",
    r"(.*\.)?(position_ids|token_type_ids)": "indices 0, 1, 2, …",
    r"(.*\.)?(relative_position_index|attn_mask)": "follows from the window size",
    r"text_model\.model\.pooler\.dense\.(weight|bias)": "BERT's pooler, which released MedCLIP does not use",
}
_SHOWN = 8  # names in one message


@dataclass(frozen=True)
class Row:
    """A line of the account: a tensor's name and shape in the file, and its destination."""

    key: str
    shape: tuple[int, ...]
    target: str  # the variable's path, or "-" for a tensor that is left out
    note: str  # the variable's shape, or why the tensor is left out


@dataclass(frozen=True)
class Source:
    """A state dict under the names of `key_maps`."""

    file: str  # its name, for messages
    kind: str  # a key of KINDS
    tensors: StateDict  # name → array
    names: dict[str, str]  # the same names → those in the file
    settings: dict[str, Any]  # of the config.json beside it; empty without one

    @property
    def is_medclip(self) -> bool:
        """Whether it holds both towers of MedCLIP."""
        return self.kind.startswith("medclip")

    @property
    def architecture(self) -> Architecture:
        """That of the only tower, or of the image tower."""
        return ARCHITECTURES[KINDS[self.kind].architecture]

    def checkpoint(self, prefix: str = "", **options: int) -> Checkpoint:
        """Shapes of the tensors under a prefix, which is removed, with the settings and further options.

        MedCLIP's config.json, if any, describes its text tower.
        """
        shapes = {k.removeprefix(prefix): a.shape for k, a in self.tensors.items() if k.startswith(prefix)}
        return Checkpoint(shapes, {} if prefix == VISION else self.settings, **options)


def read_source(path: str | pathlib.Path) -> Source:
    """Read a file of weights, or the one in a folder, under the names of `key_maps`.

    Raises:
        ValueError: an unreadable file, an unknown layout, a config.json of another architecture, or two names
            for one tensor.
    """
    path = find_weights(path)
    tensors, settings = read_state_dict(path), read_settings(path)
    kind = detect_kind(tensors)
    field, pattern = KINDS[kind].named_by or ("", "")
    named = settings.get(field)
    may_lack = named is None and not KINDS[kind].must_be_named
    fits = may_lack or re.fullmatch(pattern, str(named)) is not None
    wanted = pattern.replace(r"\d+", "18, resnet50 or the like")
    require(fits, f"config.json: {field}", wanted, named, "No backbone here computes that architecture.")
    names: dict[str, str] = {}
    for name in tensors:
        renamed = _canonical(name, kind)
        require(renamed not in names, name, "the only name of its tensor", [names.get(renamed), name])
        names[renamed] = name
    return Source(path.name, kind, {k: tensors[n] for k, n in names.items()}, names, settings)


def _canonical(name: str, kind: str) -> str:
    architecture = KINDS[kind].architecture
    if not kind.startswith("medclip"):
        return canonical(name.removeprefix(f"{architecture}."), architecture)
    for prefix, tower in ((VISION, architecture), (TEXT, "bert")):
        if name.startswith(prefix):
            return prefix + canonical(name.removeprefix(prefix).removeprefix(f"{tower}."), tower)
    return name


def assign(source: Source, entries: list[Entry], variables: Sequence[keras.Variable]) -> list[Row]:
    """Fill variables from a state dict, all of them or none; return a row for each tensor of the file.

    Raises:
        ValueError: a tensor that is missing, left over, or of a wrong shape, each by its name.
    """
    needed = {entry.key: entry for entry in entries}
    patterns = _IGNORED | ({} if source.is_medclip else dict(source.architecture.ignored))
    reasons = {
        key: [why for pattern, why in patterns.items() if re.fullmatch(pattern, key)]
        for key in source.tensors.keys() - needed.keys()
    }
    ignored = {key: found[0] for key, found in reasons.items() if found}
    _refuse_unless_complete(source, needed, ignored)
    values = _values(source, entries)
    unfilled = [v.path for v in variables if id(v) not in values or np.isnan(values[id(v)]).any()]
    require(not unfilled, "entries", "of every variable", unfilled)
    for variable in variables:
        variable.assign(values[id(variable)])
    return [_row(source, key, needed.get(key), ignored) for key in source.tensors]


def _values(source: Source, entries: list[Entry]) -> dict[int, np.ndarray]:
    """Identity of a variable → its value, NaN in parts that no entry fills."""
    values: dict[int, np.ndarray] = {}
    for entry in entries:
        empty = np.full(entry.variable.shape, np.nan, np.float32)
        entry.fill(values.setdefault(id(entry.variable), empty), source.tensors[entry.key])
    return values


def _row(source: Source, key: str, entry: Entry | None, ignored: Mapping[str, str]) -> Row:
    name, shape = source.names[key], source.tensors[key].shape
    if entry is None:
        return Row(name, shape, "-", f"left out: {ignored[key]}")
    third = "" if entry.third is None else f", third {entry.third + 1} of 3"
    return Row(name, shape, entry.variable.path, f"{tuple(entry.variable.shape)}{third}")


def _refuse_unless_complete(source: Source, needed: Mapping[str, Entry], ignored: Mapping[str, str]) -> None:
    present, names = source.tensors, source.names
    filled = {key: entry for key, entry in needed.items() if key in present}
    faults = {
        "missing": [key for key in needed if key not in present],
        "not known": [names[key] for key in present if key not in needed and key not in ignored],
        "of a wrong shape": [
            f"{names[key]} is {present[key].shape} instead of {entry.torch_shape}"
            for key, entry in filled.items()
            if present[key].shape != entry.torch_shape
        ],
        # Quantised weights are whole numbers.
        "of whole numbers": [
            f"{names[k]} is {present[k].dtype}" for k in filled if present[k].dtype.kind != "f"
        ],
    }
    found = [
        f"{len(some)} {fault}: {', '.join(some[:_SHOWN])}{', …' if len(some) > _SHOWN else ''}"
        for fault, some in faults.items()
        if some
    ]
    wanted = f"every tensor of a {source.kind}, in its shape, and no other"
    require(not found, "weights", wanted, f"{source.file}: {'; '.join(found)}", "Nothing was written.")


def as_text(rows: list[Row]) -> str:
    """The account in columns: tensor, its shape → variable, its shape."""
    cells = [(r.key, str(tuple(r.shape)), "→", r.target, r.note) for r in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(4)]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, (*widths, 0), strict=True)).rstrip() for row in cells]
    used = sum(r.target != "-" for r in rows)
    lines.append(f"{used} tensors converted, {len(rows) - used} left out as listed, none missing.")
    return "\n".join(lines)
