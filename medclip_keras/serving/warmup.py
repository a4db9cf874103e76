"""Warm-up requests: TensorFlow Serving replays them before a version takes requests.

The first call of an endpoint traces and allocates; it takes a second where the next take milliseconds. The
file assets.extra/tf_serving_warmup_requests holds at most 1,000 PredictionLog messages as TFRecords. They are
encoded here, because the package with the messages, tensorflow-serving-api, is otherwise needed by clients
alone: every field that a request uses is a string or a message, so its encoding is number, length, content.

Follows: https://www.tensorflow.org/tfx/serving/saved_model_warmup, and the files prediction_log.proto,
predict.proto and model.proto of tensorflow_serving/apis.
"""

from collections.abc import Mapping

import numpy as np
import tensorflow as tf
from etils import epath

from medclip_keras.serving.layout import EXTRA, WARMUP_FILE

Requests = Mapping[str, Mapping[str, np.ndarray | tf.Tensor]]  # endpoint → input → value

_SIGNATURE_NAME = 3  # of ModelSpec; a server does not ask for the name of the model that it warms up
_MODEL_SPEC, _INPUTS = 1, 2  # of PredictRequest; `inputs` is a map, whose entries are (key 1, value 2)
_REQUEST = 1  # of PredictLog
_PREDICT_LOG = 6  # of PredictionLog


def write_warmup(version: epath.PathLike, requests: Requests) -> None:
    """Write `requests`, the first one as serving_default's too, and one of `describe`."""
    path, default = epath.Path(version) / EXTRA / WARMUP_FILE, next(iter(requests.values()))
    more = {"serving_default": default, "describe": {"names": np.array([b"run"], object)}}
    with tf.io.TFRecordWriter(str(path)) as file:
        for signature, inputs in {**more, **requests}.items():
            file.write(prediction_log(signature, inputs))


def prediction_log(signature: str, inputs: Mapping[str, np.ndarray | tf.Tensor]) -> bytes:
    """A serialised PredictionLog{6: PredictLog{1: PredictRequest{1: ModelSpec{3: signature}, 2: inputs}}}.

    >>> prediction_log("f", {}).hex(" ")
    '32 07 0a 05 0a 03 1a 01 66'
    """
    request = _field(_MODEL_SPEC, _field(_SIGNATURE_NAME, signature.encode()))
    for name, value in inputs.items():
        tensor = tf.make_tensor_proto(np.asarray(value)).SerializeToString()
        request += _field(_INPUTS, _field(1, name.encode()) + _field(2, tensor))
    return _field(_PREDICT_LOG, _field(_REQUEST, request))


def _field(number: int, content: bytes) -> bytes:
    """A length-delimited field: wire type 2."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """Base 128, least significant group first; all but the last have the high bit.

    >>> _varint(300).hex(" ")
    'ac 02'
    """
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])
