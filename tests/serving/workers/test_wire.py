from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mlserver_pyfunc.protocol import tensors
from mlserver_pyfunc.protocol.contract import TensorSpec
from mlserver_pyfunc.protocol.tensors import DATATYPES, Array
from mlserver_pyfunc.serving.workers.wire.codec import Codec, _text_of, read_tensors
from mlserver_pyfunc.serving.workers.wire.messages import (
    HEAD_BYTES,
    INLINE_BYTES,
    VERSION,
    Head,
    Kind,
    Message,
    WireError,
)
from mlserver_pyfunc.serving.workers.wire.shared_memory import Reader, Writer, create_arena

Pair = tuple[Codec, Codec]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Both ends of a connection."""
    there, back = create_arena(), create_arena()
    yield Codec(Writer(there), Reader(back)), Codec(Writer(back), Reader(there))
    os.close(there)
    os.close(back)


def passed(
    ours: Codec,
    theirs: Codec,
    kind: Kind,
    head: Mapping[str, Any] | None = None,
    named: Sequence[tuple[TensorSpec, Array]] = (),
) -> Message:
    """A message as it arrives."""
    [message] = theirs.decode(ours.encode(kind, 1, head or {}, named))
    return message


def spec(datatype: str, rank: int, name: str = "x") -> TensorSpec:
    return TensorSpec(name, DATATYPES[datatype], (-1,) * rank)


@pytest.mark.parametrize("size", [0, 1, INLINE_BYTES // 8, INLINE_BYTES // 8 + 1, 1_000_000])
def test_tensors_of_any_size_arrive(pair: Pair, size: int) -> None:
    ours, theirs = pair
    tensor = spec("FP64", 1)
    array = np.arange(size, dtype="<f8")
    message = passed(ours, theirs, Kind.CALL, named=[(tensor, array)])
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
        message = passed(ours, theirs, Kind.CALL, named=[(specs["x"], array), *more])
        read = read_tensors(message, specs)["x"]
        assert read.dtype == kind.dtype
        assert read.shape == shape
        same = read.tolist() == array.tolist() if kind.is_bytes else None
        assert same or (not kind.is_bytes and read.tobytes() == array.tobytes())


def test_takes_arrays_that_are_not_contiguous(pair: Pair) -> None:
    ours, theirs = pair
    tensor = spec("FP32", 2)
    array = np.arange(200_000, dtype="<f4").reshape(400, 500).T[::2]
    message = passed(ours, theirs, Kind.CALL, named=[(tensor, array)])
    np.testing.assert_array_equal(read_tensors(message, {"x": tensor})["x"], array)


def test_a_long_head_arrives(pair: Pair) -> None:
    head = {"code": "x" * (10 * HEAD_BYTES)}
    assert {**passed(*pair, Kind.LOAD, head).values, "tensors": []} == {**head, "tensors": []}


@pytest.mark.parametrize("request_id", ["", "r-1", "\u00e9" * 100, "\ud800", "long" * 100_000])
def test_an_id_arrives(pair: Pair, request_id: str) -> None:
    ours, theirs = pair
    [message] = theirs.decode(ours.encode(Kind.CALL, 1, request_id=request_id))
    assert message.id == request_id


def test_messages_arrive_together_in_order(pair: Pair) -> None:
    ours, theirs = pair
    tensor = spec("INT32", 1)
    arrays = [np.arange(size, dtype="<i4") for size in (3, 0, 3, 1)]
    packet = b"".join(
        ours.encode(Kind.CALL, number, {"n": number} if number == 2 else {}, [(tensor, array)])
        for number, array in enumerate(arrays)
    )
    messages = theirs.decode(packet)
    assert [message.call for message in messages] == [0, 1, 2, 3]
    for message, array in zip(messages, arrays, strict=True):
        np.testing.assert_array_equal(read_tensors(message, {"x": tensor})["x"], array)


def test_ever_new_shapes_are_not_all_kept(pair: Pair) -> None:
    tensor = spec("UINT8", 1)
    for size in range(1000):
        message = passed(*pair, Kind.CALL, named=[(tensor, np.zeros(size, dtype="u1"))])
        assert read_tensors(message, {"x": tensor})["x"].shape == (size,)
    for cached in (_text_of, *(codec._known_head for codec in pair)):
        assert cached.cache_info().currsize <= 256


def test_an_array_that_is_kept_keeps_its_own_bytes_alone(pair: Pair) -> None:
    ours, theirs = pair
    tensor = spec("FP32", 1)
    call = ours.encode(Kind.CALL, 1, named=[(tensor, np.ones(4, dtype="<f4"))])
    array = read_tensors(theirs.decode(call * 50)[0], {"x": tensor})["x"]
    assert isinstance(array.base, bytes)
    assert len(array.base) == array.nbytes


def test_memory_goes_back_with_the_next_message(pair: Pair) -> None:
    ours, theirs = pair
    tensor = spec("UINT8", 1)
    for _ in range(5):
        passed(ours, theirs, Kind.CALL, named=[(tensor, np.zeros(INLINE_BYTES + 1, dtype="u1"))])
        passed(theirs, ours, Kind.RESULT)
        assert ours.writer.used_bytes == 0


def test_a_head_that_json_cannot_carry_takes_no_memory(pair: Pair) -> None:
    ours, _ = pair
    tensor = spec("UINT8", 1)
    array = np.zeros(INLINE_BYTES + 1, dtype="u1")
    with pytest.raises(TypeError):
        ours.encode(Kind.CALL, 1, {"p": object()}, [(tensor, array)])
    assert ours.writer.used_bytes == 0


def packet(
    text: bytes, *, version: int = VERSION, kind: int = Kind.CALL, flags: int = 0, size: int = -1
) -> bytes:
    """A packet of one message, as the layout in the module's docstring has it."""
    size = len(text) if size < 0 else size
    return struct.pack("<BBBxIIIIQ", version, kind, flags, 0, size, 0, 0, 1) + text


@pytest.mark.parametrize(
    "unreadable",
    [
        b"\x02",
        packet(b"{}", version=1),
        packet(b"{}", kind=255),
        packet(b"[]"),
        packet(b"nonsense!"),
        packet(b"{}", size=3),
        packet(b"[" * 10_000),
        packet(b'{"region":[-1,100]}'),
        packet(b"[-1,1", flags=1),
        packet(b'{"released":[0.0]}'),
        packet(b'{"released":[false]}'),
        packet(b'{"id":7}'),
    ],
    ids=[
        "short", "version", "kind", "list", "not-json", "cut", "deep", "outside", "spilled",
        "released-fraction", "released-boolean", "id",
    ],
)  # fmt: skip
def test_an_unreadable_packet_is_an_error(pair: Pair, unreadable: bytes) -> None:
    offset = pair[1].writer.allocate(1)
    assert offset == 0
    with pytest.raises(WireError):
        pair[1].decode(unreadable)
    assert pair[1].writer.used_bytes > 0


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(min_size=1, max_size=200), st.binary(max_size=60))
def test_no_packet_raises_anything_else(pair: Pair, tail: bytes, text: bytes) -> None:
    for unreadable in (bytes([VERSION, Kind.CALL]) + tail, packet(text), packet(text, flags=2)):
        with contextlib.suppress(WireError):
            pair[1].decode(unreadable)


@pytest.mark.parametrize(
    "layout",
    [
        ["other", [2], 0, 8],
        ["x", [2, 1], 0, 8],
        ["x", [-1], 0, 8],
        ["x", [4], 0, 16],
        ["x", [2], 4, 8],
        ["x", [2], 0],
        ["x", [2], "0", 8],
        ["x", ["2"], 0, 8],
        ["x", [2.5], 0, 10],
        ["x", None, 0, 8],
        [["x"], [2], 0, 8],
        [["x", "FP32", False], [2], 0, 8],
        "x",
        7,
        ["x", [2**70], 0, 2**72],
    ],
    ids=[
        "unknown", "rank", "negative", "beyond", "shifted", "cut", "text", "texts", "fraction",
        "no-shape", "list", "undeclared", "letter", "number", "huge",
    ],
)  # fmt: skip
def test_a_tensor_that_is_not_as_declared_is_an_error(pair: Pair, layout: list[object]) -> None:
    tensor = spec("FP32", 1)
    message = passed(*pair, Kind.RESULT, named=[(tensor, np.zeros(2, dtype="<f4"))])
    message.head = Head({"tensors": [layout]})
    with pytest.raises(WireError):
        read_tensors(message, {"x": tensor})


@pytest.mark.parametrize("name", [["y", "FP32", "no"], [7, "FP32", False], ["y", "FP33", False]])
def test_a_tensor_that_breaks_the_contract_needs_a_name_and_a_datatype(
    pair: Pair, name: list[object]
) -> None:
    tensor = spec("FP32", 1)
    message = passed(*pair, Kind.RESULT, named=[(tensor, np.zeros(2, dtype="<f4"))])
    message.head = Head({"tensors": [[name, [2], 0, 8]]})
    with pytest.raises(WireError):
        read_tensors(message, {"x": tensor}, lenient=True)


def test_tensors_that_no_memory_can_hold_are_an_error(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    def from_raw(*_: object) -> None:
        raise MemoryError

    tensor = spec("BYTES", 1)
    message = passed(*pair, Kind.RESULT, named=[(tensor, np.array([b"a"], dtype=object))])
    monkeypatch.setattr(tensors, "from_raw", from_raw)
    with pytest.raises(WireError, match="unreadable tensors"):
        read_tensors(message, {"x": tensor})
