"""Where a model is served: server, name, and a version or a label."""

import re
import urllib.parse
from dataclasses import dataclass

from medclip_keras.errors import refusal, require

DEFAULT_MODEL = "medclip"
_SCHEMES = ("http", "https", "grpc", "grpcs")
_FORM = (
    "http(s)://HOST:8501/v1/models/NAME or grpc(s)://HOST:8500/v1/models/NAME, with /versions/N or /labels/L"
)
_PATH = re.compile(
    r"(?P<prefix>(?:/[^/]+)*?)/v1/models/(?P<model>[^/:]+)"
    r"(?:/versions/(?P<version>\d{1,18})|/labels/(?P<label>[^/:]+))?/?"
)


@dataclass(frozen=True)
class Address:
    """A served model.

    Attributes:
        scheme: http, https, grpc or grpcs.
        server: host and port, and for REST behind a gateway the path before /v1.
        model: name.
        version: number, or None for the newest one.
        label: of a version, or None.
    """

    scheme: str
    server: str
    model: str
    version: int | None = None
    label: str | None = None

    def __str__(self) -> str:
        """The model's address, without version and label."""
        return f"{self.scheme}://{self.server}/v1/models/{urllib.parse.quote(self.model, safe='')}"


def is_address(path: object) -> bool:
    """Whether a path is the address of a server.

    >>> is_address("http://localhost:8501"), is_address("gs://bucket/models/1")
    (True, False)
    """
    return isinstance(path, str) and path.partition("://")[0].lower() in _SCHEMES and "://" in path


def parse_address(
    url: str, model: str | None = None, *, version: int | None = None, label: str | None = None
) -> Address:
    """Read an address.

    Args:
        url: of a model, or of a server alone.
        model: name, where the url has none; "medclip" if neither names it.
        version: number, where the url has neither version nor label.
        label: of a version, in its place.

    Raises:
        ValueError: another form, or two versions of a name, a version or a label.

    >>> parse_address("grpc://localhost:8500/v1/models/medclip/labels/stable")
    Address(scheme='grpc', server='localhost:8500', model='medclip', version=None, label='stable')
    """
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError:
        raise refusal("url", _FORM, url) from None
    scheme, path = parts.scheme.lower(), parts.path
    known = scheme in _SCHEMES and parts.hostname and not (parts.query or parts.fragment)
    require(bool(known), "url", _FORM, _without_password(parts))
    require("@" not in parts.netloc, "url", "an address without a password", _without_password(parts))
    found = _PATH.fullmatch(path)
    prefix = found["prefix"] if found else path.rstrip("/")
    named, number, text = found.group("model", "version", "label") if found else (None, None, None)
    is_rest = scheme.startswith("http")
    require("/v1" not in prefix and (is_rest or not prefix), "url", _FORM, url)
    require(port is not None or is_rest, "url", "an address with a port, for gRPC mostly 8500", url)
    require(model is None or named is None, "model", "named once, in the url or beside it", model)
    chosen = [one for one in (version, label, number, text) if one is not None]
    require(len(chosen) <= 1, "version", "one version or one label", chosen)
    version = version if number is None else int(number)
    label = label if text is None else urllib.parse.unquote(text)
    require(version is None or version >= 0, "version", "a number from 0", version)
    name = urllib.parse.unquote(named) if named else model or DEFAULT_MODEL
    return Address(scheme, parts.netloc.lower() + prefix, name, version, label)


def _without_password(parts: urllib.parse.SplitResult) -> str:
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()
