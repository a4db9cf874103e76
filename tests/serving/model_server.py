"""A model server for the tests: SavedModels behind TensorFlow Serving's REST and gRPC interfaces.

    python -m tests.serving.model_server CONFIG [REST_PORT GRPC_PORT]

CONFIG is JSON: {model: {"versions": {number: folder}, "labels": {label: number}, "joined_requests": 2}}. The
two ports are printed as one line of JSON when every version is loaded.

It stands in for TensorFlow Serving, of which no binary is to be had. Requests are read, checked and answered
as TensorFlow Serving's sources do: json_tensor.cc, predict_util.cc, get_model_status_impl.cc, http_server.cc
(status codes), server_core.cc (versions and labels). The graph is run in a session without any check of
shapes, as there. With "joined_requests" the requests of a signature wait for each other, as in
batching_session.cc, and are run as one batch.
"""

import concurrent.futures
import functools
import http.server
import json
import re
import sys
import threading
import urllib.parse
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
import tensorflow_text  # noqa: F401 (registers the operations)
from google.protobuf import json_format
from tensorflow.core.protobuf import config_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from .rest_json import Failure, invalid, predict_json

CODES = grpc.StatusCode
HTTP_STATUS = {
    CODES.CANCELLED: 499, CODES.UNKNOWN: 500, CODES.INVALID_ARGUMENT: 400, CODES.DEADLINE_EXCEEDED: 504,
    CODES.NOT_FOUND: 404, CODES.FAILED_PRECONDITION: 400, CODES.UNIMPLEMENTED: 501, CODES.INTERNAL: 500,
    CODES.UNAVAILABLE: 503,
}  # fmt: skip
SECONDS_TO_JOIN = 20.0
PREDICT_PATH = re.compile(r"(?i)/v1/models/([^/:]+)(?:(?:/versions/(\d+))|(?:/labels/([^/:]+)))?:predict")
STATUS_PATH = re.compile(
    r"(?i)/v1/models(?:/([^/:]+))?(?:(?:/versions/(\d+))|(?:/labels/([^/:]+)))?(?:\/(metadata))?"
)


class Version:
    """A loaded SavedModel; its signatures are run in a session, as TensorFlow Serving does."""

    def __init__(self, folder):
        self.session = tf.compat.v1.Session(graph=tf.Graph())
        with self.session.graph.as_default():
            loaded = tf.compat.v1.saved_model.load(self.session, ["serve"], folder)
        self.signatures = loaded.signature_def
        self._callables: dict[tuple, Any] = {}
        self._lock = threading.Lock()

    def signature(self, name):
        """SignatureDef of a name; only Predict's signatures are served."""
        return self.signatures.get(name or "serving_default")

    def run(self, name, inputs, outputs):
        """Run a signature on arrays; shapes are not checked here, nor in TensorFlow Serving."""
        signature, names = self.signature(name), sorted(inputs)
        key = (name, tuple(names), tuple(outputs))
        with self._lock:
            if key not in self._callables:
                feeds, fetches = (
                    [signature.inputs[n].name for n in names],
                    [signature.outputs[n].name for n in outputs],
                )
                options = config_pb2.CallableOptions(feed=feeds, fetch=fetches)
                self._callables[key] = self.session._make_callable_from_options(options)
        try:
            return self._callables[key](*(inputs[one] for one in names))
        except tf.errors.OpError as error:
            code = next((one for one in CODES if one.value[0] == error.error_code), CODES.UNKNOWN)
            raise Failure(code, error.message) from None


class Joined:
    """Runs the requests of a signature together; each gets its own rows of the answer."""

    def __init__(self, num_requests):
        self._num_requests, self._lock = num_requests, threading.Lock()
        self._waiting: dict[tuple, list] = {}
        self.largest = 0

    def run(self, version, name, inputs, outputs):
        sizes = {array.shape[:1] for array in inputs.values()}
        if () in sizes:
            raise invalid("Batching Run() input tensors must have at least one dimension")
        if len(sizes) > 1:
            raise invalid("Batching Run() input tensors must have equal 0th-dimension size")
        future, key = concurrent.futures.Future(), (name, tuple(sorted(inputs)), tuple(outputs))
        with self._lock:
            queue = self._waiting.setdefault(key, [])
            queue.append((inputs, future))
            if len(queue) >= self._num_requests:
                self._start(version, key)
            else:
                timer = threading.Timer(SECONDS_TO_JOIN, self._start_late, (version, key, future))
                timer.daemon = True
                timer.start()
        return future.result()

    def _start_late(self, version, key, future):
        with self._lock:
            if not future.done():
                self._start(version, key)

    def _start(self, version, key):
        queue = self._waiting.pop(key, [])
        if queue:
            threading.Thread(target=self._run_all, args=(version, key, queue), daemon=True).start()

    def _run_all(self, version, key, queue):
        name, names, outputs = key
        try:
            joined = {one: self._concatenated([inputs[one] for inputs, _ in queue]) for one in names}
            answers = version.run(name, joined, outputs)
            counts = [len(inputs[names[0]]) for inputs, _ in queue]
            for answer in answers:
                if answer.shape[:1] != (sum(counts),):
                    text = "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension"
                    raise Failure(CODES.FAILED_PRECONDITION, f"{text} sizes of the input tensors")
            self.largest = max(self.largest, len(queue))
            ends = np.cumsum(counts)
            for (_, future), start, end in zip(queue, ends - counts, ends, strict=True):
                future.set_result([answer[start:end] for answer in answers])
        except Failure as failure:
            for _, future in queue:
                future.set_exception(failure)

    @staticmethod
    def _concatenated(arrays):
        if len({array.shape[1:] for array in arrays}) > 1:
            raise Failure(
                CODES.FAILED_PRECONDITION,
                "Tensors with name cannot be batched: their shapes differ outside the 0th dimension",
            )
        return np.concatenate(arrays)


class Models:
    """All served versions, by model."""

    def __init__(self, config):
        loaded = functools.cache(Version)
        self._versions = {
            model: {int(number): loaded(folder) for number, folder in one["versions"].items()}
            for model, one in config.items()
        }
        self._labels = {model: one.get("labels", {}) for model, one in config.items()}
        self.joined = {
            model: Joined(one["joined_requests"]) for model, one in config.items() if "joined_requests" in one
        }

    def version(self, spec):
        """Number and version of a ModelSpec."""
        versions = self._versions.get(spec.name, {})
        kind = spec.WhichOneof("version_choice")
        if kind == "version":
            number = spec.version.value
        elif kind == "version_label":
            if spec.version_label not in self._labels.get(spec.name, {}):
                raise invalid(f"Unrecognized servable version label: {spec.version_label}")
            number = self._labels[spec.name][spec.version_label]
        else:
            number = max(versions, default=0)
        if number not in versions:
            asked = f"Specific({spec.name}, {number})" if kind == "version" else f"Latest({spec.name})"
            raise Failure(CODES.NOT_FOUND, f"Servable not found for request: {asked}")
        return number, versions[number]

    def predict(self, request):
        """PredictRequest to PredictResponse."""
        number, version = self.version(request.model_spec)
        name = request.model_spec.signature_name or "serving_default"
        signature = version.signature(name)
        if signature is None:
            raise Failure(CODES.FAILED_PRECONDITION, f'Serving signature key "{name}" not found.')
        inputs = _checked_inputs(signature, request)
        outputs = sorted(request.output_filter or signature.outputs)
        for one in outputs:
            if one not in signature.outputs:
                raise invalid(f"output tensor alias not found in signature: {one}")
        is_whole = set(outputs) == set(signature.outputs)  # others bypass the batcher
        joined = self.joined.get(request.model_spec.name) if is_whole else None
        run = (lambda *arguments: joined.run(version, *arguments)) if joined else version.run
        response = predict_pb2.PredictResponse()
        response.model_spec.name, response.model_spec.signature_name = request.model_spec.name, name
        response.model_spec.version.value = number
        for one, array in zip(outputs, run(name, inputs, outputs), strict=True):
            response.outputs[one].CopyFrom(_proto_of_fields(array))
        return response

    def status(self, spec):
        """GetModelStatusResponse; a label is passed over, as there."""
        versions = self._versions.get(spec.name, {})
        chosen = sorted(versions)
        if spec.WhichOneof("version_choice") == "version":
            chosen = [number for number in chosen if number == spec.version.value]
            if not chosen:
                text = f"Could not find version {spec.version.value} of model {spec.name}"
                raise Failure(CODES.NOT_FOUND, text)
        if not chosen:
            raise Failure(CODES.NOT_FOUND, f"Could not find any versions of model {spec.name}")
        response = get_model_status_pb2.GetModelStatusResponse()
        for number in chosen:
            response.model_version_status.add(version=number, state=30).status.error_message = ""
        return response

    def metadata(self, spec):
        """GetModelMetadataResponse with the signatures."""
        number, version = self.version(spec)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name, response.model_spec.version.value = spec.name, number
        signatures = get_model_metadata_pb2.SignatureDefMap()
        for name, one in version.signatures.items():
            signatures.signature_def[name].CopyFrom(one)
        response.metadata["signature_def"].Pack(signatures)
        return response


def _checked_inputs(signature, request):
    sent, known = set(request.inputs), set(signature.inputs)
    if len(sent) != len(known):
        raise invalid(
            f"input size does not match signature: {len(sent)}!={len(known)} "
            f"len({{{','.join(sorted(sent))}}}) != len({{{','.join(sorted(known))}}}). "
            f"Sent extra: {{{','.join(sorted(sent - known))}}}. "
            f"Missing but required: {{{','.join(sorted(known - sent))}}}."
        )
    arrays = {}
    for name, info in signature.inputs.items():
        if name not in sent:
            raise invalid(f"input tensor alias not found in signature: {name}")
        dtype = tf.dtypes.as_dtype(info.dtype)
        try:
            arrays[name] = tf.make_ndarray(request.inputs[name])
            sizes = [dim.size for dim in request.inputs[name].tensor_shape.dim]
            if min(sizes, default=0) < 0:
                raise ValueError
        except (TypeError, ValueError):
            raise invalid(f"Invalid TensorProto for input {name}") from None
        if request.inputs[name].dtype != info.dtype:
            found = tf.dtypes.as_dtype(request.inputs[name].dtype).name
            raise invalid(f"Expects arg[0] to be {dtype.name} but {found} is provided")
    return arrays


def _proto_of_fields(array):
    """A TensorProto with its values in the fields of their type, not in tensor_content."""
    if array.dtype == object or array.dtype.kind == "S":
        return tf.make_tensor_proto(array.astype(object), tf.string, array.shape)
    proto = tf.make_tensor_proto(array[:0])
    proto.tensor_content = b""
    del proto.tensor_shape.dim[:]
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    field = {"f": "float_val", "i": "int_val", "u": "int_val", "b": "bool_val"}[array.dtype.kind]
    getattr(proto, field).extend(array.ravel().tolist())
    return proto


class Handler(http.server.BaseHTTPRequestHandler):
    """REST requests of `models`, an attribute of the class."""

    protocol_version = "HTTP/1.1"
    models: Models

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._reply(lambda: self._predict(body))

    def do_GET(self):
        self._reply(self._get)

    def _predict(self, body):
        found = PREDICT_PATH.fullmatch(self.path)
        if not found:
            raise invalid(f"Malformed request: POST {self.path}")
        return predict_json(self.models, _spec(*found.groups()), body)

    def _get(self):
        if self.path == "/largest_batch":  # of this server alone
            return {model: one.largest for model, one in self.models.joined.items()}
        found = STATUS_PATH.fullmatch(self.path)
        if not found or not found[1]:
            raise invalid(f"Malformed request: GET {self.path}")
        spec = _spec(*found.groups()[:3])
        if found[4] is None:
            return json_format.MessageToDict(
                self.models.status(spec),
                preserving_proto_field_name=True,
                always_print_fields_with_no_presence=True,
            )
        return json_format.MessageToDict(self.models.metadata(spec), preserving_proto_field_name=True)

    def _reply(self, work):
        try:
            status, answer = 200, work()
        except Failure as failure:
            status, answer = HTTP_STATUS[failure.code], {"error": failure.message}
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments):
        pass


def _spec(model, version, label):
    spec = model_pb2.ModelSpec(name=urllib.parse.unquote(model))
    if version:
        spec.version.value = int(version)
    if label:
        spec.version_label = urllib.parse.unquote(label)
    return spec


# gRPC


def _answered(context, work):
    try:
        return work()
    except Failure as failure:
        context.abort(failure.code, failure.message)


class Prediction(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, models):
        self._models = models

    def Predict(self, request, context):  # noqa: N802
        return _answered(context, lambda: self._models.predict(request))

    def GetModelMetadata(self, request, context):  # noqa: N802
        return _answered(context, lambda: self._models.metadata(request.model_spec))


class Status(model_service_pb2_grpc.ModelServiceServicer):
    def __init__(self, models):
        self._models = models

    def GetModelStatus(self, request, context):  # noqa: N802
        return _answered(context, lambda: self._models.status(request.model_spec))


def main(config, rest_port="0", grpc_port="0"):
    """Serve until the process is ended."""
    models = Models(json.loads(config))
    Handler.models = models
    rest = http.server.ThreadingHTTPServer(("127.0.0.1", int(rest_port)), Handler)
    rest.daemon_threads = True
    executor = concurrent.futures.ThreadPoolExecutor(16)
    rpc = grpc.server(executor, options=[("grpc.max_receive_message_length", -1)])
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Prediction(models), rpc)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(Status(models), rpc)
    port = rpc.add_insecure_port(f"127.0.0.1:{grpc_port}")
    rpc.start()
    print(json.dumps({"rest": rest.server_port, "grpc": port}), flush=True)
    rest.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
