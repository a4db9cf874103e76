"""The error sentence of the project: "`argument` must be requirement. Received: value. advice"."""

import difflib
from collections.abc import Iterable
from typing import Any


def refusal(argument: str, requirement: str, received: Any, advice: str = "") -> ValueError:
    """Build the error for a value that the caller must change; `raise` it where control ends.

    >>> refusal("split", "one of train, valid, test", "tset", near_names("tset", ["train", "valid", "test"]))
    ValueError("`split` must be one of train, valid, test. Received: 'tset'. Near names: test.")
    """
    return ValueError(f"`{argument}` must be {requirement}. Received: {received!r}. {advice}".rstrip())


def require(condition: bool, argument: str, requirement: str, received: Any, advice: str = "") -> None:
    """Raise the error sentence unless `condition` holds.

    Raises:
        ValueError: "`argument` must be requirement. Received: value. advice"
    """
    if not condition:
        raise refusal(argument, requirement, received, advice)


def near_names(name: str, known: Iterable[str], label: str = "Near names") -> str:
    """Return "Near names: a, b." for the known names that resemble `name`; all known names if none does."""
    known = list(known)
    near = difflib.get_close_matches(name, known, 3)
    return f"{label}: {', '.join(near)}." if near else f"Known: {', '.join(known)}."
