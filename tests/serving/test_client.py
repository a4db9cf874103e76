"""Contract of the client with a server that holds the SavedModel, over sockets, by REST and by gRPC."""

import concurrent.futures
import io
import json
import os
import signal
import subprocess
import sys
import threading

import grpc
import numpy as np
import PIL.Image
import pydicom
import pytest
import requests
import tensorflow as tf
from scipy.special import softmax
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

import medclip_keras
from medclip_keras.serving.client import served_model
from medclip_keras.serving.client.__main__ import main
from medclip_keras.serving.client.failures import ModelNotFound, RequestRefused
from medclip_keras.serving.client.served_model import connect

SCHEMES = ("http", "grpc")
TEXTS = ["Edema.", "Über die Lunge: 肺水肿", "", "heart " * 4000]
GRAY = np.random.default_rng(0).integers(0, 256, (30, 46), np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 65536, (46, 30, 3), np.uint16)


def png(pixels):
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def picture(seed):
    return png(np.random.default_rng(seed).integers(0, 256, (20 + seed, 31), np.uint8))


def dicom(pixels):
    file = pydicom.Dataset()
    file.file_meta = pydicom.dataset.FileMetaDataset()
    file.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    file.SOPClassUID, file.SOPInstanceUID = pydicom.uid.SecondaryCaptureImageStorage, "1.2.3"
    file.Rows, file.Columns = pixels.shape
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME1"
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, 12, 11, 0
    file.PixelData = (pixels.astype(np.uint16) * 16).tobytes()
    buffer = io.BytesIO()
    file.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def folder(saved_model):
    return medclip_keras.load(saved_model)


@pytest.fixture(scope="module")
def served(server):
    """A served model a scheme."""
    return {scheme: connect(server.model(scheme)) for scheme in SCHEMES}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Images of all kinds: paths, bytes, arrays, PIL; gray, colour, 16 bits, DICOM, one of a pixel."""
    path = tmp_path_factory.mktemp("images")
    PIL.Image.fromarray(GRAY).save(path / "picture.jpg")
    (path / "picture.dcm").write_bytes(dicom(GRAY))
    deep = GRAY.astype(np.uint16) * 200
    of_paths = [path / "picture.jpg", str(path / "picture.dcm")]
    return [*of_paths, png(GRAY), dicom(GRAY.T), GRAY, deep, COLOUR, PIL.Image.fromarray(deep), GRAY[:1, :1]]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_server_answers_as_the_folder(server, folder, images, scheme):
    model = medclip_keras.load(server.model(scheme))
    prompts = {"Edema": ["edema", "wet lungs"], "Mass": ["a mass"]}
    embeddings = folder.encode_images(images)
    assert np.abs(np.diff(embeddings, axis=0)).max(axis=1).min() > 1e-4
    for answer in (
        lambda one: one.encode_images(images),
        lambda one: one.encode_texts(TEXTS),
        lambda one: one.similarity(images, "edema"),
        lambda one: np.stack(list(one.classify(images, prompts).values())),
        lambda one: np.stack(list(one.classify(images, ["Edema"], mode="single", contrast="none").values())),
    ):
        np.testing.assert_allclose(answer(model), answer(folder), atol=1e-5)
    for here, there in zip(folder.rank(images, TEXTS, k=2), model.rank(images, TEXTS, k=2), strict=True):
        assert [text for text, _ in here] == [text for text, _ in there]
        np.testing.assert_allclose([c for _, c in here], [c for _, c in there], atol=1e-5)
    assert (model.config, model.logit_scale) == (folder.config, pytest.approx(folder.logit_scale))
    assert model.made_from == {"served": server.model(scheme), "run": "tiny", "version": 2}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_an_unreadable_image_is_named_and_the_others_are_embedded(server, folder, tmp_path, scheme):
    (tmp_path / "notes.png").write_text("no picture")
    bad = [GRAY, tmp_path / "notes.png", b"\x89PNG", tmp_path / "missing.png", COLOUR, b""]
    embeddings, reasons = medclip_keras.load(server.model(scheme)).encode_readable(bad)
    np.testing.assert_allclose(embeddings, folder.encode_images([GRAY, COLOUR]), atol=1e-5)
    assert [bool(reason) for reason in reasons] == [False, True, True, True, False, True]
    assert "notes.png' cannot be read: it is not a whole JPEG, PNG or DICOM file" in reasons[1]
    assert reasons[2].startswith("images[2] cannot be read: it is not a whole")
    assert reasons[3].endswith("missing.png' cannot be read: No such file or directory")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_many_images_and_texts_are_sent_in_bounded_requests(served, tiny, monkeypatch, scheme):
    files, texts = [picture(seed) for seed in range(40)], [f"lung {i}" for i in range(300)]
    transport, rows = served[scheme]._transport, []

    def counted(signature, inputs, *arguments):
        rows.append(len(next(iter(inputs.values()))))
        return type(transport).predict(transport, signature, inputs, *arguments)

    monkeypatch.setattr(transport, "predict", counted)
    expected = tiny.endpoints.encode_image(tf.constant(files))["image_embeddings"]
    np.testing.assert_allclose(served[scheme].embed_files(files)[0], expected, atol=1e-5)
    assert rows == [32, 8]
    monkeypatch.setattr(served_model, "BYTES_AT_ONCE", len(files[0]) + len(files[1]))
    served[scheme].embed_files(files[:4])
    assert rows[2:] == [2, 1, 1]
    of_texts = served[scheme].embed_texts(texts)
    assert rows[5:] == [256, 44] or sum(rows[5:]) == 300
    np.testing.assert_allclose(
        of_texts[-1:], tiny.endpoints.encode_text(tf.constant(texts[-1:]))["text_embeddings"], atol=1e-5
    )
    assert served[scheme].embed_files([])[0].shape == (0, 16)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_zero_shot_scores_the_classes_of_the_export(served, server, tiny, scheme):
    files = [picture(0), b"no picture", picture(1)]
    answer = tiny.endpoints.zero_shot(tf.constant(files))
    found = served[scheme].zero_shot(files)
    assert list(found.classes) == [name.decode() for name in answer["classes"][0].numpy()]
    assert found.decoded.tolist() == [True, False, True]
    np.testing.assert_allclose(found.scores, answer["scores"].numpy()[[0, 2]], atol=1e-4)
    assert found.probabilities is None
    calibrated = connect(server.model(scheme, "tokens_only")).zero_shot(files).probabilities
    np.testing.assert_allclose(calibrated, softmax(2 * found.scores, axis=1), atol=1e-4)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_requests_name_the_version_that_was_chosen(server, scheme):
    assert connect(server.model(scheme)).version == 2  # the newest
    assert connect(server.model(scheme) + "/versions/1").version == 1
    assert connect(server.model(scheme), version=1).version == 1
    assert connect(server.model(scheme) + "/labels/stable").embed_texts(["Edema."]).shape == (1, 16)
    with pytest.raises(ModelNotFound, match=r"`version` must be one of 1, 2. Received: 7"):
        connect(server.model(scheme), version=7)
    with pytest.raises(
        ModelNotFound, match=r"`label` must be a label that the server knows. Received: 'new'"
    ):
        connect(server.model(scheme), label="new")
    with pytest.raises(ModelNotFound, match=r"`model` must be a name that the server knows. Received: 'no'"):
        connect(server.model(scheme, "no"))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_version_without_text_endpoints_embeds_images_and_refuses_texts(server, folder, scheme):
    model = medclip_keras.load(server.model(scheme, "tokens_only"))
    np.testing.assert_allclose(model.encode_images(GRAY), folder.encode_images(GRAY), atol=1e-5)
    with pytest.raises(RequestRefused, match=r"`request` must be one .*encode_text.* not found"):
        model.encode_texts("Edema.")


def predict(server, body, model="medclip"):
    return requests.post(f"{server.rest}/v1/models/{model}:predict", data=json.dumps(body), timeout=60)


def b64(content):
    return {
        "b64": tf.io.encode_base64(content, pad=True).numpy().decode().replace("-", "+").replace("_", "/")
    }


def test_rows_and_columns_have_equal_answers(server):
    files = [b64(picture(0)), b64(picture(1))]
    rows = predict(server, {"signature_name": "encode_image", "instances": files}).json()["predictions"]
    named = [{"image_bytes": file} for file in files]
    assert predict(server, {"instances": named}).json()["predictions"] == rows
    columns = predict(server, {"inputs": {"image_bytes": files}}).json()["outputs"]
    assert [row["image_embeddings"] for row in rows] == columns["image_embeddings"]
    assert columns["decoded"] == [True, True]


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"signature_name": "encode_text", "inputs": "Edema."}, "texts"),  # a scalar
        ({"signature_name": "encode_text", "inputs": [["Edema."]]}, "texts"),
        ({"signature_name": "encode_text", "inputs": ["x"] * 10000}, "at most 256 rows"),
        ({"signature_name": "encode_text", "inputs": [3]}, "is not of expected type: string"),
        ({"signature_name": "encode_image", "inputs": [{"b64": "no base64!"}]}, "Unable to base64 decode"),
        ({"signature_name": "encode_image", "inputs": {"images": ["x"]}}, "Missing named input: image_bytes"),
        ({"signature_name": "encode_pictures", "inputs": ["x"]}, "not found in signature def"),
        (
            {"signature_name": "encode_tokens", "inputs": {"token_ids": [[1.5]], "padding_mask": [[1]]}},
            "type",
        ),
        ({"instances": [{"image_bytes": "x", "more": "y"}]}, "keys must be equal to: image_bytes"),
    ],
)
def test_a_wrong_request_is_refused_and_the_server_lives(server, body, sentence):
    answer = predict(server, body)
    assert (answer.status_code, sentence in answer.json()["error"]) == (400, True), answer.text[:500]
    assert server.process.poll() is None


def test_wrong_messages_are_refused_and_the_server_lives(server):
    with grpc.insecure_channel(server.grpc.removeprefix("grpc://")) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)

        def refused(signature, **inputs):
            request = predict_pb2.PredictRequest()
            request.model_spec.name, request.model_spec.signature_name = "medclip", signature
            for name, value in inputs.items():
                request.inputs[name].CopyFrom(value)
            with pytest.raises(grpc.RpcError) as caught:
                stub.Predict(request, timeout=60)
            return caught.value.code(), caught.value.details()

        code, invalid = grpc.StatusCode, grpc.StatusCode.INVALID_ARGUMENT
        assert refused("encode_text", texts=tf.make_tensor_proto("Edema."))[0] == invalid
        assert refused("encode_text", texts=tf.make_tensor_proto([1.0])) == (
            invalid,
            "Expects arg[0] to be string but float32 is provided",
        )
        assert (
            "Missing but required: {texts}"
            in refused("encode_text", words=tf.make_tensor_proto(["x"]), more=tf.make_tensor_proto(["x"]))[1]
        )
        assert "input tensor alias not found" in refused("encode_text", words=tf.make_tensor_proto(["x"]))[1]
        assert refused("encode_pictures", texts=tf.make_tensor_proto(["x"]))[0] == code.FAILED_PRECONDITION
        broken = tf.make_tensor_proto(["x"])
        broken.tensor_shape.dim[0].size = -1
        assert refused("encode_text", texts=broken)[0] == invalid
    assert server.process.poll() is None


def test_200_megabytes_are_not_sent_and_not_decoded(server, served):
    huge = bytes(200_000_000)
    _, reasons = medclip_keras.load(server.grpc).encode_readable([huge, GRAY])
    assert "a file of at most 67,108,864 bytes" in reasons[0]
    assert reasons[1] == ""
    _, decoded = served["grpc"].embed_files([huge, picture(0)])  # a stranger's client
    assert decoded.tolist() == [False, True]
    assert server.process.poll() is None


def test_two_users_in_one_batch_have_their_own_answers(server, tiny):
    def ask(scheme, files, texts, start):
        model = connect(server.model(scheme, "joined"))
        start.wait(60)
        return model.zero_shot(files).scores, model.embed_texts(texts), model.embed_files(files)[0]

    # The connections' `describe` is joined too.
    questions = [("http", [picture(0), picture(1)], ["Edema."]), ("grpc", [picture(2)], ["heart", "lung"])]
    start = threading.Barrier(2)
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(lambda question: ask(*question, start), questions))
    for (_, files, texts), (scores, of_texts, of_files) in zip(questions, answers, strict=True):
        np.testing.assert_allclose(scores, tiny.endpoints.zero_shot(tf.constant(files))["scores"], atol=1e-4)
        expected = tiny.endpoints.encode_text(tf.constant(texts))["text_embeddings"]
        np.testing.assert_allclose(of_texts, expected, atol=1e-5)
        expected = tiny.endpoints.encode_image(tf.constant(files))["image_embeddings"]
        np.testing.assert_allclose(of_files, expected, atol=1e-5)
    assert requests.get(f"{server.rest}/largest_batch", timeout=60).json() == {"joined": 2}


def test_threads_share_a_client(served, tiny):
    files = [[picture(seed)] for seed in range(12)]
    expected = [tiny.endpoints.encode_image(tf.constant(one))["image_embeddings"] for one in files]
    for scheme in SCHEMES:
        with concurrent.futures.ThreadPoolExecutor(6) as threads:
            found = [embeddings for embeddings, _ in threads.map(served[scheme].embed_files, files)]
        np.testing.assert_allclose(np.stack(found), expected, atol=1e-5)


def test_metadata_lists_the_endpoints_of_the_client(server):
    path = f"{server.rest}/v1/models/medclip/versions/1/metadata"
    metadata = requests.get(path, timeout=60).json()["metadata"]["signature_def"]["signature_def"]
    assert {"encode_image", "encode_text", "zero_shot", "describe"} <= set(metadata)
    assert metadata["describe"]["outputs"]["run_json"]["dtype"] == "DT_STRING"


def test_the_command_prints_a_line_an_image(server, folder, tmp_path, capsys):
    for name in ("a", "b"):
        (tmp_path / f"{name}.png").write_bytes(picture(ord(name)))
    (tmp_path / "bad.png").write_text("no picture")
    paths = [str(tmp_path / f"{name}.png") for name in ("a", "bad", "b")]
    assert main(["--url", server.rest, *paths, "--classes", "Edema, Mass"]) == 1
    printed, said = capsys.readouterr()
    scores = folder.classify([paths[0], paths[2]], ["Edema", "Mass"])
    rows = [f"Edema {edema:.2f}, Mass {mass:.2f}" for edema, mass in zip(*scores.values(), strict=True)]
    assert printed.splitlines() == [f"{paths[0]}: {rows[0]}", f"{paths[2]}: {rows[1]}"]
    assert f"{paths[1]!r} cannot be read" in said
    missing = str(tmp_path / "missing.png")
    assert (
        main(["--url", server.grpc, "--model", "medclip", "--version", "1", "--json", *paths, missing]) == 1
    )
    found = json.loads(capsys.readouterr().out)
    assert (found["version"], [image["image"] for image in found["images"]]) == (1, [*paths, missing])
    assert list(found["images"][2]["scores"]) == list(folder.config.evaluation.findings)
    assert all("cannot be read" in found["images"][i]["error"] for i in (1, 3))
    assert main(["--url", server.rest, "--model", "no", *paths]) == 1
    assert capsys.readouterr().err.startswith("medclip_keras.serving.client: `model` must be a name")


def test_the_client_needs_neither_tensorflow_nor_keras(server, folder, tmp_path):
    (tmp_path / "picture.dcm").write_bytes(dicom(GRAY))
    code = f"""
import json, sys
for name in ("tensorflow", "tensorflow_text", "keras", "keras_hub", "sklearn", "apache_beam"):
    sys.modules[name] = None  # as if it were not installed
import medclip_keras
from medclip_keras.serving.client.__main__ import main
scores = [medclip_keras.load(url).classify("picture.dcm", ["Edema"])["Edema"].tolist()
          for url in ({server.rest!r}, {server.grpc!r})]
assert main(["--url", {server.rest!r}, "picture.dcm"]) == 0
print(json.dumps(scores))
"""
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(medclip_keras.__file__))}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    expected = folder.classify(tmp_path / "picture.dcm", ["Edema"])["Edema"]
    np.testing.assert_allclose(json.loads(done.stdout.splitlines()[-1]), [expected, expected], atol=1e-5)


def test_a_request_outlives_the_server(server, tiny):
    """The server is stopped with the requests in its sockets, killed, and started again on the same ports."""
    models = [connect(server.model(scheme), attempts=100, timeout=120) for scheme in SCHEMES]
    text = ["The heart is large."]
    os.kill(server.process.pid, signal.SIGSTOP)
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        futures = [threads.submit(model.embed_texts, text) for model in models]
        done, _ = concurrent.futures.wait(futures, timeout=1)
        assert not done
        server.stop()
        server.start_again()
        answers = [future.result(120) for future in futures]
    expected = tiny.endpoints.encode_text(tf.constant(text))["text_embeddings"]
    for answer in answers:
        np.testing.assert_allclose(answer, expected, atol=1e-5)
