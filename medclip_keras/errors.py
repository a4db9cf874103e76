"""The error sentence of the project: "`argument` must be requirement. Received: value. advice"."""

import difflib
import os
from collections.abc import Iterable
from errno import EACCES, EDQUOT, EFBIG, EIO, ENOSPC, EROFS
from typing import Any

# Messages of the system for files that cannot be written or read, each with what to do about it.
# TensorFlow's own errors contain them.
_ADVICE = {
    os.strerror(number): advice
    for numbers, advice in (
        ((ENOSPC, EFBIG, EDQUOT), "Make room"),
        ((EROFS, EACCES), "Allow this user to read and write there"),
        ((EIO,), "Look after the disk"),
    )
    for number in numbers
}


class NotSavedError(OSError):
    """A file of a run could not be written: a full disk, a folder that must not be written."""

    def __init__(self, subject: str, folder: str, cause: Exception, kept: str):
        super().__init__(subject, folder, cause, kept)
        self._sentence = (
            f"The {subject} was not saved in {folder}: {system_message(cause)}. {kept} "
            "Make room or the folder writable, then start the same command again."
        )

    def __str__(self) -> str:
        return self._sentence


class WorkerLostError(ConnectionError):
    """Another worker of a run on several ended, or cannot be reached."""

    def __str__(self) -> str:
        return (
            "Another worker ended or cannot be reached. The last checkpoint is kept. "
            "Start the same command again in every worker."
        )


class Interrupted(KeyboardInterrupt):
    """A signal ended the work early; the message names the last saved step."""

    def __init__(self, step: int, total_steps: int, saved_step: int):
        lost = step - saved_step
        kept = f"the last checkpoint holds step {saved_step}" if saved_step else "no checkpoint is saved yet"
        steps = "1 step is" if lost == 1 else f"{lost} steps are"
        saved = f"{kept}: {steps} lost" if lost else "the checkpoint is saved"
        super().__init__(f"stopped after step {step} of {total_steps}; {saved}")


def system_message(error: BaseException) -> str:
    """Message of the system in an error, such as "No space left on device"; else its first line.

    >>> system_message(RuntimeError("write failed; No space left on device [Op:Save]"))
    'No space left on device'
    """
    found = [message for message in _ADVICE if message in str(error)]
    return found[0] if found else (str(error).splitlines() or [type(error).__name__])[0]


def system_sentence(error: BaseException) -> str:
    """Format a failed file operation: the system's message, the file if known, the next step.

    >>> system_sentence(OSError(28, "No space left on device", "run/raw"))
    "No space left on device: 'run/raw'. Make room, then start the same command again."
    """
    message, path = system_message(error), getattr(error, "filename", None)
    if message not in _ADVICE:
        return str(error) if getattr(error, "errno", None) else f"{message}."
    place = f": {str(path)!r}" if path else ""
    return f"{message}{place}. {_ADVICE[message]}, then start the same command again."


def is_of_the_system(error: BaseException) -> bool:
    """Whether an error is that of a full disk or of a file that cannot be opened, by whichever library."""
    return bool(getattr(error, "errno", None)) or any(message in str(error) for message in _ADVICE)


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
