"""MLServer's settings hold for functions, as the table in docs/operations.md says."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator

import httpx
import pytest
from mlserver.settings import ModelSettings, Settings

from tests.docs.markdown import tables
from tests.places import ROOT

from .models import inline, tensor, write_model
from .process import ServerProcess, serving
from .wire import Request, Tensor, json_request, rest_infer

PAGE = ROOT / "docs" / "operations.md"
TENSORS = {"inputs": [tensor("x", "FP32", [-1])], "outputs": [tensor("y", "FP32", [-1])]}
CODE = """
def handler(x):
    if x[0] == 13:
        raise ValueError("unlucky")
    return x
"""
SITE = "https://allowed.example"
BODY = json_request(Request("echo", [Tensor("x", "FP32", (400,), [1.0] * 400)]))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder, work = tmp_path_factory.mktemp("models"), tmp_path_factory.mktemp("work")
    write_model(folder / "echo", inline(CODE, "handler", TENSORS))
    cors = {"allow_origins": [SITE], "allow_methods": ["POST"], "allow_headers": ["*"]}
    settings = {
        "debug": True,
        "gzip_enabled": True,
        "metrics_endpoint": None,
        "cors_settings": cors,
        "server_name": "mine",
        "extensions": ["my_extension"],
        "root_path": "/gate",
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    with serving(folder, work, "echo") as started:
        yield started


def test_the_page_has_each_setting_of_mlserver() -> None:
    rows = tables(PAGE, "MLServer's settings")
    names = [name for row in rows for name in re.findall(r"`(\w+)`", row[0])]
    known = {*Settings.model_fields, *ModelSettings.model_fields}
    assert len(names) == len(set(names))
    assert set(names) <= known
    assert set(Settings.model_fields) <= set(names)


def test_debug_shows_no_traceback_to_clients(server: ServerProcess) -> None:
    x = Tensor("x", "FP32", (1,), [13.0])
    reply = rest_infer(server.client, Request("echo", [x]))
    assert "unlucky" in reply.error
    assert "Traceback" not in reply.error
    server.wait_for_log('"POST /gate/v2/models/echo/infer')


def test_gzip_packs_answers_for_clients_that_take_it(server: ServerProcess) -> None:
    for accepted, encoding in (("gzip", "gzip"), ("identity", None)):
        headers = {"Accept-Encoding": accepted}
        with server.client.stream(
            "POST", "/v2/models/echo/infer", json=BODY, headers=headers
        ) as reply:
            raw = b"".join(reply.iter_raw())
        assert reply.headers.get("Content-Encoding") == encoding
        answer = json.loads(gzip.decompress(raw) if encoding else raw)
        assert answer["outputs"][0]["data"] == [1.0] * 400


def test_cors_settings_let_a_site_call_functions(server: ServerProcess) -> None:
    asks = {
        "Origin": SITE,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type",
    }
    for path in ("/v2/models/echo/infer", "/v2/models/echo/generate_stream"):
        preflight = server.client.options(path, headers=asks)
        assert preflight.headers["Access-Control-Allow-Origin"] == SITE
    path = "/v2/models/echo/infer"
    answer = server.client.post(path, json=BODY, headers={"Origin": SITE})
    assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (200, SITE)
    other = server.client.post(path, json=BODY, headers={"Origin": "https://other.example"})
    assert other.status_code == 403


def test_a_server_without_metrics_serves_functions(server: ServerProcess) -> None:
    assert server.client.post("/v2/models/echo/infer", json=BODY).status_code == 200
    port = server._env["MLSERVER_METRICS_PORT"]
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/metrics")


def test_the_servers_metadata_keeps_its_name_and_extensions(server: ServerProcess) -> None:
    metadata = server.client.get("/v2").json()
    assert metadata["name"] == "mine"
    assert {"my_extension", "binary_tensor_data"} <= set(metadata["extensions"])


def test_errors_keep_their_form_behind_a_root_path(server: ServerProcess) -> None:
    answer = server.client.post("/v2/models/nobody/infer", json=BODY)
    assert answer.status_code == 404
    assert 'model "nobody" not found, expected "echo"' in answer.json()["error"]
