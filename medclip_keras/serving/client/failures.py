"""The errors of a client, as a tree.

ServingError
├── WrongAddress        the host is unknown, or its certificate is not accepted
├── ServerUnavailable   nobody answers, in time or at all; the one kind that is retried
├── ModelNotFound       the server has no such model, version or label
├── RequestRefused      the server does not accept the request
└── BadAnswer           the answer is not one of TensorFlow Serving, or not a whole one

All are ValueErrors, which the commands of this project print as one line.
"""

from collections.abc import Iterable
from typing import Any

from medclip_keras.errors import refusal

_LONGEST = 300  # characters of a server's own words
_QUOTED = 8  # characters of a text by which it is known in a server's words


class ServingError(ValueError):
    """Invalid or missing answer of a server; the message says the next step."""

    @classmethod
    def of(cls, argument: str, requirement: str, received: Any, advice: str = "") -> "ServingError":
        """Build the error from the parts of the project's error sentence."""
        return cls(str(refusal(argument, requirement, received, advice)))


class WrongAddress(ServingError):  # noqa: N818 (named by what is wrong)
    """The host is unknown, or its certificate is not accepted."""


class ServerUnavailable(ServingError):  # noqa: N818
    """Nobody answers, in time or at all; asking again may help."""


class ModelNotFound(ServingError):  # noqa: N818
    """The server has no such model, version or label."""


class RequestRefused(ServingError):  # noqa: N818
    """The server does not accept the request."""


class BadAnswer(ServingError):  # noqa: N818
    """The answer is not one of TensorFlow Serving, or not a whole one."""


def without_texts(message: str, texts: Iterable[str]) -> str:
    """A server's message in one short line; withheld if it quotes the request.

    TensorFlow Serving prints the value that it could not read, which may be a sentence of a report.

    >>> without_texts("input size does not match signature: 2!=1", ["Edema of the lung."])
    'input size does not match signature: 2!=1'
    >>> without_texts('JSON Value: "Edema of the lung." Type: String', ["Edema of the lung."])
    '(withheld: it quotes the request)'
    """
    known = [text[:_QUOTED] for text in texts if len(text) >= _QUOTED // 2]
    quotes = "JSON Value" in message or any(start in message for start in known)
    return "(withheld: it quotes the request)" if quotes else " ".join(message.split())[:_LONGEST]
