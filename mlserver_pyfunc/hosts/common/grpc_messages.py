"""Reads requests from gRPC messages and writes responses to them, without Python lists.

The classes of the messages are the host's own: two of them cannot be in one process.

protobuf has no public access to the bytes of a repeated field. But a packed field of fixed width
(FP32, FP64) has the same bytes as its array, and so has a field of varints (integers, BOOL) if all
values are below 128. So this takes the bytes from the serialised message, or puts them into it.
See https://protobuf.dev/programming-guides/encoding/#packed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import grpc
import numpy as np

from mlserver_pyfunc.errors import RequestError
from mlserver_pyfunc.protocol import tensors
from mlserver_pyfunc.protocol.contract import NamedArray, companions
from mlserver_pyfunc.protocol.request import (
    InferenceRequest,
    MisfitError,
    Parameters,
    RequestInput,
    RequestOutput,
    RequestParameters,
    read_parameters,
)
from mlserver_pyfunc.protocol.tensors import DATATYPES, Array, Datatype, RawTensor

from .rest_response import ArrayResponse

GRPC_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    409: grpc.StatusCode.ABORTED,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    422: grpc.StatusCode.FAILED_PRECONDITION,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    499: grpc.StatusCode.CANCELLED,
    500: grpc.StatusCode.INTERNAL,
    501: grpc.StatusCode.UNIMPLEMENTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}
"""The gRPC codes of HTTP statuses. That of any other status is UNKNOWN."""

_PARAMETERS = {bool: "bool_param", int: "int64_param", str: "string_param"}
_FIXED_WIDTH = frozenset({"FP32", "FP64"})


def read_request(
    message: Any,
    headers: Callable[[], Mapping[str, str]] = dict,
    seconds: float | None = None,
) -> InferenceRequest:
    """Reads a `ModelInferRequest`. Tensors view the message where its bytes allow it."""
    try:
        inputs = [
            RequestInput(
                tensor.name, tensor.datatype, list(tensor.shape), data, _parameters(tensor, "input")
            )
            for tensor, data in zip(message.inputs, _contents(message), strict=True)
        ]
        outputs = [RequestOutput(one.name, _parameters(one, "output")) for one in message.outputs]
        parameters = RequestParameters(_parameters(message), headers)
    except MisfitError as error:
        raise error.of_model(message.model_name) from None
    return InferenceRequest(inputs, outputs, parameters, message.id, seconds)


def _contents(message: Any) -> list[Any]:
    raw = message.raw_input_contents
    if not raw:
        return [_read_typed(tensor) for tensor in message.inputs]
    if len(raw) != len(message.inputs):
        expected = f"expected {len(message.inputs)}, one for each input"
        raise MisfitError(f"{expected}, got {len(raw)}", "raw_input_contents")
    for tensor in message.inputs:
        if tensor.HasField("contents") and tensor.contents.ByteSize():
            text = "expected contents or raw_input_contents, got both"
            raise MisfitError(text, f'input "{tensor.name}"')
    return [RawTensor(buffer) for buffer in raw]


def write_response(response: ArrayResponse, message: Any, use_raw: bool) -> Any:
    """Fills an empty `ModelInferResponse`, with raw contents or with typed ones."""
    message.model_name = response.model_name
    if response.model_version:
        message.model_version = response.model_version
    if response.id:
        message.id = response.id
    for key, value in response.parameters.items():
        for kind, field in _PARAMETERS.items():
            if isinstance(value, kind):
                setattr(message.parameters[key], field, value)
                break
    for named in (*response.arrays, *companions(response.arrays)):
        spec, array = named.spec, named.array
        output = message.outputs.add(name=spec.name, datatype=spec.datatype.name, shape=array.shape)
        if use_raw:
            message.raw_output_contents.append(tensors.to_raw(spec.datatype, array))
        else:
            _write_typed(output, named, response.model_name)
    return message


def _parameters(message: Any, kind: str = "") -> Parameters:
    if not message.parameters:
        return Parameters()
    values = {
        key: next((given for _, given in value.ListFields()), None)
        for key, value in message.parameters.items()
    }
    return read_parameters(values, f'{kind} "{message.name}"' if kind else "request")


def _read_typed(tensor: Any) -> Any:
    datatype = DATATYPES.get(tensor.datatype)
    contents = tensor.contents
    fields = contents.ListFields()
    if not fields:
        return []
    if len(fields) > 1:
        got = ", ".join(field.name for field, _ in fields)
        raise MisfitError(f"expected contents in one field, got {got}", f'input "{tensor.name}"')
    field, values = fields[0]
    if datatype is None or field.name != datatype.contents or datatype.is_bytes:
        return list(values)
    count, is_fixed = len(values), datatype.name in _FIXED_WIDTH
    size = count * datatype.dtype.itemsize if is_fixed else count
    head = _head(field.number, size)
    # Several bytes for a varint are read by protobuf faster than by NumPy.
    if contents.ByteSize() == len(head) + size:
        dtype = datatype.dtype if is_fixed else np.uint8
        array = np.frombuffer(contents.SerializeToString(), dtype, offset=len(head))
        return array.astype(datatype.dtype, copy=False)
    if datatype.dtype.kind not in "iu":
        return np.fromiter(values, dtype=datatype.dtype, count=count)
    wide = "<u8" if field.name == "uint64_contents" else "<i8"
    array = np.fromiter(values, dtype=wide, count=count)
    if datatype.holds(array):
        return array.astype(datatype.dtype, copy=False)
    return array.tolist()  # The contract names the value that does not fit.


def _write_typed(output: Any, named: NamedArray, model_name: str) -> None:
    datatype, array = named.spec.datatype, named.array
    if datatype.contents is None:
        raise RequestError(
            f'output "{output.name}" of model "{model_name}": expected a request with '
            f"raw_input_contents, got a typed one, and gRPC has no typed {datatype.name}",
            400,
        )
    if not array.size:
        output.contents.SetInParent()
        return
    packed = _packable(datatype, array)
    if packed is not None:
        field = output.contents.DESCRIPTOR.fields_by_name[datatype.contents]
        output.contents.MergeFromString(_head(field.number, len(packed)) + packed)
        return
    getattr(output.contents, datatype.contents).extend(tensors.to_contents(datatype, array))


def _packable(datatype: Datatype, array: Array) -> bytes | None:
    """Returns the bytes of an array as a packed field; None if varints need several bytes."""
    if datatype.name in _FIXED_WIDTH or datatype.name == "BOOL":
        return array.tobytes()
    if not datatype.is_bytes and array.min() >= 0 and array.max() < 0x80:
        return array.astype(np.uint8).tobytes()
    return None


def _head(field_number: int, size: int) -> bytes:
    """Returns what stands before the bytes of a packed field: its tag, and their number."""
    head = bytearray([field_number << 3 | 2])
    while size >= 0x80:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    return bytes(head)
