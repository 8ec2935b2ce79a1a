from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mlserver_pyfunc.contract import TensorSpec
from mlserver_pyfunc.tensors import DATATYPES
from mlserver_pyfunc.workers.memory import Reader, Writer, create_arena
from mlserver_pyfunc.workers.wire import (
    HEAD_BYTES,
    INLINE_BYTES,
    Channel,
    Kind,
    WireError,
    read_tensors,
)

Pair = tuple[Channel, Channel]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Both ends of a connection."""
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    there, back = create_arena(), create_arena()
    with left, right:
        yield (
            Channel(left, Writer(there), Reader(back)),
            Channel(right, Writer(back), Reader(there)),
        )
    os.close(there)
    os.close(back)


def spec(datatype: str, rank: int, name: str = "x") -> TensorSpec:
    return TensorSpec(name, DATATYPES[datatype], (-1,) * rank)


@pytest.mark.parametrize("size", [0, 1, INLINE_BYTES // 8, INLINE_BYTES // 8 + 1, 1_000_000])
def test_tensors_of_any_size_arrive(pair: Pair, size: int) -> None:
    ours, theirs = pair
    tensor = spec("FP64", 1)
    array = np.arange(size, dtype="<f8")
    ours.send(Kind.CALL, {"call": 1}, [(tensor, array)])
    message = theirs.receive()
    assert message is not None
    read = read_tensors(message, {"x": tensor})["x"]
    np.testing.assert_array_equal(read, array)
    assert not read.flags.writeable


@pytest.mark.parametrize("datatype", sorted(DATATYPES))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_datatype_arrives_bit_for_bit(pair: Pair, datatype: str, data: st.DataObject) -> None:
    ours, theirs = pair
    shape = data.draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
    kind = DATATYPES[datatype]
    if kind.is_bytes:
        array = np.empty(shape, dtype=object)
        for index in np.ndindex(*shape):
            array[index] = data.draw(st.binary(max_size=9))
    else:
        array = data.draw(hnp.arrays(kind.dtype, shape))
    big = np.zeros(INLINE_BYTES, dtype="?")
    specs = {"x": spec(datatype, len(shape)), "big": spec("BOOL", 1, "big")}
    for more in ([], [(specs["big"], big)]):
        ours.send(Kind.CALL, {"call": 1}, [(specs["x"], array), *more])
        message = theirs.receive()
        assert message is not None
        read = read_tensors(message, specs)["x"]
        assert read.dtype == kind.dtype
        assert read.shape == shape
        same = read.tolist() == array.tolist() if kind.is_bytes else None
        assert same or (not kind.is_bytes and read.tobytes() == array.tobytes())


def test_takes_arrays_that_are_not_contiguous(pair: Pair) -> None:
    ours, theirs = pair
    tensor = spec("FP32", 2)
    array = np.arange(200_000, dtype="<f4").reshape(400, 500).T[::2]
    ours.send(Kind.CALL, {}, [(tensor, array)])
    message = theirs.receive()
    assert message is not None
    np.testing.assert_array_equal(read_tensors(message, {"x": tensor})["x"], array)


def test_a_long_head_arrives(pair: Pair) -> None:
    ours, theirs = pair
    ours.send(Kind.LOAD, {"code": "x" * (10 * HEAD_BYTES)})
    message = theirs.receive()
    assert message is not None
    assert message.head == {"code": "x" * (10 * HEAD_BYTES)}


def test_memory_goes_back_with_the_next_message(pair: Pair) -> None:
    ours, theirs = pair
    tensor = spec("UINT8", 1)
    for _ in range(5):
        ours.send(Kind.CALL, {}, [(tensor, np.zeros(INLINE_BYTES + 1, dtype="u1"))])
        assert theirs.receive() is not None
        theirs.send(Kind.RESULT, {"call": 1})
        assert ours.receive() is not None
        assert ours.writer.used_regions == 0


def test_a_head_that_json_cannot_carry_takes_no_memory(pair: Pair) -> None:
    ours, _ = pair
    tensor = spec("UINT8", 1)
    with pytest.raises(TypeError):
        ours.send(Kind.CALL, {"p": object()}, [(tensor, np.zeros(INLINE_BYTES + 1, dtype="u1"))])
    assert ours.writer.used_regions == 0


def test_the_end_of_the_connection_is_none(pair: Pair) -> None:
    ours, theirs = pair
    ours.connection.close()
    assert theirs.receive() is None


@pytest.mark.parametrize(
    "packet",
    [
        b"\x01",
        b"\x02\x02\x00\x00\x02\x00\x00\x00{}",
        b"\x01\xff\x00\x00\x02\x00\x00\x00{}",
        b"\x01\x02\x00\x00\x02\x00\x00\x00[]",
        b"\x01\x02\x00\x00\x09\x00\x00\x00nonsense!",
        b'\x01\x02\x00\x00\x13\x00\x00\x00{"region":[-1,100]}',
        b"\x01\x02\x01\x00\x05\x00\x00\x00[-1,1",
    ],
    ids=["short", "version", "kind", "list", "not-json", "outside", "spilled"],
)
def test_an_unreadable_packet_is_an_error(pair: Pair, packet: bytes) -> None:
    ours, theirs = pair
    ours.connection.send(packet)
    with pytest.raises(WireError):
        theirs.receive()


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(min_size=1, max_size=200))
def test_no_packet_raises_anything_else(pair: Pair, packet: bytes) -> None:
    ours, theirs = pair
    ours.connection.send(b"\x01\x02" + packet)
    with contextlib.suppress(WireError):
        theirs.receive()


@pytest.mark.parametrize(
    "layout",
    [
        ["other", [2], 0, 8],
        ["x", [2, 1], 0, 8],
        ["x", [-1], 0, 8],
        ["x", [4], 0, 16],
        ["x", [2], 4, 8],
    ],
    ids=["unknown", "rank", "negative", "beyond", "shifted"],
)
def test_a_tensor_that_is_not_as_declared_is_an_error(pair: Pair, layout: list[object]) -> None:
    ours, theirs = pair
    tensor = spec("FP32", 1)
    ours.send(Kind.RESULT, {"call": 1}, [(tensor, np.zeros(2, dtype="<f4"))])
    message = theirs.receive()
    assert message is not None
    message.head["tensors"] = [layout]
    with pytest.raises(WireError):
        read_tensors(message, {"x": tensor})
