"""The client in front of servers that fail: a sentence for each failure, and retries of the passing ones."""

import concurrent.futures
import contextlib
import http.server
import json
import logging
import socket
import threading
import time
import types

import grpc
import numpy as np
import pytest

from medclip_keras.config import to_dict
from medclip_keras.serving.client.address import parse_address
from medclip_keras.serving.client.failures import (
    BadAnswer,
    ModelNotFound,
    RequestRefused,
    ServerUnavailable,
    WrongAddress,
)
from medclip_keras.serving.client.messages import MESSAGES, to_tensor
from medclip_keras.serving.client.served_model import ServedModel, connect

UNIT = np.eye(16, dtype=np.float32)[:1]  # an embedding (1, 16)
SECRET = "The patient's effusion"


@pytest.fixture
def sleeps(monkeypatch):
    """Seconds that the retries would have waited."""
    waited = []
    monkeypatch.setattr("tenacity.nap.time", types.SimpleNamespace(sleep=waited.append))
    return waited


@pytest.fixture(scope="module")
def run_json(tiny):
    return json.dumps({"config": to_dict(tiny.config), "logit_scale": 14.0})


class Scripted(http.server.BaseHTTPRequestHandler):
    """Answers `describe` and the status as it must, and all else by the next line of the script."""

    protocol_version = "HTTP/1.1"
    run_json: str
    script: list

    def do_GET(self):
        status = {"model_version_status": [{"version": "1", "state": "AVAILABLE", "status": {}}]}
        self.reply(200, json.dumps(status))

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if request["signature_name"] == "describe":
            return self.reply(200, json.dumps({"outputs": [self.run_json]}))
        return self.script.pop(0)(self)

    def reply(self, status, text, *, length=None, kind="application/json", **headers):
        content = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(length or len(content)))
        self.send_header("Connection", "close")
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments):
        pass


def answer(status, text, **options):
    return lambda handler: handler.reply(status, text, **options)


def outputs(values):
    return answer(200, json.dumps({"outputs": values}))


GOOD = outputs(UNIT.tolist())


@pytest.fixture
def scripted(run_json):
    """Start a REST server that follows a script, and connect to it."""
    with contextlib.ExitStack() as stack:

        def start(*script, **options):
            handler = type("Handler", (Scripted,), {"run_json": run_json, "script": list(script)})
            server = stack.enter_context(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler))
            stack.callback(server.shutdown)
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
            model = connect(f"http://127.0.0.1:{server.server_port}", **{"timeout": 30, **options})
            return model, handler.script

        yield start


@pytest.mark.parametrize(
    "failure",
    [
        answer(503, json.dumps({"error": "busy"})),
        answer(502, "<html>Bad gateway</html>", kind="text/html"),
        answer(504, json.dumps({"error": "late"})),
        answer(200, '{"outputs": [[0.1, 0.2', length=1000),  # half an answer
        lambda handler: setattr(handler, "close_connection", True),  # none
        lambda handler: time.sleep(1.5),
    ],
)
def test_a_passing_failure_is_asked_again(scripted, sleeps, failure):
    model, left = scripted(failure, GOOD, timeout=0.7)
    np.testing.assert_array_equal(model.embed_texts([SECRET]), UNIT)
    assert (left, len(sleeps)) == ([], 1)


def test_attempts_are_bounded_and_their_waits_grow(scripted, sleeps, caplog):
    busy = answer(503, json.dumps({"error": SECRET}))
    model, left = scripted(*[busy] * 9, attempts=8)
    with caplog.at_level(logging.INFO), pytest.raises(ServerUnavailable, match="HTTP 503") as caught:
        model.embed_texts([SECRET])
    assert (len(left), len(sleeps)) == (1, 7)
    assert all(0 <= wait <= min(8, 0.5 * 2**n) for n, wait in enumerate(sleeps))
    assert caplog.text.count("attempt") == 7
    assert SECRET not in caplog.text + str(caught.value)


@pytest.mark.parametrize(
    ("failure", "kind", "sentence"),
    [
        (answer(200, "<html>Log in</html>", kind="text/html; x"), BadAnswer, "text/html, 19 bytes'. Check"),
        (answer(302, "", Location="http://login"), BadAnswer, "a JSON object of TensorFlow Serving"),
        (answer(404, "<html>nginx</html>", kind="text/html"), BadAnswer, "HTTP 404, text/html"),
        (answer(404, json.dumps({"error": "Servable not found"})), ModelNotFound, "Servable not found"),
        (answer(400, json.dumps({"error": "must be x"})), RequestRefused, "HTTP 400: must be x"),
        (answer(400, json.dumps({"error": f"bad {SECRET}"})), RequestRefused, "HTTP 400: .withheld"),
        (answer(500, json.dumps({"error": "broken"})), RequestRefused, "HTTP 500: broken"),
        (answer(200, "[1, 2]"), BadAnswer, "a JSON object"),
        (answer(200, "\xff"), BadAnswer, "a JSON object"),
        (answer(200, '{"predictions": []}'), BadAnswer, "text_embeddings"),
        (outputs([[float("nan")] * 16]), BadAnswer, "finite numbers"),
        (outputs([[float("inf")] * 16]), BadAnswer, "finite numbers"),
        (outputs([[1.0] * 16] * 2), BadAnswer, "1 rows of text_embeddings"),
        (outputs([[1.0] * 15]), BadAnswer, "embeddings of 16 numbers"),
        (outputs([1.0]), BadAnswer, "embeddings of 16 numbers"),
        (outputs([[1.0], [1.0, 2.0]]), BadAnswer, "text_embeddings of equally long rows"),
        (outputs([["a"] * 16]), BadAnswer, "text_embeddings of type float32"),
        (outputs({"embeddings": UNIT.tolist()}), BadAnswer, "the outputs text_embeddings"),
        (outputs(1.0), BadAnswer, "1 rows"),
    ],
)  # fmt: skip
def test_a_lasting_failure_ends_at_once_in_its_sentence(scripted, sleeps, failure, kind, sentence):
    model, _ = scripted(failure, GOOD)
    with pytest.raises(kind, match=sentence) as caught:
        model.embed_texts([SECRET])
    assert sleeps == []
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"image_embeddings": UNIT.tolist()}, "the outputs image_embeddings, decoded"),
        ({"image_embeddings": UNIT.tolist(), "decoded": ["false"]}, "decoded of type bool"),
        ({"image_embeddings": UNIT.tolist(), "decoded": [1]}, "decoded of type bool"),
        ({"image_embeddings": UNIT.tolist(), "decoded": []}, "1 rows of decoded"),
    ],
)
def test_half_an_answer_on_images_is_refused(scripted, values, sentence):
    model, _ = scripted(outputs(values))
    with pytest.raises(BadAnswer, match=sentence):
        model.embed_files([b"x"])


def test_half_a_character_is_not_sent(scripted):
    model, _ = scripted()
    with pytest.raises(ValueError, match="`texts` must be sentences that UTF-8 can write"):
        model.embed_texts(["\ud800"])


class Versions:
    """A transport with some versions and runs, and no server."""

    def __init__(self, states, run="{}"):
        self._states, self._run = states, run

    def versions(self):
        return self._states.pop(0) if isinstance(self._states, list) else self._states

    def predict(self, *arguments):
        if isinstance(self._run, Exception):
            raise self._run
        return {"run_json": np.array([self._run.encode()], object)}


def test_a_version_that_loads_is_waited_for(run_json, tiny, sleeps):
    address = parse_address("grpc://h:1")
    model = ServedModel(address, Versions([{3: "LOADING"}, {3: "AVAILABLE", 4: "LOADING"}], run_json))
    assert (model.version, model.config, len(sleeps)) == (3, tiny.config, 1)
    with pytest.raises(ServerUnavailable, match=r"`version` must be available. Received: '2 END, 3 LOADING'"):
        ServedModel(address, Versions({3: "LOADING", 2: "END"}, run_json), attempts=3)


@pytest.mark.parametrize(
    ("run", "sentence"),
    [
        ("{", "a run in JSON"),
        ("[]", "a run in JSON"),
        ("{}", "a model of this project's release"),
        ('{"config": {"unknown": 1}, "logit_scale": 1}', "Update this package"),
        (RequestRefused("no signature"), "a version with the endpoint describe.*Export the run again"),
    ],
)
def test_another_model_is_refused(run, sentence):
    address = parse_address("grpc://h:1")
    with pytest.raises(ValueError, match=sentence):
        ServedModel(address, Versions({1: "AVAILABLE"}, run))


class ScriptedRpc(grpc.GenericRpcHandler):
    """The same as `Scripted`, for gRPC: a line of the script is bytes, or a function of the context."""

    def __init__(self, run_json, script):
        self._run_json, self.script = run_json, script

    def service(self, details):
        method = self._status if details.method.endswith("GetModelStatus") else self._predict
        return grpc.unary_unary_rpc_method_handler(method)

    def _status(self, request, context):
        response = MESSAGES["GetModelStatusResponse"]()
        response.model_version_status.add(version=1, state=30)
        return response.SerializeToString()

    def _predict(self, request, context):
        if MESSAGES["PredictRequest"].FromString(request).model_spec.signature_name == "describe":
            return predicted(run_json=np.array([self._run_json.encode()], object))
        line = self.script.pop(0)
        return line if isinstance(line, bytes) else line(context)


def predicted(**arrays):
    response = MESSAGES["PredictResponse"]()
    for name, array in arrays.items():
        response.outputs[name].CopyFrom(to_tensor(array))
    return response.SerializeToString()


@pytest.fixture
def scripted_rpc(run_json):
    """Start a gRPC server that follows a script, and connect to it."""
    with contextlib.ExitStack() as stack:

        def start(*script, **options):
            handler = ScriptedRpc(run_json, list(script))
            server = grpc.server(concurrent.futures.ThreadPoolExecutor(2), handlers=[handler])
            port = server.add_insecure_port("127.0.0.1:0")
            server.start()
            stack.callback(lambda: server.stop(None))
            return connect(f"grpc://127.0.0.1:{port}", **options), handler.script

        yield start


def aborted(code, details=""):
    return lambda context: context.abort(getattr(grpc.StatusCode, code), details)


@pytest.mark.parametrize("failure", [aborted("UNAVAILABLE", "busy"), lambda context: time.sleep(1) or b""])
def test_a_passing_failure_of_grpc_is_asked_again(scripted_rpc, sleeps, failure):
    model, left = scripted_rpc(failure, predicted(text_embeddings=UNIT), timeout=0.5)
    np.testing.assert_array_equal(model.embed_texts([SECRET]), UNIT)
    assert (left, len(sleeps)) == ([], 1)


@pytest.mark.parametrize(
    ("line", "kind", "sentence"),
    [
        (aborted("INVALID_ARGUMENT", f"bad {SECRET}"), RequestRefused, "INVALID_ARGUMENT: .withheld"),
        (aborted("NOT_FOUND", "Servable not found"), ModelNotFound, "Servable not found"),
        (aborted("UNIMPLEMENTED"), BadAnswer, "UNIMPLEMENTED"),
        (b"\xff\xff", BadAnswer, "one of TensorFlow Serving"),
        (b"", BadAnswer, "the outputs text_embeddings"),
        (predicted(text_embeddings=UNIT * np.float32("nan")), BadAnswer, "finite numbers"),
        (predicted(text_embeddings=np.repeat(UNIT, 2, axis=0)), BadAnswer, "1 rows of text_embeddings"),
        (predicted(text_embeddings=UNIT.astype(np.int32)), BadAnswer, "text_embeddings of type float32"),
    ],
)
def test_a_lasting_failure_of_grpc_ends_at_once(scripted_rpc, sleeps, line, kind, sentence):
    model, _ = scripted_rpc(line)
    with pytest.raises(kind, match=sentence) as caught:
        model.embed_texts([SECRET])
    assert sleeps == []
    assert SECRET not in str(caught.value)


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_a_server_that_is_not_there_and_a_host_that_is_unknown(sleeps, scheme):
    with pytest.raises(ServerUnavailable, match=r"`url` must be a server that answers.*Start the server"):
        connect(f"{scheme}://127.0.0.1:{free_port()}", attempts=2)
    assert len(sleeps) == 1
    with pytest.raises(WrongAddress, match="an address with a known host"):
        connect(f"{scheme}://no-such-host.invalid:8501")
    assert len(sleeps) == 1


def test_a_server_without_tls_is_no_server_with_it(scripted, scripted_rpc, sleeps):
    rest, rpc = scripted()[0].address, scripted_rpc()[0].address
    for address in (rest, rpc):
        with pytest.raises(WrongAddress, match="whose certificate is accepted"):
            connect(f"{address.scheme}s://{address.server}")
    assert sleeps == []
