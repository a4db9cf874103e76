"""The client's messages are TensorFlow Serving's, byte for byte; addresses and the server's words."""

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.wrappers_pb2 import Int64Value
from tensorflow.core.framework import tensor_pb2, tensor_shape_pb2
from tensorflow_serving.apis import get_model_status_pb2, model_pb2, predict_pb2

from medclip_keras.serving.client.address import Address, is_address, parse_address
from medclip_keras.serving.client.failures import BadAnswer, without_texts
from medclip_keras.serving.client.messages import FIELDS, MESSAGES, STATES, to_array, to_tensor

GENERATED = {
    "Dim": tensor_shape_pb2.TensorShapeProto.Dim,
    "TensorShapeProto": tensor_shape_pb2.TensorShapeProto,
    "TensorProto": tensor_pb2.TensorProto,
    "Int64Value": Int64Value,
    "ModelSpec": model_pb2.ModelSpec,
    "PredictRequest": predict_pb2.PredictRequest,
    "PredictResponse": predict_pb2.PredictResponse,
    "GetModelStatusRequest": get_model_status_pb2.GetModelStatusRequest,
    "ModelVersionStatus": get_model_status_pb2.ModelVersionStatus,
    "GetModelStatusResponse": get_model_status_pb2.GetModelStatusResponse,
}
ARRAYS = [
    np.float32([[1.5, -0.0, 3e-9]]),
    np.int32([[-7], [2**31 - 1]]),
    np.uint8([[[0, 255]]]),
    np.array([b"\x00\xff", b"", "肺".encode()], object),
    np.int64([-(2**62)]),
    np.array([True, False]),
    np.zeros((0, 3), np.float32),
]


def test_messages_have_the_fields_of_the_generated_ones():
    def described(field):
        kind = field.message_type.name if field.message_type else field.type
        return field.number, FieldDescriptor.TYPE_INT32 if field.enum_type else kind, field.is_repeated

    assert set(GENERATED) == set(FIELDS)
    for name, generated in GENERATED.items():
        theirs, ours = generated.DESCRIPTOR.fields_by_name, MESSAGES[name].DESCRIPTOR.fields_by_name
        assert {one: described(theirs[one]) for one in ours} == {one: described(ours[one]) for one in ours}
    states = get_model_status_pb2.ModelVersionStatus.State.DESCRIPTOR.values_by_number
    assert {number: state.name for number, state in states.items()} == STATES


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}{array.shape}")
def test_tensors_are_tensorflows_in_both_directions(array):
    read = tf.make_ndarray(tensor_pb2.TensorProto.FromString(to_tensor(array).SerializeToString()))
    np.testing.assert_array_equal(read, array)
    written = tf.make_tensor_proto(array, shape=array.shape).SerializeToString()
    found = to_array(MESSAGES["TensorProto"].FromString(written))
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


def test_values_in_the_fields_of_their_type_are_read():
    proto = tensor_pb2.TensorProto(dtype=1, float_val=[1.0, 2.0])
    proto.tensor_shape.dim.add(size=2)
    np.testing.assert_array_equal(to_array(proto), np.float32([1, 2]))
    flags = tensor_pb2.TensorProto(dtype=10, bool_val=[True, False])
    flags.tensor_shape.dim.add(size=2)
    np.testing.assert_array_equal(to_array(flags), [True, False])


@pytest.mark.parametrize(("dtype", "size", "values"), [(1, 3, [1.0, 2.0]), (1, -1, [1.0]), (19, 1, [])])
def test_a_tensor_without_all_its_values_is_refused(dtype, size, values):
    proto = tensor_pb2.TensorProto(dtype=dtype, float_val=values)
    proto.tensor_shape.dim.add(size=size)
    with pytest.raises(BadAnswer, match="`answer` must be tensors"):
        to_array(proto)
    half = tensor_pb2.TensorProto(dtype=1, tensor_content=b"\x00" * 7)
    half.tensor_shape.dim.add(size=2)
    with pytest.raises(BadAnswer, match="all values of their shape"):
        to_array(half)


@pytest.mark.parametrize(
    ("url", "options", "address"),
    [
        ("http://localhost:8501", {}, Address("http", "localhost:8501", "medclip")),
        ("http://localhost:8501/", {"model": "a b"}, Address("http", "localhost:8501", "a b")),
        ("HTTPS://Host/gate/way/v1/models/m", {}, Address("https", "host/gate/way", "m")),
        ("grpc://[::1]:8500/v1/models/m/versions/12", {}, Address("grpc", "[::1]:8500", "m", 12)),
        ("grpcs://h:1/v1/models/m/labels/a%20b/", {}, Address("grpcs", "h:1", "m", None, "a b")),
        ("grpc://h:1", {"version": 0}, Address("grpc", "h:1", "medclip", 0)),
    ],
)
def test_addresses_are_read(url, options, address):
    assert is_address(url)
    assert parse_address(url, **options) == address
    assert parse_address(str(address), version=address.version, label=address.label) == address


@pytest.mark.parametrize(
    ("url", "options", "sentence"),
    [
        ("ftp://h:1", {}, "`url` must be http"),
        ("http://", {}, "`url` must be http"),
        ("http://h:port", {}, "`url` must be http"),
        ("http://h:1?x=1", {}, "`url` must be http"),
        ("http://h:1/v1/models/m:predict", {}, "`url` must be http"),
        ("grpc://h:1/gateway", {}, "`url` must be http"),
        ("grpc://h", {}, "an address with a port"),
        ("http://me:secret@h:1", {}, r"without a password. Received: 'http://h:1'"),
        ("http://h:1/v1/models/m", {"model": "n"}, "`model` must be named once"),
        ("http://h:1/v1/models/m/versions/1", {"label": "x"}, "one version or one label"),
        ("http://h:1", {"version": -1}, "a number from 0"),
    ],
)
def test_wrong_addresses_end_in_a_sentence(url, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        parse_address(url, **options)


def test_a_folder_is_no_address(tmp_path):
    assert not any(map(is_address, (tmp_path, str(tmp_path), "gs://bucket/models/1", "models/1")))


def test_words_of_a_server_are_withheld_if_they_quote_a_text():
    text = "Small effusion on the left."
    assert without_texts(f'bad "{text}"', ["heart", text]) == "(withheld: it quotes the request)"
    assert without_texts("JSON Value: 3 is not of expected type", []) == "(withheld: it quotes the request)"
    assert without_texts("no\n such\tsignature", [text, ""]) == "no such signature"
    assert len(without_texts("x" * 5000, [])) == 300
