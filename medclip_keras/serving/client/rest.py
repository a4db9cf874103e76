"""TensorFlow Serving's REST interface.

Strings are sent as `{"b64": …}`, all inputs in the column format `{"inputs": {name: values}}`. Proxies and
certificates are those of the environment: HTTPS_PROXY, NO_PROXY, REQUESTS_CA_BUNDLE.
"""

import base64
import json
import urllib.parse
from collections.abc import Mapping
from typing import Any

import numpy as np
import requests
import urllib3.exceptions

from medclip_keras.evaluation.arrays import Array
from medclip_keras.serving.client.address import Address
from medclip_keras.serving.client.failures import (
    BadAnswer,
    ModelNotFound,
    RequestRefused,
    ServerUnavailable,
    WrongAddress,
    without_texts,
)

_BUSY = (429, 502, 503, 504)
_IS_THERE = "a server that answers"
_START = "Start the server, or check host and port."
_OTHER = "a JSON object of TensorFlow Serving"
_GATEWAY = "Check host, port and path; a proxy may have answered in the server's place (NO_PROXY)."


class RestTransport:
    """One connection to a served model; threads may share it.

    Args:
        address: of scheme http or https.
        timeout: seconds to connect, and seconds between two pieces of an answer.
    """

    def __init__(self, address: Address, timeout: float):
        self._address, self._timeout = address, timeout
        self._root = str(address)
        self._session = requests.Session()

    def predict(
        self,
        signature: str,
        inputs: Mapping[str, Array],
        outputs: Mapping[str, Any],
        version: int | str,
        words: list[str],
    ) -> dict[str, Array]:
        """Call a signature once.

        Args:
            signature: name.
            inputs: name → array; strings are objects of bytes.
            outputs: name → NumPy dtype; object for strings, which come as bytes.
            version: number, or label.
            words: the sentences among the inputs, which no error quotes.

        Returns:
            Output → array, of any shape.

        Raises:
            ServingError: see `failures`.
        """
        sent = {name: _to_json(array) for name, array in inputs.items()}
        body = json.dumps({"signature_name": signature, "inputs": sent}).encode()
        kind = "labels" if isinstance(version, str) else "versions"
        chosen = f"/{kind}/{urllib.parse.quote(str(version), safe='')}"
        answer = self._ask("POST", f"{chosen}:predict", body, words)
        found = answer.get("outputs")
        if not isinstance(found, dict) and len(outputs) == 1:  # a signature's only output has no name
            found = dict.fromkeys(outputs, found)
        if not isinstance(found, dict) or not set(outputs) <= set(found):
            raise BadAnswer.of("answer", f"the outputs {', '.join(outputs)}", sorted(found or ()))
        return {name: _to_array(name, found[name], np.dtype(dtype)) for name, dtype in outputs.items()}

    def versions(self) -> dict[int, str]:
        """The model's versions and their states.

        Raises:
            ServingError: see `failures`.
        """
        answer = self._ask("GET", "", None, [])
        try:
            return {int(one["version"]): str(one["state"]) for one in answer["model_version_status"]}
        except (KeyError, TypeError, ValueError):
            raise BadAnswer.of("answer", _OTHER, sorted(answer), _GATEWAY) from None

    def _ask(self, method: str, path: str, body: bytes | None, words: list[str]) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"}
        try:
            response = self._session.request(
                method,
                self._root + path,
                data=body,
                headers=headers,
                timeout=self._timeout,
                allow_redirects=False,  # a POST would become a GET
            )
        except requests.RequestException as error:
            raise self._explained(error) from None
        status = response.status_code
        if status in _BUSY:
            raise ServerUnavailable.of("url", _IS_THERE, f"{self._root}: HTTP {status}", "Try again later.")
        try:
            answer = json.loads(response.content)
        except ValueError:  # JSONDecodeError and UnicodeDecodeError
            answer = None
        if not isinstance(answer, dict) or (status != 200 and "error" not in answer):
            kind = response.headers.get("Content-Type", "no type").partition(";")[0][:40]
            received = f"{self._root}: HTTP {status}, {kind}, {len(response.content)} bytes"
            raise BadAnswer.of("answer", _OTHER, received, _GATEWAY)
        if status == 200:
            return answer
        said = without_texts(str(answer["error"]), words)
        if status == 404:
            raise ModelNotFound.of("url", "a served model", f"{self._root}: {said}")
        raise RequestRefused.of("request", "one that the server accepts", f"HTTP {status}: {said}")

    def _explained(self, error: requests.RequestException) -> Exception:
        reason = getattr(error.args[0] if error.args else None, "reason", None)
        if isinstance(error, requests.exceptions.SSLError):
            advice = (
                "Name the authority of a private certificate in REQUESTS_CA_BUNDLE; http:// is without TLS."
            )
            return WrongAddress.of("url", "a server whose certificate is accepted", self._root, advice)
        if isinstance(reason, urllib3.exceptions.NameResolutionError):
            return WrongAddress.of("url", "an address with a known host", self._root, _START)
        if isinstance(error, requests.exceptions.InvalidURL | requests.exceptions.InvalidProxyURL):
            return WrongAddress.of("url", "an address with a known host", self._root, _START)
        if isinstance(error, requests.exceptions.ProxyError):
            return ServerUnavailable.of("url", _IS_THERE, f"{self._root}: the proxy fails", _GATEWAY)
        if isinstance(error, requests.Timeout):
            late = f"{self._root}: nothing in {self._timeout:g} s"
            return ServerUnavailable.of("url", _IS_THERE, late, "Send fewer images at once, or wait longer.")
        return ServerUnavailable.of("url", _IS_THERE, f"{self._root}: no whole answer", _START)


def _to_json(array: Array) -> Any:
    if array.dtype != object:
        return array.tolist()
    return [{"b64": base64.b64encode(value).decode()} for value in array]


def _to_array(name: str, value: Any, dtype: np.dtype) -> Array:
    """Parsed JSON as an array.

    Raises:
        BadAnswer: values of another kind, or rows of different lengths.
    """
    try:
        found = np.asarray(value)
    except ValueError:
        raise BadAnswer.of("answer", f"{name} of equally long rows", "rows of different lengths") from None
    kinds = {"f": "fi", "i": "i", "b": "b", "O": "U"}[dtype.kind]
    if found.size and found.dtype.kind not in kinds:
        raise BadAnswer.of("answer", f"{name} of type {dtype}", f"{found.dtype}")
    if dtype.kind != "O":
        return found.astype(dtype)
    strings = np.empty(found.shape, object)
    strings[...] = np.vectorize(str.encode, otypes=[object])(found) if found.size else found
    return strings
