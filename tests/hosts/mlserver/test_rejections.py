"""Every rule of the contract, broken over both protocols."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from . import grpc_calls
from .conftest import GrpcCall
from .process import ServerProcess
from .wire import Reply, Request, Tensor, json_request, read_json, rest_infer

X = Tensor("x", "FP32", (1, 4), [1.0, 2.0, 3.0, 4.0])

# Without the fast path MLServer unpacks raw contents before the runtime is asked.
RAW_MISMATCH_ON_PLAIN_PATH = "INTERNAL"


@dataclass(frozen=True)
class Rejection:
    """A request that breaks one rule, and what the server says about it on both protocols."""

    name: str
    inputs: list[Tensor]
    message: str
    outputs: tuple[str, ...] = ()
    model: str = "strict"

    @property
    def request(self) -> Request:
        return Request(self.model, self.inputs, list(self.outputs), id="r-1")


def _x(**changes: Any) -> Tensor:
    return Tensor(**{**vars(X), **changes})


def _of(datatype: str, values: list[Any], **changes: Any) -> Tensor:
    return Tensor(datatype.lower(), datatype, (len(values),), values, **changes)


WHERE = 'input "{}" of model "strict": '

ON_BOTH = [
    Rejection(
        "an unknown input",
        [X, Tensor("y", "FP32", (1,), [1.0])],
        'input "y" of model "strict": unknown, expected "x", "bool", "uint8", "uint16", '
        '"uint32", "uint64", "int8", "int16", "int32", "int64", "fp16", "fp32", "fp64", '
        '"bytes", "text", "number"',
    ),
    Rejection(
        "a missing input",
        [_of("INT8", [1])],
        WHERE.format("x") + 'missing from the request, which has "int8"',
    ),
    Rejection("no inputs", [], WHERE.format("x") + "missing from the request, which has none"),
    Rejection("a duplicate input", [X, X], WHERE.format("x") + "expected once, got it twice"),
    Rejection(
        "another datatype",
        [_x(datatype="FP64")],
        WHERE.format("x") + "expected datatype FP32, got FP64",
    ),
    Rejection(
        "a rank too low",
        [_x(shape=(4,))],
        WHERE.format("x") + "expected shape [-1, 4], got [4]",
    ),
    Rejection(
        "a rank too high",
        [_x(shape=(1, 1, 4))],
        WHERE.format("x") + "expected shape [-1, 4], got [1, 1, 4]",
    ),
    Rejection(
        "another fixed size",
        [_x(shape=(2, 2))],
        WHERE.format("x") + "expected shape [-1, 4], got [2, 2]",
    ),
    Rejection(
        "a negative size",
        [_x(shape=(-1, 4))],
        WHERE.format("x") + "expected shape [-1, 4], got [-1, 4] (a size is 0 or more)",
    ),
    Rejection(
        "a scalar for a vector",
        [X, Tensor("int8", "INT8", (), [1])],
        WHERE.format("int8") + "expected shape [-1], got []",
    ),
    Rejection(
        "a vector for a scalar",
        [X, Tensor("number", "INT32", (1,), [1])],
        WHERE.format("number") + "expected shape [], got [1]",
    ),
    Rejection(
        "too few elements",
        [_x(values=[1.0, 2.0, 3.0])],
        WHERE.format("x") + "expected 4 elements for shape [1, 4], got 3",
    ),
    Rejection(
        "too many elements",
        [_x(values=[1.0] * 5)],
        WHERE.format("x") + "expected 4 elements for shape [1, 4], got 5",
    ),
    Rejection(
        "no elements",
        [_x(values=[])],
        WHERE.format("x") + "expected 4 elements for shape [1, 4], got 0",
    ),
    Rejection(
        "elements for an empty shape",
        [_x(shape=(0, 4))],
        WHERE.format("x") + "expected 0 elements for shape [0, 4], got 4",
    ),
    Rejection(
        "a shape whose size overflows",
        [_x(shape=(2**62, 4))],
        WHERE.format("x") + f"expected {2**64} elements for shape [{2**62}, 4], got 4",
    ),
    Rejection(
        "text that is not UTF-8",
        [X, Tensor("text", "BYTES", (1,), [b"\xff"])],
        WHERE.format("text")
        + "expected UTF-8 text, got bytes that are not (invalid start byte) at index 0",
    ),
    Rejection(
        "an unknown output",
        [X],
        'output "total" of model "strict": unknown, expected "sum", "rows"',
        outputs=("sum", "total"),
    ),
    Rejection(
        "an output asked for twice",
        [X],
        'output "sum" of model "strict": requested twice',
        outputs=("sum", "sum"),
    ),
    *(
        Rejection(
            f"a number out of range for {datatype}",
            [X, _of(datatype, [0, value])],
            WHERE.format(datatype.lower())
            + f"expected whole numbers from {low} to {high}, got {value} at index 1",
        )
        for datatype, value, low, high in [
            ("INT8", 128, -128, 127),
            ("INT8", -129, -128, 127),
            ("INT16", 32768, -32768, 32767),
            ("UINT8", 300, 0, 255),
            ("UINT16", 65536, 0, 65535),
        ]
    ),
]

NULL_HINT = " (nullable: true, or | None in an annotation, admits null)"

# What only JSON can say: a protobuf field holds its own type and nothing else.
ON_JSON = [
    *(
        Rejection(
            f"{value!r} for {datatype}",
            [X, _of(datatype, [*good, value])],
            WHERE.format(datatype.lower())
            + f"expected {expected}, got {got} at index 1"
            + (NULL_HINT if value is None else ""),
        )
        for datatype, good, value, expected, got in [
            ("INT32", [1], 1.7, f"whole numbers from {-(2**31)} to {2**31 - 1}", "1.7"),
            ("INT32", [1], "1", f"whole numbers from {-(2**31)} to {2**31 - 1}", "'1'"),
            ("INT32", [1], True, f"whole numbers from {-(2**31)} to {2**31 - 1}", "true"),
            ("INT32", [1], None, f"whole numbers from {-(2**31)} to {2**31 - 1}", "null"),
            ("INT32", [1], 2**31, f"whole numbers from {-(2**31)} to {2**31 - 1}", str(2**31)),
            ("UINT32", [1], -1, f"whole numbers from 0 to {2**32 - 1}", "-1"),
            ("UINT64", [1], -1, f"whole numbers from 0 to {2**64 - 1}", "-1"),
            ("INT64", [1], 2**63, f"whole numbers from {-(2**63)} to {2**63 - 1}", str(2**63)),
            ("BOOL", [True], 1, "true or false", "1"),
            ("BOOL", [True], "true", "true or false", "'true'"),
            ("BOOL", [True], None, "true or false", "null"),
            ("FP32", [1], "1.5", "numbers up to 3.4028e+38", "'1.5'"),
            ("FP32", [1], True, "numbers up to 3.4028e+38", "true"),
            ("FP32", [1], 1e39, "numbers up to 3.4028e+38", "1e+39"),
            ("FP16", [1], 70000.0, "numbers up to 65504", "70000.0"),
            ("FP64", [1], [1], "numbers up to 1.7977e+308", "[1]"),
            ("BYTES", ["a"], 1, "strings", "1"),
            ("BYTES", ["a"], None, "strings", "null"),
        ]
    ),
    *(
        Rejection(
            f"null for {datatype}",
            [X, _of(datatype, [1.0, None])],
            WHERE.format(datatype.lower()) + f"expected numbers up to {most}, got null at index 1 "
            "(JSON has no NaN or infinity: send binary data or gRPC, "
            "or declare nullable: true)",
        )
        for datatype, most in [("FP16", "65504"), ("FP32", "3.4028e+38"), ("FP64", "1.7977e+308")]
    ),
    Rejection(
        "nested data of another shape",
        [_x(values=[[1.0, 2.0], [3.0, 4.0]])],
        WHERE.format("x") + "expected nested lists of shape [1, 4], got 2 on axis 0",
    ),
    Rejection(
        "ragged data",
        [_x(shape=(2, 4), values=[[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0]])],
        WHERE.format("x") + "expected nested lists of shape [2, 4], got a row of 3 on axis 1",
    ),
    Rejection(
        "a row that is a number",
        [_x(shape=(2, 4), values=[[1.0, 2.0, 3.0, 4.0], 5.0])],
        WHERE.format("x") + "expected nested lists of shape [2, 4], got 5.0 on axis 0",
    ),
    Rejection(
        "a number where a list is expected",
        [_x(values=7)],  # type: ignore[arg-type]
        WHERE.format("x") + "expected a list of elements for shape [1, 4], got 7",
    ),
    Rejection(
        "an object where a list is expected",
        [_x(values={"a": 1})],  # type: ignore[arg-type]
        WHERE.format("x") + "expected a list of elements for shape [1, 4], got {'a': 1}",
    ),
    Rejection(
        "base64 that is not",
        [X, _of("BYTES", ["dGV4dA==", "!!"], parameters={"content_type": "base64"})],
        WHERE.format("bytes") + "expected base64 strings, got '!!' at index 1",
    ),
]


def _ids(rejections: list[Rejection]) -> list[str]:
    return [each.name.replace(" ", "-") for each in rejections]


def _is_healthy(server: ServerProcess) -> None:
    reply = rest_infer(server.client, Request("strict", [X]))
    assert reply.expect_ok().outputs["sum"].values == [10.0]
    assert server.client.get("/v2/health/ready").status_code == 200


@pytest.mark.parametrize("rejection", [*ON_BOTH, *ON_JSON], ids=_ids([*ON_BOTH, *ON_JSON]))
def test_json_that_breaks_a_rule_is_answered_400_with_what_was_expected(
    rejection: Rejection, either_server: ServerProcess
) -> None:
    reply = rest_infer(either_server.client, rejection.request)
    assert (reply.status, reply.error) == (400, rejection.message)
    _is_healthy(either_server)


@pytest.mark.parametrize("rejection", ON_BOTH, ids=_ids(ON_BOTH))
def test_typed_contents_that_break_a_rule_are_answered_with_the_same_text(
    rejection: Rejection, either_server: ServerProcess, grpc_call: GrpcCall
) -> None:
    reply = grpc_call(grpc_calls.infer, either_server.grpc_address, rejection.request, False)
    assert (reply.status, reply.error) == ("INVALID_ARGUMENT", rejection.message)
    _is_healthy(either_server)


ON_RAW = [
    each
    for each in ON_BOTH
    if "elements" not in each.name
    and "range" not in each.name
    and "size overflows" not in each.name
    # An unpacked FP64 tensor and a reshaped one need as many bytes as they say.
    and each.name not in ("a negative size", "no inputs")
]


@pytest.mark.parametrize("rejection", ON_RAW, ids=_ids(ON_RAW))
def test_raw_contents_that_break_a_rule_are_answered_with_the_same_text(
    rejection: Rejection, either_server: ServerProcess, grpc_call: GrpcCall
) -> None:
    reply = grpc_call(grpc_calls.infer, either_server.grpc_address, rejection.request, True)
    assert (reply.status, reply.error) == ("INVALID_ARGUMENT", rejection.message)
    _is_healthy(either_server)


SHORT = [
    ("x", b"\0" * 15, "expected 16 bytes for FP32 of shape [1, 4], got 15"),
    ("x", b"\0" * 17, "expected 16 bytes for FP32 of shape [1, 4], got 17"),
    ("x", b"", "expected 16 bytes for FP32 of shape [1, 4], got 0"),
    ("bytes", b"\5\0\0\0abc", "expected 5 bytes in an element, got 3"),
    ("bytes", b"\1\0", "expected a 4-byte length before each element, got 2 bytes"),
    ("bytes", b"\xff\xff\xff\xffa", "expected 4294967295 bytes in an element, got 1"),
    ("bytes", b"\0\0\0\0" * 2, "expected 1 elements for shape [1], got 2"),
]


def _with_raw(name: str, raw: bytes) -> Request:
    if name == "x":
        return Request("strict", [_x(raw=raw)])
    return Request("strict", [X, Tensor(name, "BYTES", (1,), [], raw=raw)])


@pytest.mark.parametrize(("name", "raw", "message"), SHORT)
def test_raw_contents_of_another_size_are_refused(
    name: str, raw: bytes, message: str, server: ServerProcess, grpc_call: GrpcCall
) -> None:
    reply = grpc_call(grpc_calls.infer, server.grpc_address, _with_raw(name, raw), True)
    assert (reply.status, reply.error) == ("INVALID_ARGUMENT", WHERE.format(name) + message)
    _is_healthy(server)


@pytest.mark.parametrize(("name", "raw", "message"), SHORT[:-1])
def test_raw_contents_of_another_size_are_refused_without_the_fast_path_too(
    name: str, raw: bytes, message: str, plain_server: ServerProcess, grpc_call: GrpcCall
) -> None:
    reply = grpc_call(grpc_calls.infer, plain_server.grpc_address, _with_raw(name, raw), True)
    assert reply.status == RAW_MISMATCH_ON_PLAIN_PATH, reply
    _is_healthy(plain_server)


def test_an_unknown_datatype_over_grpc_is_refused(
    either_server: ServerProcess, grpc_call: GrpcCall
) -> None:
    request = Request("strict", [Tensor("x", "BF16", (1, 4), [1.0] * 4, contents="fp32_contents")])
    reply = grpc_call(grpc_calls.infer, either_server.grpc_address, request, False)
    assert (reply.status, reply.error) == (
        "INVALID_ARGUMENT",
        'input "x" of model "strict": expected datatype FP32, got BF16',
    )


CONVERSIONS = [
    (7.0, 'output "whole" of model "convert": expected whole numbers from '
     f"{-(2**63)} to {2**63 - 1}, got 1.7 at index 0"),
    (8.0, 'output "small" of model "convert": expected whole numbers from 0 to 255, '
     "got 300 at index 0"),
    (10.0, 'output "whole" of model "convert": expected INT64, got an array of float32 '
     "(cast it in the handler: .astype(np.int64))"),
]  # fmt: skip


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
@pytest.mark.parametrize(("case", "message"), CONVERSIONS, ids=["fraction", "range", "kind"])
def test_a_result_that_does_not_fit_its_output_is_the_handlers_error(
    protocol: str, case: float, message: str, either_server: ServerProcess, grpc_call: GrpcCall
) -> None:
    request = Request("convert", [Tensor("x", "FP32", (1,), [case])])
    reply = _send(protocol, request, either_server, grpc_call)
    status = 500 if protocol == "rest" else "INTERNAL"
    assert (reply.status, reply.error) == (status, message)


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_a_ragged_result_is_the_handlers_error(
    protocol: str, either_server: ServerProcess, grpc_call: GrpcCall
) -> None:
    request = Request("convert", [Tensor("x", "FP32", (1,), [9.0])])
    reply = _send(protocol, request, either_server, grpc_call)
    assert reply.status == (500 if protocol == "rest" else "INTERNAL")
    assert reply.error.startswith('output "rows" of model "convert": expected an array, got list')


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_safe_and_same_kind_casts_are_made(
    protocol: str, either_server: ServerProcess, grpc_call: GrpcCall
) -> None:
    request = Request("convert", [Tensor("x", "FP32", (2,), [1.0, 2.0])])
    reply = _send(protocol, request, either_server, grpc_call).expect_ok()
    found = {name: (o.datatype, o.shape, o.values) for name, o in reply.outputs.items()}
    assert found == {
        "whole": ("INT64", (2,), [1, 2]),
        "small": ("UINT8", (1,), [3]),
        "rows": ("FP32", (2, 1), [1.0, 2.0]),
    }


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_an_unknown_model_is_not_found(
    protocol: str, either_server: ServerProcess, grpc_call: GrpcCall
) -> None:
    reply = _send(protocol, Request("no-such-model", [X]), either_server, grpc_call)
    assert reply.status == (404 if protocol == "rest" else "NOT_FOUND")


def test_a_whole_float_in_json_is_a_whole_number(either_server: ServerProcess) -> None:
    request = Request("echo", [Tensor("int64_any", "INT64", (3,), [1.0, 2, -3.0])])
    assert rest_infer(either_server.client, request).outputs["int64_any"].values == [1, 2, -3]


def test_numbers_beyond_64_bits_never_reach_the_function(either_server: ServerProcess) -> None:
    body = json_request(Request("strict", [X, _of("UINT64", [2**64])]))
    reply = read_json(either_server.client.post("/v2/models/strict/infer", json=body))
    assert reply.status == 400, reply
    _is_healthy(either_server)


def _send(protocol: str, request: Request, server: ServerProcess, grpc_call: GrpcCall) -> Reply:
    if protocol == "rest":
        return rest_infer(server.client, request)
    reply: Reply = grpc_call(grpc_calls.infer, server.grpc_address, request, True)
    return reply
