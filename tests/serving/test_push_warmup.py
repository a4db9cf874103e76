"""The warm-up file is what TensorFlow Serving reads, by the messages of tensorflow-serving-api."""

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from medclip_keras.serving.layout import EXTRA, WARMUP_FILE
from medclip_keras.serving.requests import warmup_requests
from medclip_keras.serving.warmup import prediction_log, write_warmup


def test_a_request_of_each_kind_of_tensor_is_read_back(tmp_path):
    inputs = {
        "texts": np.array([b"", b"x" * 300, "肺".encode()], object),
        "ids": np.arange(6, dtype=np.int32).reshape(2, 3),
        "pixels": np.ones((1, 200, 200, 1), np.float32),  # a length of three groups of seven bits
    }
    log = prediction_log_pb2.PredictionLog.FromString(prediction_log("encode", inputs))
    request = log.predict_log.request
    assert request.model_spec.signature_name == "encode"
    assert set(request.inputs) == set(inputs)
    for name, value in inputs.items():
        np.testing.assert_array_equal(tf.make_ndarray(request.inputs[name]), value)
    again = prediction_log_pb2.PredictionLog()
    again.predict_log.request.CopyFrom(request)
    assert again == log  # no other field


def test_a_server_that_replays_the_file_calls_every_signature(tiny, saved_model, tmp_path):
    (tmp_path / EXTRA).mkdir()
    write_warmup(tmp_path, warmup_requests(tiny.endpoints))
    signatures, called = tf.saved_model.load(str(saved_model)).signatures, set()
    for record in tf.data.TFRecordDataset(str(tmp_path / EXTRA / WARMUP_FILE)).as_numpy_iterator():
        request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
        inputs = {name: tf.constant(tf.make_ndarray(value)) for name, value in request.inputs.items()}
        signatures[request.model_spec.signature_name](**inputs)
        called.add(request.model_spec.signature_name)
    assert called == set(signatures)
