"""The table of docs/design/edges.md, asked from three servers."""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.places import ROOT

from . import grpc_calls
from .conftest import GrpcCall
from .models import inline, write_model
from .process import ServerProcess
from .test_edges import ECHO, JSON, UNSERVED, _binary, _request, _write_models
from .wire import Request, Tensor, json_request

PAGE = ROOT / "docs" / "design" / "edges.md"
HEAD = "| call | REST, JSON | REST, binary | gRPC |\n|---|---|---|---|\n"
SERVERS = {"only functions": "1", "mixed": "1", "fast path off": "0"}
RAISES = "def handler(x):\n    raise ValueError('no')\n"
Change = Callable[[bytes, dict[str, str]], tuple[bytes, dict[str, str]]]


def _with(name: str = "x", datatype: str = "FP32", shape: tuple[int, ...] = (1, 4)) -> Request:
    return Request("iris", [Tensor(name, datatype, shape, [1.0] * 4, raw=bytes(16))])


CALLS = {
    "a function that is ready": _request("iris"),
    "an unknown model": UNSERVED["an unknown model"][0],
    "an unknown version": UNSERVED["an unknown version"][0],
    "a model that did not load": UNSERVED["a failed model"][0],
    "a model that loads": UNSERVED["a loading model"][0],
    "a handler that raises": _request("raises"),
    "a tensor of another name": _with(name="z"),
    "another datatype": _with(datatype="INT32"),
    "an unknown datatype": _with(datatype="FP8"),
    "another shape": _with(shape=(2, 2)),
    "fewer elements than the shape has": _with(shape=(2, 4)),
    "a negative size": _with(shape=(-1, 4)),
    "an unknown output": _request("iris", outputs=["z"]),
    "no inputs": Request("iris", []),
    "a model of another runtime": _request("other"),
}
CHANGES: dict[str, Change] = {
    "`Content-Encoding: deflate`": lambda body, headers: (
        zlib.compress(body),
        {**headers, "Content-Encoding": "deflate"},
    ),
    "a body that is not of its encoding": lambda body, headers: (
        body,
        {**headers, "Content-Encoding": "gzip"},
    ),
    "an unknown encoding": lambda body, headers: (body, {**headers, "Content-Encoding": "br"}),
    "another content type": lambda body, headers: (body, {**headers, "Content-Type": "text/x"}),
    "half a body": lambda body, headers: (body[:40], headers),
    "no body": lambda body, headers: (b"", headers),
}


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, ServerProcess]]:
    with ExitStack() as stack:
        found = {}
        for name, fast_path in SERVERS.items():
            work = tmp_path_factory.mktemp("edge-table")
            folder = work / "models"
            _write_models(folder, work / "gate")
            write_model(folder / "raises", inline(RAISES, "handler", ECHO))
            if name == "only functions":
                shutil.rmtree(folder / "other")
            found[name] = ServerProcess(folder, work, {"MLSERVER_PYFUNC_FASTPATH": fast_path})
            stack.callback(found[name].close)
            found[name].start()
        for server in found.values():
            server.wait_until_ready("iris", "raises")
            folder = Path(server._command[-1])
            write_model(folder / "broken", inline("import nowhere_at_all", "handler", ECHO))
            server.client.post("/v2/repository/models/broken/load")
        yield found


def _cell(servers: dict[str, ServerProcess], ask: Callable[[ServerProcess], int | str]) -> str:
    answers = {name: f"{ask(server)}" for name, server in servers.items()}
    usual, *_ = answers.values()
    others = [f"{name}: {each}" for name, each in answers.items() if each != usual]
    return "; ".join([usual, *others])


def _rest(server: ServerProcess, request: Request, binary: bool, change: Change | None) -> int:
    body, headers = json.dumps(json_request(request)).encode(), JSON
    if binary:
        body, headers = _binary(request)
    if change:
        body, headers = change(body, headers)
    version = f"/versions/{request.version}" if request.version else ""
    path = f"/v2/models/{request.model}{version}/infer"
    return server.client.post(path, content=body, headers=headers).status_code


def test_the_page_has_the_answers_of_each_route_and_server(
    servers: dict[str, ServerProcess], grpc_call: GrpcCall
) -> None:
    rows = []
    for name, request in CALLS.items():
        cells = [
            _cell(servers, lambda server, r=request, b=binary: _rest(server, r, b, None))
            for binary in (False, True)
        ]
        cells.append(
            _cell(
                servers,
                lambda server, r=request: (
                    grpc_call(grpc_calls.infer, server.grpc_address, r, True).status
                ),
            )
        )
        rows.append(f"| {name} | {' | '.join(cells)} |\n")
    for name, change in CHANGES.items():
        cells = [
            _cell(servers, lambda server, b=binary, c=change: _rest(server, _request("iris"), b, c))
            for binary in (False, True)
        ]
        rows.append(f"| {name} | {' | '.join(cells)} | |\n")
    table = HEAD + "".join(rows)
    assert table in PAGE.read_text(), f"docs/design/edges.md is to have\n{table}"
