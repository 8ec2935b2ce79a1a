"""Tables as Arrow IPC streams, by each route, in the server's process, in a worker, in batches."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest

from mlserver_pyfunc.protocol.contract import ARROW

from . import grpc_calls
from .conftest import GrpcCall
from .models import Definition, inline, tensor, write_repository
from .process import ServerProcess, serving
from .wire import Reply, Request, Tensor, read_json, rest_infer

INPUTS = [
    tensor("age", "INT64", ["rows"]),
    tensor("income", "FP32", ["rows"], nullable=True),
    tensor("plan", "BYTES", ["rows"], content_type="str"),
    tensor("visits", "INT64", ["rows"], nullable=True, optional=True),
]
OUTPUTS = [
    tensor("older", "INT64", ["rows"]),
    tensor("income", "FP32", ["rows"]),
    tensor("plan", "BYTES", ["rows"], content_type="str"),
    tensor("pairs", "FP64", ["rows", 2]),
    tensor("visits", "INT64", ["rows"], nullable=True, optional=True),
]
CODE = """
import numpy as np


def f(age, income, plan, visits=None):
    pairs = np.stack([age, -age], axis=1).astype(float)
    plan = [p.upper() for p in plan]
    return {"older": age + 1, "income": income, "plan": plan, "pairs": pairs, "visits": visits}


def stream(age, income, plan):
    for index in range(2):
        yield {**f(age, income, plan), "older": age + index}


def uneven(age):
    return {"a": age, "b": age[1:]}
"""
UNEVEN = {
    "inputs": [tensor("age", "INT64", [-1])],
    "outputs": [tensor("a", "INT64", [-1]), tensor("b", "INT64", [-1])],
}
ROWS = 20_000
"""So many that the columns go to a worker by shared memory."""


def _models() -> dict[str, Definition]:
    contract = {"inputs": INPUTS, "outputs": OUTPUTS}
    return {
        "plain": inline(CODE, "f", contract),
        "isolated": inline(CODE, "f", contract, isolation="process"),
        "batched": inline(CODE, "f", contract, batch={"max_size": 8, "max_delay_ms": 5}),
        "stream": inline(CODE, "stream", contract),
        "uneven": inline(CODE, "uneven", UNEVEN),
    }


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder, models = tmp_path_factory.mktemp("repository"), _models()
    write_repository(folder, models)
    env = {"MLSERVER_GRPC_MAX_MESSAGE_LENGTH": str(1 << 26)}
    with serving(folder, tmp_path_factory.mktemp("server"), *models, env=env) as server:
        yield server
        assert server.stop() == 0, server.log


def _binary(server: ServerProcess, request: Request) -> tuple[Reply, bytes]:
    [table] = request.inputs
    raw = len(table.values[0]).to_bytes(4, "little") + table.values[0]
    parameters = {**table.parameters, "binary_data_size": len(raw)}
    head = {"name": table.name, "datatype": "BYTES", "shape": [1], "parameters": parameters}
    outputs = [{"name": name} for name in request.outputs]
    asked = {**request.parameters, "binary_data_output": True}
    sent = json.dumps({"inputs": [head], "parameters": asked, "outputs": outputs}).encode()
    headers = {"Inference-Header-Content-Length": str(len(sent))}
    path = f"/v2/models/{request.model}/infer"
    response = server.client.post(path, content=sent + raw, headers=headers)
    length = response.headers.get("Inference-Header-Content-Length")
    if length is None:
        return read_json(response), b""
    assert json.loads(response.content[: int(length)])["parameters"] == {"content_type": ARROW}
    return Reply(200), response.content[int(length) + 4 :]


@pytest.fixture(params=["REST JSON", "REST binary", "gRPC typed", "gRPC raw"])
def infer(request: pytest.FixtureRequest, server: ServerProcess, grpc_call: GrpcCall) -> Any:
    """Sends a table by one of the routes. Returns the reply, and the table in it."""

    def sent(model: str, table: pa.Table, outputs: list[str] | None = None) -> Any:
        given = Tensor("rows", "BYTES", (1,), [_stream(table)], {"content_type": ARROW})
        asked = {"output_content_type": ARROW}
        request_ = Request(model, [given], outputs or [], parameters=asked)
        if request.param == "REST binary":
            reply, body = _binary(server, request_)
            return reply, body and pa.ipc.open_stream(body).read_all()
        if request.param == "REST JSON":
            reply = rest_infer(server.client, request_)
        else:
            raw = request.param == "gRPC raw"
            reply = grpc_call(grpc_calls.infer, server.grpc_address, request_, raw)
        [answer] = [one.values[0] for one in reply.outputs.values()] or [b""]
        return reply, answer and pa.ipc.open_stream(answer).read_all()

    return sent


def _stream(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=ROWS // 2)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def _table(rows: int) -> pa.Table:
    incomes = pa.array([1.5, None] * (rows // 2), pa.float32())
    visits = pa.array([None, 2**60 + 1] * (rows // 2), pa.int64())
    plans = ["ü", ""] * (rows // 2)
    return pa.table({"plan": plans, "income": incomes, "age": range(rows), "visits": visits})


@pytest.mark.parametrize("model", ["plain", "isolated", "batched"])
@pytest.mark.parametrize("rows", [0, 2, ROWS])
def test_a_table_comes_and_goes_whole(infer: Any, model: str, rows: int) -> None:
    reply, answer = infer(model, _table(rows))
    reply.expect_ok()
    assert answer.column_names == ["older", "income", "plan", "pairs", "visits"]
    assert answer["visits"].to_pylist() == [None, 2**60 + 1] * (rows // 2)
    assert answer["older"].to_pylist() == list(range(1, rows + 1))
    assert answer["plan"].to_pylist() == ["Ü", ""] * (rows // 2)
    assert answer["income"].type == pa.float32()
    assert answer["income"].to_numpy()[::2].tolist() == [1.5] * (rows // 2)
    assert answer["pairs"].to_pylist() == [[float(n), -float(n)] for n in range(rows)]


def test_only_the_outputs_that_are_asked_for_are_columns(infer: Any) -> None:
    _, answer = infer("plain", _table(2), ["plan", "older"])
    assert answer.column_names == ["plan", "older"]


def test_errors_are_those_of_the_contract(infer: Any) -> None:
    def error(model: str, table: pa.Table) -> str:
        reply, _ = infer(model, table)
        assert reply.status in (400, "INVALID_ARGUMENT")
        return str(reply.error)

    table = _table(2)
    assert error("plain", table.drop_columns(["age", "visits"])) == (
        'input "age" of model "plain": missing from the request, which has "plan", "income"'
    )
    more = table.append_column("other", pa.array([1, 2]))
    assert error("isolated", more).startswith('input "other" of model "isolated": unknown')
    nulls = table.set_column(2, "age", pa.array([1, None]))
    assert "got null at index 1" in error("batched", nulls)
    assert error("uneven", pa.table({"age": [1, 2]})) == (
        'outputs of model "uneven": expected as many rows as in output "a", for Arrow, '
        'got shape [1] of "b"'
    )


def test_a_stream_gives_a_table_for_each_item(server: ServerProcess) -> None:
    element = base64.b64encode(_stream(_table(2))).decode()
    body = {
        "parameters": {"output_content_type": ARROW},
        "inputs": [
            {
                "name": "rows",
                "datatype": "BYTES",
                "shape": [1],
                "parameters": {"content_type": ARROW},
                "data": [element],
            }
        ],
    }
    text = server.client.post("/v2/models/stream/infer_stream", json=body).text
    items = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
    tables = [
        pa.ipc.open_stream(base64.b64decode(item["outputs"][0]["data"][0])).read_all()
        for item in items
    ]
    assert [table["older"].to_pylist() for table in tables] == [[0, 1], [1, 2]]


def test_arrow_is_one_of_the_ways_in_and_out(server: ServerProcess) -> None:
    given = Tensor("rows", "BYTES", (1,), [_stream(_table(2))], {"content_type": ARROW})
    reply = rest_infer(server.client, Request("plain", [given])).expect_ok()
    assert reply.outputs["older"].values == [1, 2]
    columns = [
        Tensor("age", "INT64", (1,), [7]),
        Tensor("income", "FP32", (1,), [1.0]),
        Tensor("plan", "BYTES", (1,), [b"a"]),
    ]
    asked = Request("plain", columns, parameters={"output_content_type": ARROW})
    reply = rest_infer(server.client, asked).expect_ok()
    [table] = reply.outputs["table"].values
    assert pa.ipc.open_stream(table).read_all()["older"].to_pylist() == [8]
