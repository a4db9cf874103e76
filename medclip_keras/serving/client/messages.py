"""The messages of TensorFlow Serving's gRPC interface, and tensors as arrays, without TensorFlow.

`tensorflow-serving-api` brings generated messages, which import TensorFlow's; the packages that ship both
without TensorFlow are of 2020 and do not load under a protobuf of today. The few messages that a client sends
and receives are therefore described here, in a pool of their own: TensorFlow, in the same process, has
messages of the same names.

The fields and their numbers are those of TensorFlow's tensor.proto, tensor_shape.proto and of TensorFlow
Serving's model.proto, predict.proto and get_model_status.proto. Fields that a client does not need are left
out, enumerations are their numbers, and messages are known by their last name: all three are equal bytes.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from medclip_keras.evaluation.arrays import Array
from medclip_keras.serving.client.failures import BadAnswer

# Message → field → number and type; "repeated" and "map" (from string) precede the type.
FIELDS: Mapping[str, Mapping[str, tuple[int, str]]] = {
    "Dim": {"size": (1, "int64")},
    "TensorShapeProto": {"dim": (2, "repeated Dim")},
    "TensorProto": {
        "dtype": (1, "int32"),
        "tensor_shape": (2, "TensorShapeProto"),
        "tensor_content": (4, "bytes"),
        "float_val": (5, "repeated float"),
        "int_val": (7, "repeated int32"),
        "string_val": (8, "repeated bytes"),
        "int64_val": (10, "repeated int64"),
        "bool_val": (11, "repeated bool"),
    },
    "Int64Value": {"value": (1, "int64")},
    "ModelSpec": {
        "name": (1, "string"),
        "version": (2, "Int64Value"),
        "signature_name": (3, "string"),
        "version_label": (4, "string"),
    },
    "PredictRequest": {"model_spec": (1, "ModelSpec"), "inputs": (2, "map TensorProto")},
    "PredictResponse": {"outputs": (1, "map TensorProto"), "model_spec": (2, "ModelSpec")},
    "GetModelStatusRequest": {"model_spec": (1, "ModelSpec")},
    "ModelVersionStatus": {"version": (1, "int64"), "state": (2, "int32")},
    "GetModelStatusResponse": {"model_version_status": (1, "repeated ModelVersionStatus")},
}
STATES = {0: "UNKNOWN", 10: "START", 20: "LOADING", 30: "AVAILABLE", 40: "UNLOADING", 50: "END"}

_PACKAGE = "medclip_keras.serving"
_DTYPES: dict[
    np.dtype[Any], tuple[int, str]
] = {  # NumPy's dtype → TensorFlow's number and the field of its values
    np.dtype(np.float32): (1, "float_val"),
    np.dtype(np.int32): (3, "int_val"),
    np.dtype(np.uint8): (4, "int_val"),
    np.dtype(object): (7, "string_val"),
    np.dtype(np.int64): (9, "int64_val"),
    np.dtype(bool): (10, "bool_val"),
}
_OF_NUMBER = {number: (dtype, field) for dtype, (number, field) in _DTYPES.items()}


def _described(name: str) -> descriptor_pb2.DescriptorProto:
    message = descriptor_pb2.DescriptorProto(name=name)
    for field, (number, kind) in FIELDS[name].items():
        modifier, _, type_name = kind.rpartition(" ")
        if modifier == "map":
            entry = message.nested_type.add(name=f"{field.title()}Entry")
            entry.options.map_entry = True
            _add_field(entry, "key", 1, "string", False)
            _add_field(entry, "value", 2, type_name, False)
            type_name = f"{name}.{entry.name}"
        _add_field(message, field, number, type_name, bool(modifier))
    return message


def _add_field(
    message: descriptor_pb2.DescriptorProto, name: str, number: int, kind: str, repeated: bool
) -> None:
    proto = descriptor_pb2.FieldDescriptorProto
    field = message.field.add(name=name, number=number)
    field.label = proto.LABEL_REPEATED if repeated else proto.LABEL_OPTIONAL
    if kind[0].isupper():
        field.type, field.type_name = proto.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
    else:
        field.type = proto.Type.Value(f"TYPE_{kind.upper()}")


def _classes() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name=f"{_PACKAGE}.proto", package=_PACKAGE, syntax="proto3")
    file.message_type.extend(_described(name) for name in FIELDS)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = (pool.FindMessageTypeByName(f"{_PACKAGE}.{name}") for name in FIELDS)
    return dict(zip(FIELDS, map(message_factory.GetMessageClass, found), strict=True))


MESSAGES = _classes()  # name → class


def to_tensor(array: Array) -> Any:
    """An array as a TensorProto; strings are an array of objects of bytes.

    >>> to_tensor(np.array([[1.5], [2.0]], np.float32)).SerializeToString().hex()
    '08011208120208021202080122080000c03f00000040'
    """
    number, _ = _DTYPES[array.dtype]
    tensor = MESSAGES["TensorProto"](dtype=number)
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)
    if array.dtype == object:
        tensor.string_val.extend(array.ravel())
    else:
        tensor.tensor_content = np.ascontiguousarray(array).tobytes()
    return tensor


def to_array(tensor: Any) -> Array:
    """A TensorProto as an array; the reverse of `to_tensor`.

    Raises:
        BadAnswer: an unknown element type, or another number of values than the shape has.
    """
    if tensor.dtype not in _OF_NUMBER:
        raise BadAnswer.of("answer", "tensors of known element types", tensor.dtype)
    dtype, field = _OF_NUMBER[tensor.dtype]
    shape = [dim.size for dim in tensor.tensor_shape.dim]
    values = _values(tensor, dtype, field)
    if min(shape, default=1) < 0 or int(np.prod(shape, dtype=object)) != values.size:
        raise BadAnswer.of("answer", "tensors with all values of their shape", (shape, values.size))
    return values.reshape(shape)


def _values(tensor: Any, dtype: np.dtype, field: str) -> Array:
    if tensor.tensor_content and dtype.kind != "O":
        usable = len(tensor.tensor_content) // dtype.itemsize * dtype.itemsize
        return np.frombuffer(tensor.tensor_content[:usable], dtype)
    listed = getattr(tensor, field)
    values = np.empty(len(listed), dtype)
    values[:] = list(listed)
    return values


def versions_of(response: Any) -> Iterator[tuple[int, str]]:
    """Versions and their states in a GetModelStatusResponse."""
    for status in response.model_version_status:
        yield int(status.version), STATES.get(status.state, "UNKNOWN")
