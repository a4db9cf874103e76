"""TensorFlow Serving's JSON, for the model server of the tests: read and written as json_tensor.cc does."""

import base64
import binascii
import json
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2


class Failure(Exception):  # noqa: N818
    """A status that is not OK."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code, self.message = code, message


def invalid(message):
    return Failure(grpc.StatusCode.INVALID_ARGUMENT, message)


def predict_json(models, spec, body):
    """The body of a REST request to the body of its answer."""
    try:
        parsed = json.loads(body)
    except ValueError:
        raise invalid("JSON Parse error: Invalid value. at offset: 0") from None
    if not isinstance(parsed, dict):
        raise invalid(f"JSON Value: {json.dumps(parsed)} Is not object")
    request = predict_pb2.PredictRequest(model_spec=spec)
    name = parsed.get("signature_name", "")
    if not isinstance(name, str):
        raise invalid(
            f"JSON Value: {json.dumps(parsed)} not formatted correctly. 'signature_name' key must be"
        )
    request.model_spec.signature_name = name
    signature = models.version(spec)[1].signature(name)
    if signature is None:
        raise invalid(f'Serving signature name: "{name}" not found in signature def')
    is_row = "instances" in parsed
    if is_row == ("inputs" in parsed):
        raise invalid("Missing 'inputs' or 'instances' key")
    fill = _from_instances if is_row else _from_inputs
    for one, array in fill(parsed["instances" if is_row else "inputs"], signature.inputs).items():
        request.inputs[one].CopyFrom(tf.make_tensor_proto(array, signature.inputs[one].dtype, array.shape))
    outputs = {one: tf.make_ndarray(proto) for one, proto in models.predict(request).outputs.items()}
    values = {one: _listed(array, one.endswith("_bytes")) for one, array in outputs.items()}
    if not is_row:
        return {"outputs": values if len(values) > 1 else next(iter(values.values()))}
    sizes = {array.shape[:1] for array in outputs.values()}
    if len(sizes) != 1 or () in sizes:
        raise invalid("Tensor name has inconsistent batch size")
    rows = [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]
    return {"predictions": rows if len(values) > 1 else [next(iter(row.values())) for row in rows]}


def _listed(array, as_bytes):
    if array.dtype != object:
        return array.tolist()
    written = (lambda b: {"b64": base64.b64encode(b).decode()}) if as_bytes else (lambda b: b.decode())
    return np.vectorize(written, otypes=[object])(array).tolist() if array.size else array.tolist()


def _is_base64(value):
    return isinstance(value, dict) and set(value) == {"b64"} and isinstance(value["b64"], str)


def _from_inputs(value, infos):
    if not isinstance(value, dict) or _is_base64(value):
        if len(infos) > 1:
            raise invalid("inputs is a plain value/list, but expecting an object as multiple input tensors")
        return {name: _tensor(value, info.dtype) for name, info in infos.items()}
    for name in infos:
        if name not in value:
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
    return {name: _tensor(value[name], info.dtype) for name, info in infos.items()}  # others are passed over


def _from_instances(value, infos):
    if not isinstance(value, list) or not value:
        raise invalid(f"JSON Value: {json.dumps(value)} No values in 'instances' array")
    named = isinstance(value[0], dict) and not _is_base64(value[0])
    if not named and len(infos) > 1:
        raise invalid("instances is a plain list, but expecting list of objects as multiple input tensors")
    rows = value if named else [{name: row} for name in infos for row in value]
    for number, row in enumerate(rows):
        if not isinstance(row, dict) or set(row) != set(infos):
            text = f"Failed to process element: {number} of 'instances' list. JSON object: {json.dumps(row)}"
            raise invalid(f"{text} keys must be equal to: {','.join(infos)}")
    arrays = {name: [_tensor(row[name], info.dtype) for row in rows] for name, info in infos.items()}
    for of_input in arrays.values():
        if len({array.shape for array in of_input}) > 1:
            raise invalid(f"Expecting shape {of_input[0].shape} but got another")
    return {name: np.stack(of_input) for name, of_input in arrays.items()}


def _tensor(value, dtype):
    """Parsed JSON as an array: every value at the level of the first one, all of the signature's type."""
    shape, first = [], value
    while isinstance(first, list):
        shape.append(len(first))
        first = first[0] if first else None
    found: list[Any] = []
    _fill(value, 0, shape, tf.dtypes.as_dtype(dtype), found)
    array = np.empty(len(found), object)
    array[:] = found
    return array.reshape(shape).astype(tf.dtypes.as_dtype(dtype).as_numpy_dtype)


def _fill(value, level, shape, dtype, found):
    if isinstance(value, list):
        if level >= len(shape):
            raise invalid(f"Encountered list at unexpected level: {level} expected < {len(shape)}")
        if len(value) != shape[level]:
            raise invalid(f"Encountered list at unexpected size: {len(value)} at level: {level}")
        for one in value:
            _fill(one, level + 1, shape, dtype, found)
        return
    quoted = f"JSON Value: {json.dumps(value)}"
    if level != len(shape):
        raise invalid(f"{quoted} found at incorrect level: {level + 1} in the JSON DOM")
    if dtype == tf.string and isinstance(value, dict):
        if not _is_base64(value):
            raise invalid(f"{quoted} not formatted correctly for base64 data")
        try:
            found.append(base64.b64decode(value["b64"], validate=True))
        except binascii.Error:
            raise invalid("Unable to base64 decode") from None
        return
    is_number = isinstance(value, int) and not isinstance(value, bool)
    if dtype == tf.string and isinstance(value, str):
        found.append(value.encode())
    elif (dtype.is_integer and is_number) or (dtype.is_floating and (is_number or isinstance(value, float))):
        found.append(value)
    else:
        raise invalid(f"{quoted} Type: {type(value).__name__} is not of expected type: {dtype.name}")
