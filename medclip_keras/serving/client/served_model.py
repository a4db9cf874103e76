"""A served model: its endpoints as functions of files and sentences, in bounded requests, with retries."""

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import tenacity

from medclip_keras.config import RunConfig, from_dict
from medclip_keras.errors import refusal, require
from medclip_keras.evaluation.arrays import Array, Bools, Floats
from medclip_keras.serving.client.address import Address, parse_address
from medclip_keras.serving.client.failures import (
    BadAnswer,
    ModelNotFound,
    RequestRefused,
    ServerUnavailable,
    without_texts,
)

TIMEOUT, ATTEMPTS = 60.0, 6  # seconds an attempt; the waits between six attempts are 8 s on average
FILES_AT_ONCE, TEXTS_AT_ONCE, BYTES_AT_ONCE = 32, 256, 2**24  # of a request; a larger file goes alone

Value = TypeVar("Value")
_LOG = logging.getLogger(__name__)


class Transport(Protocol):
    """One interface of TensorFlow Serving; `rest.RestTransport` documents the methods."""

    def predict(
        self,
        signature: str,
        inputs: Mapping[str, Array],
        outputs: Mapping[str, Any],
        version: int | str,
        words: list[str],
    ) -> dict[str, Array]:
        """Call a signature once."""

    def versions(self) -> dict[int, str]:
        """The model's versions and their states."""


@dataclass(frozen=True)
class Scores:
    """An answer of the endpoint `zero_shot`.

    Attributes:
        classes: names that were baked in at the export.
        scores: float32 (num_decoded, num_classes).
        decoded: bool (num_files,), False where the server could not read a file.
        probabilities: float32 (num_decoded, num_classes), or None of a version without a calibration.
    """

    classes: tuple[str, ...]
    scores: Floats
    decoded: Bools
    probabilities: Floats | None = None


class ServedModel:
    """One version of a served model.

    A request is sent again, after growing waits, while nobody answers in time: all endpoints are functions,
    so a second answer is the first one.

    Attributes:
        address: of the model.
        version: number, or label. Where none is named it is the newest version at the time of the connection:
            embeddings of two versions must not be compared. A label is followed wherever it moves.
        config: of the run.
        logit_scale: factor from cosines to logits.
        is_calibrated: whether `zero_shot` answers with probabilities.
    """

    def __init__(self, address: Address, transport: Transport, attempts: int = ATTEMPTS):
        require(attempts >= 1, "attempts", "at least 1", attempts)
        self.address, self._transport = address, transport
        self._retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(ServerUnavailable),
            stop=tenacity.stop_after_attempt(attempts),
            wait=tenacity.wait_random_exponential(multiplier=0.5, max=8.0),
            before_sleep=_log_retry,
            reraise=True,
        )
        self.version: int | str = self._retrying(self._choose_version)
        run = self._describe()
        self.is_calibrated = bool(run.get("calibration"))
        try:
            self.config: RunConfig = from_dict(run["config"])
            self.logit_scale = float(run["logit_scale"])
        except (KeyError, TypeError, ValueError) as error:
            form = "a model of this project's release, whose run it understands"
            raise refusal("url", form, f"{address}: {error}", "Update this package.") from None

    def embed_files(self, files: Sequence[bytes]) -> tuple[Floats, Bools]:
        """Embed JPEG and PNG files.

        Returns:
            float32 (num_decoded, D), rows of unit length, and bool (num_files,): False where the server could
            not read a file.

        Raises:
            ServingError: see `failures`.
        """
        embedded, decoded = [np.empty((0, self._width), np.float32)], [np.empty(0, bool)]
        outputs = {"image_embeddings": np.float32, "decoded": np.bool_}
        for part in _chunks(files, FILES_AT_ONCE):
            answer = self.predict("encode_image", {"image_bytes": part}, outputs)
            self._require_embeddings(answer["image_embeddings"])
            embedded.append(answer["image_embeddings"][answer["decoded"]])
            decoded.append(answer["decoded"])
        return np.concatenate(embedded), np.concatenate(decoded)

    def embed_texts(self, texts: Sequence[str]) -> Floats:
        """Embed sentences: float32 (num_texts, D), rows of unit length.

        Raises:
            ServingError: see `failures`.
        """
        embedded = [np.empty((0, self._width), np.float32)]
        for part in _chunks([_utf8(text) for text in texts], TEXTS_AT_ONCE):
            answer = self.predict("encode_text", {"texts": part}, {"text_embeddings": np.float32})
            self._require_embeddings(answer["text_embeddings"])
            embedded.append(answer["text_embeddings"])
        return np.concatenate(embedded)

    def zero_shot(self, files: Sequence[bytes]) -> Scores:
        """Score JPEG and PNG files against the classes that were baked in at the export.

        Raises:
            ServingError: see `failures`.
        """
        require(bool(files), "files", "at least one file", "none")
        outputs = {"classes": np.object_, "scores": np.float32, "decoded": np.bool_}
        if self.is_calibrated:
            outputs["probabilities"] = np.float32
        parts = [
            self.predict("zero_shot", {"image_bytes": part}, outputs)
            for part in _chunks(files, FILES_AT_ONCE)
        ]
        decoded = np.concatenate([part["decoded"] for part in parts])
        scores, *probabilities = (
            np.concatenate([part[name][part["decoded"]] for part in parts])
            for name in ("scores", "probabilities")
            if name in outputs
        )
        classes = tuple(name.decode() for name in parts[0]["classes"][0])
        same = all(found.ndim == 2 and found.shape[1] == len(classes) for found in (scores, *probabilities))
        if not same:
            raise BadAnswer.of("answer", "a score for each class", (scores.shape, len(classes)))
        return Scores(classes, scores, decoded, *probabilities)

    def predict(
        self, signature: str, inputs: Mapping[str, Sequence[bytes] | Array], outputs: Mapping[str, Any]
    ) -> dict[str, Array]:
        """Call an endpoint.

        Args:
            signature: name of the endpoint.
            inputs: name → bytes (B,), or an array (B, …).
            outputs: name → NumPy dtype; object for strings, which come as bytes.

        Returns:
            Output → array (B, …).

        Raises:
            ServingError: see `failures`.
        """
        arrays = {name: _array(values) for name, values in inputs.items()}
        words = [] if "texts" not in inputs else [text.decode() for text in inputs["texts"]]
        answer = self._retrying(self._transport.predict, signature, arrays, outputs, self.version, words)
        num_rows = len(next(iter(arrays.values())))
        for name, values in answer.items():
            if values.ndim == 0 or len(values) != num_rows:
                raise BadAnswer.of("answer", f"{num_rows} rows of {name}", values.shape)
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                advice = "The model is broken; ask another version."
                raise BadAnswer.of("answer", f"{name} of finite numbers", "NaN or infinity", advice)
        return answer

    @property
    def _width(self) -> int:
        return self.config.model.projection_dim

    def _require_embeddings(self, values: Array) -> None:
        if values.ndim != 2 or values.shape[1] != self._width:
            raise BadAnswer.of("answer", f"embeddings of {self._width} numbers", values.shape)

    def _choose_version(self) -> int | str:
        """The version that all requests name."""
        asked = self.address
        try:
            states = self._transport.versions()
        except ModelNotFound:
            advice = "The server's models.config lists the names."
            raise ModelNotFound.of("model", "a name that the server knows", asked.model, advice) from None
        available = sorted(version for version, state in states.items() if state == "AVAILABLE")
        if asked.label is not None:
            return asked.label
        if asked.version is not None and asked.version not in states:
            known = f"one of {', '.join(map(str, available))}"
            raise ModelNotFound.of("version", known, asked.version)
        if not available or (asked.version is not None and asked.version not in available):
            text = ", ".join(f"{version} {state}" for version, state in sorted(states.items()))
            raise ServerUnavailable.of("version", "available", text, "See the server's log.")
        return available[-1] if asked.version is None else asked.version

    def _describe(self) -> dict[str, Any]:
        try:
            answer = self.predict("describe", {"names": [b""]}, {"run_json": np.object_})
        except RequestRefused as error:
            if "label" in str(error) and self.address.label is not None:
                form, advice = "a label that the server knows", "models.config lists version_labels."
                raise ModelNotFound.of("label", form, self.address.label, advice) from None
            form = "a version with the endpoint describe"
            raise RequestRefused.of("url", form, str(error), "Export the run again.") from None
        try:
            run = json.loads(answer["run_json"].ravel()[0])
        except ValueError:
            run = None
        if not isinstance(run, dict):
            raise BadAnswer.of("answer", "a run in JSON", without_texts("other bytes", []))
        return run


def connect(
    url: str,
    *,
    model: str | None = None,
    version: int | None = None,
    label: str | None = None,
    timeout: float = TIMEOUT,
    attempts: int = ATTEMPTS,
) -> ServedModel:
    """Connect to a served model.

        served = connect("grpc://HOST:8500/v1/models/medclip", timeout=5)
        served.embed_texts(["Edema."]).shape

    Args:
        url: http(s):// for REST, grpc(s):// for gRPC; see `parse_address`.
        model: its name, where the url has none.
        version: number; the newest one if neither it nor a label is named.
        label: of a version.
        timeout: seconds that an attempt may take.
        attempts: how often a request is sent at most.

    Raises:
        ValueError: a wrong argument.
        ServingError: see `failures`.
    """
    require(timeout > 0, "timeout", "more than 0 seconds", timeout)
    address = parse_address(url, model, version=version, label=label)
    if address.scheme.startswith("http"):
        from medclip_keras.serving.client.rest import RestTransport as Chosen
    else:
        from medclip_keras.serving.client.rpc import RpcTransport as Chosen  # type: ignore[assignment]
    return ServedModel(address, Chosen(address, timeout), attempts)


def _chunks(values: Sequence[bytes], at_once: int) -> Iterator[list[bytes]]:
    """Split values into requests of at most `at_once` values and, but for a single one, `BYTES_AT_ONCE`.

    >>> [len(part) for part in _chunks([b"x"] * 5, 2)], [len(part) for part in _chunks([bytes(2**24)] * 2, 2)]
    ([2, 2, 1], [1, 1])
    """
    part: list[bytes] = []
    num_bytes = 0
    for value in values:
        if part and (len(part) == at_once or num_bytes + len(value) > BYTES_AT_ONCE):
            yield part
            part, num_bytes = [], 0
        part.append(value)
        num_bytes += len(value)
    if part:
        yield part


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        form = "sentences that UTF-8 can write"
        raise refusal("texts", form, f"half a character at position {error.start}") from None


def _array(values: Sequence[bytes] | Array) -> Array:
    if isinstance(values, np.ndarray):
        return values
    strings = np.empty(len(values), object)
    strings[:] = values
    return strings


def _log_retry(state: tenacity.RetryCallState) -> None:
    error: Callable[[], Any] | Any = state.outcome.exception() if state.outcome else None
    wait = state.next_action.sleep if state.next_action else 0.0
    _LOG.info("attempt %d failed, next in %.1f s: %s", state.attempt_number, wait, error)
