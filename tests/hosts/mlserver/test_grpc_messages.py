"""Typed gRPC contents are read as protobuf itself reads them, whatever else a message holds."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlserver.grpc import dataplane_pb2 as pb

from mlserver_pyfunc.hosts.common.grpc_messages import read_request
from mlserver_pyfunc.protocol.datatypes import DATATYPES

FIXED = {"FP32": "<f", "FP64": "<d"}
TYPED = [name for name, datatype in DATATYPES.items() if datatype.contents and name != "BYTES"]


def varint(value: int) -> bytes:
    octets = bytearray()
    value &= 2**64 - 1
    while value >= 0x80:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    octets.append(value)
    return bytes(octets)


def field(number: int, body: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(body)) + body


# Fields that this version of the protocol does not know, of every wire type.
UNKNOWN = st.lists(
    st.one_of(
        st.builds(lambda n, v: varint(n << 3) + varint(v), st.integers(9, 500), st.integers(0)),
        st.builds(field, st.integers(9, 500), st.binary(max_size=20)),
        st.builds(
            lambda n, v: varint(n << 3 | 5) + v,
            st.integers(9, 500),
            st.binary(min_size=4, max_size=4),
        ),
        st.builds(
            lambda n, v: varint(n << 3 | 1) + v,
            st.integers(9, 500),
            st.binary(min_size=8, max_size=8),
        ),
    ),
    max_size=3,
).map(b"".join)


def elements(datatype: str) -> st.SearchStrategy[Any]:
    if datatype == "BOOL":
        return st.booleans()
    if datatype in FIXED:
        return st.floats(width=32 if datatype == "FP32" else 64, allow_nan=False)
    info = np.iinfo(DATATYPES[datatype].dtype)
    return st.integers(int(info.min), int(info.max))


def encoded(datatype: str, values: list[Any]) -> bytes:
    if datatype in FIXED:
        return b"".join(struct.pack(FIXED[datatype], value) for value in values)
    return b"".join(varint(int(value)) for value in values)


@pytest.mark.parametrize("datatype", TYPED)
@given(data=st.data())
def test_unknown_fields_change_no_value(datatype: str, data: st.DataObject) -> None:
    values = data.draw(st.lists(elements(datatype), min_size=1, max_size=40))
    cut = data.draw(st.integers(0, len(values)))
    number = pb.InferTensorContents.DESCRIPTOR.fields_by_name[DATATYPES[datatype].contents].number
    # A packed field may come in parts, with unknown fields before, between and after them.
    wire = (
        data.draw(UNKNOWN)
        + field(number, encoded(datatype, values[:cut]))
        + data.draw(UNKNOWN)
        + field(number, encoded(datatype, values[cut:]))
        + data.draw(UNKNOWN)
    )
    message = pb.ModelInferRequest(model_name="m")
    tensor = message.inputs.add(name="x", datatype=datatype, shape=[len(values)])
    tensor.contents.MergeFromString(wire)
    (read,) = read_request(pb.ModelInferRequest.FromString(message.SerializeToString())).inputs
    assert np.array_equal(np.asarray(read.data), np.asarray(values, DATATYPES[datatype].dtype))
