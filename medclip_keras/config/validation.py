"""Frozen dataclasses that validate their fields, and whose errors are sentences."""

import dataclasses
import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import field
from typing import Annotated, Any, TypeVar, dataclass_transform

import pydantic
from pydantic import Field

from medclip_keras.errors import near_names

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def section(path: str = "") -> Callable[[type[T]], type[T]]:
    """Make a class a frozen dataclass that validates its fields; its errors are sentences on `path.field`."""
    strict = pydantic.ConfigDict(extra="forbid", allow_inf_nan=False)

    def decorate(cls: type[T]) -> type[T]:
        made: Any = pydantic.dataclasses.dataclass(frozen=True, config=strict)(cls)
        build = made.__init__

        @functools.wraps(build)
        def initialise(self: T, *args: Any, **kwargs: Any) -> None:
            try:
                build(self, *args, **kwargs)
            except pydantic.ValidationError as error:
                raise ValueError(sentence(error, field_paths(made, path), path)) from None

        made.__init__ = initialise
        validated: type[T] = made
        return validated

    return decorate


def ascending(pair: tuple[float, float]) -> tuple[float, float]:
    """Refuse a pair that descends."""
    if pair[0] > pair[1]:
        raise ValueError("two ascending numbers")
    return pair


def sum_to_one(shares: tuple[float, float, float]) -> tuple[float, float, float]:
    """Refuse shares that do not sum to 1, within 1e-6."""
    if abs(sum(shares) - 1) > 1e-6:
        raise ValueError("three shares that sum to 1")
    return shares


Count = Annotated[int, Field(ge=0)]
PositiveCount = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
PositiveShare = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
ImageSide = Annotated[int, Field(ge=16)]  # pixels


def field_paths(of: Any, path: str = "") -> list[str]:
    """The paths of a dataclass' fields, below `path`, and in place of a section those of its fields."""
    found = []
    for own in dataclasses.fields(of):
        inner = f"{path}.{own.name}" if path else own.name
        found += field_paths(own.type, inner) if dataclasses.is_dataclass(own.type) else [inner]
    return found


def unknown_field(path: str, known: Sequence[str]) -> str:
    """The sentence on a path that is none of the `known` fields, with the near names."""
    leaf = path.rpartition(".")[2]
    same_leaf = [p for p in known if p.rpartition(".")[2] == leaf]
    advice = near_names(path, same_leaf) if same_leaf else near_names(path, known)
    if not advice.startswith("Near"):
        advice = near_names(leaf, [p.rpartition(".")[2] for p in known])
    return f"`{path}` must be a field of the run. {advice}"


def sentence(error: pydantic.ValidationError, known: Sequence[str], of: str = "") -> str:
    """Format the first error as "`path` must be requirement. Received: value.", with near names."""
    first = error.errors()[0]
    path = ".".join(str(part) for part in (of, *first["loc"]) if part != "")
    if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return unknown_field(path, known)
    message = re.sub("^(Value error, |Input should be |Tuple should have )", "", first["msg"])
    if message.startswith("`"):  # a sentence already
        return message
    for theirs, ours in (("greater than or equal to", "at least"), ("less than or equal to", "at most")):
        message = message.replace(theirs, ours)
    received = first.get("input")
    choices = re.findall("'([^']+)'", message) if first["type"] == "literal_error" else []
    if message.startswith("one of "):
        choices = message.removeprefix("one of ").split(", ")
    near = near_names(received, choices) if choices and isinstance(received, str) else ""
    advice = f" {near}" if near.startswith("Near") else ""
    return f"`{path}` must be {message}. Received: {received!r}.{advice}"
