"""TensorFlow Serving's gRPC interface: PredictionService and ModelService.

Under grpcs:// the authorities of certificates are gRPC's own, or those of the file that the environment
variable GRPC_DEFAULT_SSL_ROOTS_FILE_PATH names.
"""

from collections.abc import Mapping
from typing import Any

import grpc
import numpy as np

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
from medclip_keras.serving.client.messages import MESSAGES, to_array, to_tensor, versions_of

_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", 2**30),  # its default of 4 MiB is 500 images' features
    ("grpc.initial_reconnect_backoff_ms", 200),  # a server that was started again is found soon
    ("grpc.max_reconnect_backoff_ms", 2000),
)
_IS_THERE = "a server that answers"
_START = "Start the server, or check host and port (gRPC has another port than REST)."


class RpcTransport:
    """One channel to a served model; threads may share it.

    Args:
        address: of scheme grpc or grpcs.
        timeout: seconds from a call to its whole answer.
    """

    def __init__(self, address: Address, timeout: float):
        self._address, self._timeout = address, timeout
        secure = address.scheme == "grpcs"
        credentials = grpc.ssl_channel_credentials() if secure else None
        self._channel = (
            grpc.secure_channel(address.server, credentials, _OPTIONS)
            if secure
            else grpc.insecure_channel(address.server, _OPTIONS)
        )
        self._predict = self._method("PredictionService/Predict", "PredictResponse")
        self._status = self._method("ModelService/GetModelStatus", "GetModelStatusResponse")

    def predict(
        self,
        signature: str,
        inputs: Mapping[str, Array],
        outputs: Mapping[str, Any],
        version: int | str,
        words: list[str],
    ) -> dict[str, Array]:
        """Call a signature once; arguments, result and errors are those of `RestTransport.predict`.

        All outputs are asked for: a server joins no requests that name some.
        """
        request = MESSAGES["PredictRequest"](model_spec=self._spec(version))
        request.model_spec.signature_name = signature
        for name, array in inputs.items():
            request.inputs[name].CopyFrom(to_tensor(array))
        response = self._call(self._predict, request, words)
        if not set(outputs) <= set(response.outputs):
            raise BadAnswer.of("answer", f"the outputs {', '.join(outputs)}", sorted(response.outputs))
        arrays = {name: to_array(response.outputs[name]) for name in outputs}
        for name, array in arrays.items():
            if array.dtype != np.dtype(outputs[name]):
                raise BadAnswer.of("answer", f"{name} of type {np.dtype(outputs[name])}", f"{array.dtype}")
        return arrays

    def versions(self) -> dict[int, str]:
        """The model's versions and their states.

        Raises:
            ServingError: see `failures`.
        """
        request = MESSAGES["GetModelStatusRequest"](model_spec=self._spec(None))
        return dict(versions_of(self._call(self._status, request, [])))

    def _spec(self, version: int | str | None) -> Any:
        spec = MESSAGES["ModelSpec"](name=self._address.model)
        if isinstance(version, str):
            spec.version_label = version
        elif version is not None:
            spec.version.value = version
        return spec

    def _method(self, name: str, response: str) -> grpc.UnaryUnaryMultiCallable:
        return self._channel.unary_unary(
            f"/tensorflow.serving.{name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=MESSAGES[response].FromString,
        )

    def _call(self, method: grpc.UnaryUnaryMultiCallable, request: Any, words: list[str]) -> Any:
        try:
            return method(request, timeout=self._timeout)
        except grpc.RpcError as error:
            raise self._explained(error.code(), error.details() or "", words) from None

    def _explained(self, code: grpc.StatusCode, details: str, words: list[str]) -> Exception:
        place, said = str(self._address), without_texts(details, words)
        codes = grpc.StatusCode
        if code == codes.NOT_FOUND:
            return ModelNotFound.of("url", "a served model", f"{place}: {said}")
        if code == codes.DEADLINE_EXCEEDED:
            late = f"{place}: no answer in {self._timeout:g} s"
            return ServerUnavailable.of("url", _IS_THERE, late, "Send fewer images at once, or wait longer.")
        if code == codes.UNAVAILABLE and ("SSL" in details or "certificate" in details.lower()):
            advice = "Name the authority of a private certificate in GRPC_DEFAULT_SSL_ROOTS_FILE_PATH."
            return WrongAddress.of("url", "a server whose certificate is accepted", place, advice)
        if code == codes.UNAVAILABLE and ("errors resolving" in details or "DNS" in details):
            return WrongAddress.of("url", "an address with a known host", place, _START)
        if code in (codes.UNAVAILABLE, codes.CANCELLED):
            return ServerUnavailable.of("url", _IS_THERE, place, _START)
        if code in (codes.UNIMPLEMENTED, codes.UNKNOWN) or "deserializing response" in details:
            return BadAnswer.of(
                "answer", "one of TensorFlow Serving", f"{place}: {code.name}: {said}", _START
            )
        return RequestRefused.of("request", "one that the server accepts", f"{code.name}: {said}")
