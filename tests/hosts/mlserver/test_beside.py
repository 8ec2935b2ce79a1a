"""The table of docs/neighbours.md, asked from three servers, and its lists of patches."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import httpx
import pytest

from mlserver_pyfunc.hosts.mlserver.patches import TABLE
from tests.docs.markdown import tables
from tests.places import ROOT

from . import grpc_calls
from .conftest import GrpcCall
from .models import inline, tensor, write_model
from .process import ServerProcess
from .wire import Request, Tensor, json_request

PAGE = ROOT / "docs" / "neighbours.md"
HEAD = "| call | plain MLServer | beside a function | patch |\n|---|---|---|---|\n"
NEIGHBOURS = """
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.errors import MLServerError
from mlserver.types import InferenceResponse


class Other(MLModel):
    async def predict(self, payload):
        value = NumpyCodec.decode_input(payload.inputs[0])
        if value[0] == 13:
            raise ValueError("unlucky")
        if value[0] == 503:
            raise MLServerError("later", 503)
        output = NumpyCodec.encode_output("y", value)
        return InferenceResponse(model_name=self.name, outputs=[output])


class Down(Other):
    async def load(self) -> bool:
        return False
"""
TENSORS = {"inputs": [tensor("x", "FP32", [-1])], "outputs": [tensor("y", "FP32", [-1])]}
FOREIGN = {"Origin": "https://elsewhere.example"}
Ask = Callable[[ServerProcess, GrpcCall], str]


def _request(model: str, value: float = 1.0, version: str | None = None) -> Request:
    return Request(model, [Tensor("x", "FP32", (2,), [value, 2.0])], version=version)


def _get(path: str) -> Ask:
    return lambda server, call: _shown(server.client.get(path))


def _post(path: str, body: object, headers: dict[str, str] | None = None) -> Ask:
    # MLServer closes a connection after a 500: the next request on it could be reset.
    more = {"Content-Type": "application/json", "Connection": "close", **(headers or {})}
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return lambda server, call: _shown(server.client.post(path, content=content, headers=more))


def _infer(model: str, value: float = 1.0) -> Ask:
    body = {"id": "1", **json_request(_request(model, value))}
    return _post(f"/v2/models/{model}/infer", body)


def _grpc(model: str, value: float = 1.0) -> Ask:
    request = _request(model, value)
    return lambda server, call: call(grpc_calls.infer, server.grpc_address, request, True).status


def _shown(reply: httpx.Response) -> str:
    text = " ".join(reply.text.split())
    return f"{reply.status_code} `{text}`" if text else f"{reply.status_code}"


OF_NOBODY = _infer("nobody")
FROM_ELSEWHERE = _post("/v2/repository/index", {}, FOREIGN)
DIFFERENT: dict[str, tuple[Ask, str]] = {
    "GET `/v2/health/live`": (_get("/v2/health/live"), "answer_at_the_edges"),
    "GET `/v2/models/other/ready`": (_get("/v2/models/other/ready"), "answer_at_the_edges"),
    "GET `/v2/models/down/ready`, which is not ready": (
        _get("/v2/models/down/ready"),
        "answer_at_the_edges",
    ),
    "REST, infer of `down`": (_infer("down"), "answer_not_ready_with_503"),
    "gRPC, infer of `down`": (_grpc("down"), "answer_not_ready_with_503"),
    "REST, infer of `nobody`": (
        # The names follow, in the order in which the models were loaded.
        lambda server, call: re.sub(', expected .*"', ', expected ..."', OF_NOBODY(server, call)),
        "name_served_models",
    ),
    "GET `/v2/nowhere`": (_get("/v2/nowhere"), "answer_at_the_edges"),
    'gRPC, `other` raises `MLServerError("later", 503)`': (
        _grpc("other", 503),
        "extend_error_mapping",
    ),
    "POST `/v2/repository/index` from a page of another site": (
        lambda server, call: FROM_ELSEWHERE(server, call).partition(" ")[0],
        "guard_requests",
    ),
    "GET `/v2`": (_get("/v2"), "fast_path,triton"),
}
EQUAL: dict[str, Ask] = {
    "infer": _infer("other"),
    "a model that raises": _infer("other", 13),
    "a model that refuses": _infer("other", 503),
    "no body": _post("/v2/models/other/infer", b""),
    "half a body": _post("/v2/models/other/infer", b'{"inputs": ['),
    "a body of another form": _post("/v2/models/other/infer", {"inputs": 1}),
    "a bad gzip body": _post("/v2/models/other/infer", b"no", {"Content-Encoding": "gzip"}),
    "another site's page": _post(
        "/v2/models/other/infer", json_request(_request("other")) | {"id": "1"}, FOREIGN
    ),
    "metadata": _get("/v2/models/other"),
    "gRPC": _grpc("other"),
    "gRPC, a model that raises": _grpc("other", 13),
}


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, ServerProcess]]:
    """Plain MLServer, one with a function, and one with a function and the patches off."""
    off = ",".join(patch for _, patch in DIFFERENT.values())
    with ExitStack() as stack:
        found = {}
        for name in ("plain", "beside", "off"):
            work = tmp_path_factory.mktemp(name)
            folder = work / "models"
            for model in ("other", "down"):
                (folder / model).mkdir(parents=True)
                settings = {"name": model, "implementation": f"neighbours.{model.title()}"}
                (folder / model / "model-settings.json").write_text(json.dumps(settings))
            (folder / "neighbours.py").write_text(NEIGHBOURS)
            if name != "plain":
                write_model(
                    folder / "echo", inline("def handler(x):\n    return x\n", "handler", TENSORS)
                )
            env = {
                "MLSERVER_PARALLEL_WORKERS": "0",
                "MLSERVER_DEBUG": "false",
                "MLSERVER_SERVER_VERSION": "1",
            }
            if name == "off":
                env["MLSERVER_PYFUNC_PATCHES_OFF"] = off
            found[name] = ServerProcess(folder, work, env)
            stack.callback(found[name].close)
            found[name].start()
        for name, server in found.items():
            server.wait_until_ready("other", *(["echo"] if name != "plain" else []))
        yield found


def test_the_page_has_each_difference_and_how_to_switch_it_off(
    servers: dict[str, ServerProcess], grpc_call: GrpcCall
) -> None:
    rows = []
    for name, (ask, patch) in DIFFERENT.items():
        plain, beside, off = (ask(servers[key], grpc_call) for key in ("plain", "beside", "off"))
        assert plain != beside, f"{name}: there is no difference"
        assert off == plain, f"{name}: it is not off without {patch}"
        rows.append(f"| {name} | {plain} | {beside} | `{patch}` |\n")
    assert HEAD + "".join(rows) in PAGE.read_text(), HEAD + "".join(rows)


@pytest.mark.parametrize("name", EQUAL)
def test_what_the_neighbour_itself_answers_is_mlservers(
    name: str, servers: dict[str, ServerProcess], grpc_call: GrpcCall
) -> None:
    plain, beside = (EQUAL[name](servers[key], grpc_call) for key in ("plain", "beside"))
    assert plain == beside


def test_the_page_has_each_patch_once() -> None:
    sections = ("They change what neighbours answer", "They change no answer of neighbours")
    listed = [
        name
        for section in sections
        for row in tables(PAGE, section)
        for name in re.findall(r"`(\w+)`", row[0])
    ]
    assert sorted(listed) == sorted({row.name for row in TABLE})
