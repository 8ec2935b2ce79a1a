"""Targets that decode tensors: REST bodies, gRPC messages, messages of a worker."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from mlserver.grpc import dataplane_pb2 as pb

from mlserver_pyfunc.errors import RequestError
from mlserver_pyfunc.hosts.common import grpc_messages, json_body, rest_request
from mlserver_pyfunc.hosts.common.rest_response import ArrayResponse
from mlserver_pyfunc.protocol.contract import NamedArray, TensorSpec, decode
from mlserver_pyfunc.protocol.request import InferenceRequest
from mlserver_pyfunc.protocol.tensors import DATATYPES, Array, TensorError
from mlserver_pyfunc.serving.workers.wire import codec, shared_memory
from mlserver_pyfunc.serving.workers.wire.messages import Kind, Message, WireError

from . import oracles
from .oracles import RefusedError

MODEL = "m"
NO_SHAPE = "a shape NumPy can hold"


def decoded(tensor: Any) -> tuple[TensorSpec, Array] | str:
    """Returns a tensor as a model that declares it would get it, or why it would not."""
    datatype = DATATYPES.get(tensor.datatype)
    if datatype is None:
        return "unknown datatype"
    spec = TensorSpec(tensor.name, datatype, (-1,) * len(tensor.shape))
    try:
        array = decode(spec, tensor)
    except TensorError as error:
        return str(error)
    assert array.dtype == datatype.dtype
    assert array.shape == tuple(tensor.shape)
    assert not array.flags.writeable
    if array.dtype.kind == "b":
        assert array.size == 0 or array.view(np.uint8).max() <= 1, "a bool that is not 0 or 1"
    return spec, array


def check(tensor: Any, expected: Callable[[], list[Any]]) -> tuple[TensorSpec, Array] | None:
    """Compares a tensor of a request with what it has to be. Returns it if it is accepted."""
    got = decoded(tensor)
    if got == "unknown datatype":
        return None
    try:
        elements = expected()
    except RefusedError as error:
        assert isinstance(got, str), f"accepted, but it has {error}: {got}"
        return None
    if isinstance(got, str):
        assert NO_SHAPE in got, f"refused, but it is {elements}: {got}"
        return None
    assert oracles.same(got[1], elements), f"expected {elements}, got {got}"
    return got


def validated(payload: Any) -> Any:
    """Returns the request of a JSON payload; None if it is not one."""
    if payload is None:
        return None
    try:
        return InferenceRequest.from_json(payload)
    except RequestError as error:
        # The text of the error goes to the client, so it must be possible to make one.
        str(error)
        return None


def rest_binary(data: bytes) -> None:
    """A REST body: its JSON head up to a NUL, then tensors. The first byte moves the head's end."""
    head, _, rest = data[1:].partition(b"\0")
    moved = data[0] - 8 if data and data[0] < 16 else 0
    length = head[:24] if data[:1] == b"\xff" else str(len(head) + moved).encode()
    body = head + rest
    try:
        payload = rest_request._parse_binary(body, length)
    except json.JSONDecodeError:
        return
    request = validated(payload)
    if request is None:
        return
    start = int(length)
    sizes = list(_binary_sizes(oracles.parsed(body[:start])))
    last = max((index for index, size in enumerate(sizes) if size is not None), default=None)
    for index, (tensor, size) in enumerate(zip(request.inputs, sizes, strict=True)):
        if size is None:
            decoded(tensor)
            continue
        piece = body[start : start + size]
        surplus = len(body) - start - size if index == last else 0
        start += size
        check(tensor, partial(_whole_piece, tensor, piece, size, surplus))


def _whole_piece(tensor: Any, piece: bytes, size: int, surplus: int) -> list[Any]:
    if len(piece) != size or surplus > 0:
        raise RefusedError("another size than the body")
    return oracles.raw_elements(tensor.datatype, piece, tensor.shape)


def _binary_sizes(payload: Any) -> Iterator[int | None]:
    for tensor in payload["inputs"]:
        size = (tensor.get("parameters") or {}).get("binary_data_size")
        yield size if type(size) is int and size >= 0 else None


def rest_json(data: bytes) -> None:
    """A REST body of JSON, read as a small one is, and as one of more than 4 KiB is."""
    results = []
    for json_body.MIN_BYTES in (2**30, 0):
        try:
            results.append(validated(json_body.parse(data)))
        except json.JSONDecodeError:
            results.append("not JSON")
    small, large = results
    if small in (None, "not JSON"):
        assert large == small, f"{small!r} if it is small, {large!r} if it is large"
        return
    payload = oracles.parsed(data)
    for name in ("id", "parameters", "outputs"):
        assert getattr(small, name) == getattr(large, name), f"another {name} if it is large"
    for tensor, big, raw in zip(small.inputs, large.inputs, payload["inputs"], strict=True):
        assert repr(decoded(tensor)) == repr(decoded(big)), "another value if it is large"
        parameters = raw.get("parameters") or {}
        if "binary_data_size" not in parameters:
            is_base64 = parameters.get("content_type") == "base64"
            check(big, partial(_json_elements, tensor, raw["data"], is_base64))


def _json_elements(tensor: Any, data: Any, is_base64: bool) -> list[Any]:
    return oracles.list_elements(
        tensor.datatype, data, tensor.shape, is_base64=is_base64, is_json=True
    )


_DATATYPES = list(DATATYPES)


def grpc_typed(data: bytes) -> None:
    """A datatype, an `InferTensorContents`, and the same again as an answer."""
    if len(data) < 2:
        return
    message = pb.ModelInferRequest(model_name=MODEL)
    tensor = message.inputs.add(name="x", datatype=_DATATYPES[data[0] % len(_DATATYPES)])
    try:
        tensor.contents.MergeFromString(data[2:])
    except DecodeError:
        return
    count = sum(len(values) for _, values in tensor.contents.ListFields())
    tensor.shape.extend([count] if data[1] < 128 else [data[1] - 128, 2])
    _check_grpc(pb.ModelInferRequest.FromString(message.SerializeToString()))


def grpc_raw(data: bytes) -> None:
    """A whole `ModelInferRequest`."""
    try:
        message = pb.ModelInferRequest.FromString(data)
    except DecodeError:
        return
    _check_grpc(message)


def _check_grpc(message: Any) -> None:
    raw = list(message.raw_input_contents)
    try:
        request = grpc_messages.read_request(message, dict)
    except RequestError as error:
        str(error)
        return
    arrays = []
    for index, (tensor, sent) in enumerate(zip(request.inputs, message.inputs, strict=True)):
        got = check(tensor, partial(_grpc_elements, sent, raw[index] if raw else None))
        if got is not None:
            arrays.append(NamedArray(*got))
    _check_answer(arrays)


def _grpc_elements(sent: Any, raw: bytes | None) -> list[Any]:
    if raw is not None:
        return oracles.raw_elements(sent.datatype, raw, sent.shape)
    fields = sent.contents.ListFields()
    values = list(fields[0][1]) if fields else []
    return oracles.list_elements(sent.datatype, values, sent.shape, is_base64=False, is_json=False)


def _check_answer(arrays: list[NamedArray]) -> None:
    for use_raw in (True, False):
        response = ArrayResponse(MODEL, None, arrays, {})
        try:
            message = grpc_messages.write_response(response, pb.ModelInferResponse(), use_raw)
        except RequestError:  # FP16 has no typed form.
            continue
        message = pb.ModelInferResponse.FromString(message.SerializeToString())
        for index, (named, output) in enumerate(zip(arrays, message.outputs, strict=True)):
            raw = message.raw_output_contents[index] if use_raw else None
            assert oracles.same(named.array, _grpc_elements(output, raw)), "another answer"


_SPECS = {
    spec.name: spec
    for spec in (
        TensorSpec("f", DATATYPES["FP32"], (-1,)),
        TensorSpec("i", DATATYPES["INT64"], (-1, 2)),
        TensorSpec("o", DATATYPES["BOOL"], (-1,)),
        TensorSpec("b", DATATYPES["BYTES"], (-1,)),
        TensorSpec("t", DATATYPES["BYTES"], (-1,), text=True),
    )
}
_THERE, _BACK = shared_memory.create_arena(), shared_memory.create_arena()
_READ_BYTES = 2**20


def worker(data: bytes) -> None:
    """A packet of a worker, which knows the shared memory. The first byte is for its content."""
    os.pwrite(_BACK, data[:1] + data[-255:], 0)
    writer = shared_memory.Writer(_THERE)
    regions = [writer.allocate(size) for size in (1, 5000, 100)]
    writer.release(regions[1])
    reading = codec.Codec(writer, shared_memory.Reader(_BACK))
    try:
        messages = reading.decode(data[1:])
    except WireError as error:
        str(error)
        messages = []
    _check_memory(writer)
    for message in messages:
        _check_message(message)


def _check_message(message: Message) -> None:
    assert type(message.id) is str
    assert isinstance(message.kind, Kind)
    if len(message.body) > _READ_BYTES:
        return
    for lenient in (False, True):
        message.head.views = None
        try:
            arrays = codec.read_tensors(message, _SPECS, lenient=lenient)
        except (WireError, TensorError) as error:
            str(error)
            continue
        specs = {view[0]: view[1] for view in message.head.views or ()}
        for name, array in arrays.items():
            assert specs[name].admits(array.shape)
            assert not array.flags.writeable
        _check_round_trip(message.kind, [(specs[name], array) for name, array in arrays.items()])


def _check_round_trip(kind: Kind, named: list[tuple[TensorSpec, Array]]) -> None:
    sending = codec.Codec(shared_memory.Writer(_THERE), shared_memory.Reader(_BACK))
    receiving = codec.Codec(shared_memory.Writer(_BACK), shared_memory.Reader(_THERE))
    [message] = receiving.decode(sending.encode(kind, 1, {}, named))
    arrays = codec.read_tensors(message, {spec.name: spec for spec, _ in named}, lenient=True)
    for spec, array in named:
        assert oracles.same(arrays[spec.name], array.ravel().tolist()), "another tensor"


def _check_memory(writer: shared_memory.Writer) -> None:
    """The used and the free regions make up the memory, without holes and overlaps."""
    used = [(start, start + size) for start, size in writer._used.items()]
    end = 0
    for region in sorted(used + writer._free):
        assert list(map(type, region)) == [int, int], region
        assert region[0] == end, region
        end = region[1]
    assert end == shared_memory.SIZE
    assert writer._free == sorted(writer._free)
