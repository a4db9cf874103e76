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


def require_no_pattern(argument: str, path: Any) -> None:
    """Refuse a folder of a model whose name TensorFlow would take for a pattern.

    >>> require_no_pattern("--workdir", "runs/run-1")
    """
    requirement = "a path without [, *, ? and \\"
    require(not set("[*?\\") & set(str(path)), argument, requirement, str(path), "Rename the folder.")


def near_names(name: str, known: Iterable[str], label: str = "Near names") -> str:
    """Return the known names that resemble `name` without regard to case; all known names if none does.

    >>> near_names("EDEMA", ["Edema", "Pneumonia"])
    'Near names: Edema.'
    >>> near_names("zzz", ["Edema", "Pneumonia"])
    'Known: Edema, Pneumonia.'
    """
    known = list(known)
    found = difflib.get_close_matches(name.lower(), [one.lower() for one in known], 3)
    near = [one for lowered in dict.fromkeys(found) for one in known if one.lower() == lowered]
    return f"{label}: {', '.join(near)}." if near else f"Known: {', '.join(known)}."
