"""What KServe's server has besides the protocol: probes, metrics, clients, transformers, ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from packaging.requirements import Requirement

from mlserver_pyfunc.deployment.server_settings import free_ports
from mlserver_pyfunc.hosts.common.rest_request import asks_for_ready
from tests.deployment.manifests import schemas
from tests.hosts.mlserver import kserve_calls
from tests.hosts.mlserver.conftest import GrpcCall
from tests.hosts.mlserver.models import MODELS, inline, write_model, write_repository
from tests.hosts.mlserver.wire import Request, Tensor, rest_infer
from tests.needs import require
from tests.places import EXAMPLES
from tests.waiting import wait_until

from .process import KServeProcess, serving

ONE = Request("strict", [Tensor("x", "FP32", (1, 4), [1.0, 2.0, 3.0, 4.0])])

TRANSFORMER = """
import sys
from kserve import Model, ModelServer, model_server

class Twice(Model):
    async def preprocess(self, payload, headers=None):
        if isinstance(payload, dict):
            return {"instances": [[2 * x for x in row] for row in payload["instances"]]}
        part = payload.inputs[0]
        part.set_data_from_numpy(part.as_numpy() * 2, binary_data=False)
        return payload

model = Twice("strict")
model.ready = True
ModelServer(enable_grpc=False).start([model])
"""
# What KServe sends to its processes, read in a process of its own.
PROCESS = """
import pickle, subprocess, sys
if sys.argv[1] != "child":
    from pathlib import Path
    from kserve.model_server import FASTAPI_APP_IMPORT_STRING
    from kserve.protocol.rest.server import RESTServer
    from mlserver_pyfunc.hosts.kserve.models import FunctionModel, Functions
    from mlserver_pyfunc.hosts.kserve.__main__ import Server
    server = Server(Functions([FunctionModel(Path(folder)) for folder in sys.argv[1:]]))
    rest = RESTServer(
        FASTAPI_APP_IMPORT_STRING, server.dataplane, server.model_repository_extension, 0
    )
    child = [sys.executable, "-c", sys.orig_argv[2], "child"]
    sys.exit(subprocess.run(child, input=pickle.dumps(rest.run)).returncode)
run = pickle.load(sys.stdin.buffer)
from kserve.model_server import app
from starlette.testclient import TestClient
run.__self__.create_application()
with TestClient(app) as client:
    assert client.get("/v2/health/ready").json() == {"ready": True}
    print(client.post("/v1/models/upper:predict", json={"instances": ["a"]}).text)
    for name in ("strict", "upper"):
        assert client.post(f"/v2/repository/models/{name}/unload").status_code == 200
    assert client.get("/v2/health/ready").status_code == 503
"""


def _status(server: KServeProcess, path: str) -> int:
    return server.client.get(path).status_code


def test_kserves_probes_are_answered(server: KServeProcess) -> None:
    answers = {
        path: server.client.get(path).json()
        for path in ("/", "/v2/health/live", "/v2/health/ready", "/v1/models/echo", "/v2/models")
    }
    assert answers["/"] == {"status": "alive"}
    assert answers["/v2/health/live"] == {"live": True}
    assert answers["/v2/health/ready"] == {"ready": True}
    assert answers["/v1/models/echo"] == {"name": "echo", "ready": True}
    assert {*answers["/v2/models"]["models"]} >= {*MODELS}
    index = server.client.post("/v2/repository/index").json()
    assert {"name": "strict", "state": "READY", "reason": ""} in index
    assert [each["name"] for each in index] == answers["/v2/models"]["models"]
    assert server.client.post("/v2/repository/index", json={"ready": True}).json() == index


@pytest.mark.parametrize("body", ["", "{}", '{"ready": false}', '{"ready": true}'])
def test_the_index_is_asked_for_ready_functions_alone(body: str) -> None:
    assert asks_for_ready(body.encode()) == ("true" in body)


def test_the_process_keeps_its_memory_as_the_other_host_does(server: KServeProcess) -> None:
    reply = server.client.post("/v1/models/tuned:predict", json={"instances": [0]})
    assert reply.json() == {"predictions": [20_000]}


WRONG_ROUTES = {
    ("GET", "/v2/nowhere"): (404, "GET /v2/nowhere: no such path, expected one of the Open "),
    ("GET", "/v2/models/strict/infer"): (
        405,
        "GET /v2/models/strict/infer: expected POST, got GET",
    ),
    ("POST", "/v1/models/strict"): (405, "POST /v1/models/strict: expected "),
    ("GET", "/v1/models/nothing"): (404, 'model "nothing" not found, expected '),
    ("GET", "/v2/models/nothing/ready"): (404, 'model "nothing" not found, expected '),
    ("POST", "/v2/models/nothing/infer"): (404, 'model "nothing" not found, expected '),
    ("POST", "/v2/repository/index"): (400, "repository index: expected no body or "),
}


@pytest.mark.parametrize("route", WRONG_ROUTES, ids=" ".join)
def test_every_error_of_a_route_has_one_form(route: tuple[str, str], server: KServeProcess) -> None:
    reply = server.client.request(*route, content=b"[" if route[0] == "POST" else None)
    status, text = WRONG_ROUTES[route]
    assert (reply.status_code, [*reply.json()]) == (status, ["error"])
    assert reply.json()["error"].startswith(text)


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_kserves_own_clients_see_states_and_answers(
    protocol: str, server: KServeProcess, kserve_call: GrpcCall
) -> None:
    address = server.url if protocol == "rest" else server.grpc_address
    states = kserve_call(kserve_calls.status, protocol, address, ["strict", "nothing"])
    assert states == {"live": True, "ready": True, "strict": True, "nothing": False}
    answer = kserve_call(kserve_calls.infer_once, protocol, address, "strict")
    assert answer == ("", "[10.0]")


def test_kserves_rest_client_sends_and_reads_every_element(
    server: KServeProcess, kserve_call: GrpcCall
) -> None:
    for datatype, values in [("FP32", [1.5, -2.0]), ("INT64", [2**53, -1]), ("BYTES", ["a", "é"])]:
        echoed = kserve_call(kserve_calls.infer_by_rest, server.url, datatype, values)
        assert echoed == values


def test_a_version_that_is_unknown_is_named(server: KServeProcess) -> None:
    paths = {version: f"/v2/models/versioned/versions/{version}" for version in ("1", "2")}
    assert server.client.get(paths["1"]).json()["versions"] == ["1"]
    reply = server.client.get(paths["2"])
    message = 'version "2" of model "versioned" not found, expected "1"'
    assert (reply.status_code, reply.json()) == (404, {"error": message})


def test_texts_are_generated(server: KServeProcess) -> None:
    reply = server.client.post("/v2/models/upper/generate", json={"text_input": "word"})
    assert reply.json() == {"text_output": "WORD", "model_name": "upper"}
    wrong = server.client.post("/v2/models/upper/generate", json={"text_input": 1})
    assert wrong.status_code == 422


def test_calls_are_joined_and_counted(server: KServeProcess) -> None:
    request = Request("joined", [Tensor("x", "FP32", (1,), [1.0])])
    with ThreadPoolExecutor(8) as pool:
        sizes = [
            int(reply.expect_ok().outputs["rows"].values[0])
            for reply in pool.map(lambda _: rest_infer(server.client, request), range(8))
        ]
    assert max(sizes) > 1
    metrics = server.client.get("/metrics").text
    assert 'pyfunc_request_duration_seconds_count{model="joined",status="200",version=""} 8.0' in (
        metrics
    )
    assert 'request_predict_seconds_count{model_name="joined"} 8.0' in metrics


def test_a_full_queue_is_answered_with_retry_after(server: KServeProcess) -> None:
    request = Request("narrow", [Tensor("seconds", "FP64", (1,), [2.0])])
    with ThreadPoolExecutor(5) as pool:
        replies = list(pool.map(lambda _: rest_infer(server.client, request), range(5)))
    refused = [reply for reply in replies if reply.status == 503]
    assert refused
    assert int(refused[0].headers["retry-after"]) >= 1


def test_a_worker_that_is_killed_is_replaced(server: KServeProcess) -> None:
    def pid() -> int:
        reply = rest_infer(server.client, Request("whoami", [Tensor("x", "INT64", (1,), [0])]))
        return int(reply.outputs["pid"].values[0]) if reply.status == 200 else 0

    first = pid()
    assert first not in (0, server.pid)
    os.kill(first, signal.SIGKILL)

    # A call waits for the new worker, unless it began before the death was seen.
    def is_answered() -> bool:
        reply = server.client.post("/v1/models/whoami:predict", json={"instances": [0]})
        assert reply.status_code in (200, 500), reply.text
        return reply.status_code == 200

    wait_until(is_answered)
    wait_until(lambda: pid() not in (0, first), "another worker")
    assert _status(server, "/v2/models/whoami/ready") == 200


def test_an_idle_connection_stays_longer_than_uvicorns_five_seconds(server: KServeProcess) -> None:
    with closing(HTTPConnection(server.rest_address, timeout=60)) as connection:
        sockets = set()
        for pause in (6, 0):
            connection.request("GET", "/v2/health/live")
            sockets.add(connection.sock)
            assert json.loads(connection.getresponse().read()) == {"live": True}
            time.sleep(pause)
    assert len(sockets) == 1


def test_a_function_is_unloaded(server: KServeProcess) -> None:
    path = "/v2/repository/models/spare"
    assert server.client.post(f"{path}/unload").status_code == 200
    assert _status(server, "/v2/models/spare/ready") == 404


@pytest.mark.parametrize(
    ("protocol", "host", "path", "body"),
    [
        ("v1", "rest", "/v1/models/strict:predict", {"instances": [[1, 2, 3, 4]]}),
        *(
            (protocol, host, "/v2/models/strict/infer", {"inputs": [
                {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}
            ]})
            for protocol, host in (("v2", "rest"), ("grpc-v2", "grpc"))
        ),
    ],
)  # fmt: skip
def test_a_transformer_of_kserve_calls_a_function(
    protocol: str, host: str, path: str, body: Any, server: KServeProcess, tmp_path: Path
) -> None:
    script = tmp_path / "transformer.py"
    script.write_text(TRANSFORMER)
    predictor = server.rest_address if host == "rest" else server.grpc_address
    flags = ["--predictor_protocol", protocol, "--predictor_host", predictor]
    with serving(tmp_path, tmp_path, program=[str(script)], flags=flags) as transformer:
        wait_until(lambda: _answers(transformer), "a transformer")
        reply = transformer.client.post(path, json=body)
    assert reply.status_code == 200, reply.text
    answer = reply.json()
    sums = answer["predictions"][0]["sum"] if protocol == "v1" else answer["outputs"][0]["data"][0]
    assert sums == 20.0


def _answers(server: KServeProcess) -> bool:
    try:
        return server.client.get("/").status_code == 200
    except httpx.TransportError:
        return False


def test_a_process_of_uvicorn_serves_the_functions_over_rest(tmp_path: Path) -> None:
    """KServe itself kills one that needs more than 5 s to start, so this one is not KServe's."""
    write_repository(tmp_path, {name: MODELS[name] for name in ("strict", "upper")})
    done = subprocess.run(
        [sys.executable, "-c", PROCESS, *(str(tmp_path / name) for name in ("strict", "upper"))],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"predictions": ["A"]}


def test_a_function_that_does_not_load_ends_the_server(tmp_path: Path) -> None:
    write_model(
        tmp_path / "wrong", inline("def f(x): return x", "g", {"inputs": [], "outputs": []})
    )
    server = KServeProcess(tmp_path / "wrong", tmp_path, flags=["--model_name", "named"])
    server.start()
    try:
        assert server.wait_for_end() == 1
    finally:
        server.close()
    assert 'function "named" failed to load' in server.log
    assert "uvicorn/lifespan" not in server.log


@pytest.mark.parametrize("option", ["http_port", "grpc_port"])
def test_a_port_that_is_taken_ends_the_server(server: KServeProcess, option: str) -> None:
    address = server.rest_address if option == "http_port" else server.grpc_address
    taken = address.rpartition(":")[2]
    other, flags = str(free_ports(1)[0]), [f"--{option}", taken]
    flags += ["--grpc_port" if option == "http_port" else "--http_port", other]
    folder = str(EXAMPLES / "text-stream")
    command = [sys.executable, "-m", "mlserver_pyfunc.hosts.kserve", folder, *flags]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert f"port {taken}: Address already in use" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_flag_that_kserve_does_not_know_is_refused() -> None:
    command = [sys.executable, "-m", "mlserver_pyfunc.hosts.kserve", "--no-such-flag", "1"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert "--no-such-flag" in ended.stderr


def test_no_module_of_mlserver_is_imported(server: KServeProcess) -> None:
    seen = json.loads(
        rest_infer(server.client, Request("modules", [Tensor("x", "INT64", (1,), [0])]))
        .expect_ok().outputs["names"].values[0]
    )  # fmt: skip
    assert "kserve" in seen
    assert [name for name in seen if name.partition(".")[0] == "mlserver"] == []


def test_the_requirements_without_mlserver_are_those_of_the_package() -> None:
    file = EXAMPLES / "kubernetes" / "modelserver" / "requirements.txt"
    listed = {line for line in file.read_text().splitlines() if not line.startswith("#")}
    needed = {
        str(Requirement(line))
        for line in requires("mlserver-pyfunc") or ()
        if "extra ==" not in line
    }
    without = {line for line in needed if not line.startswith(("mlserver", "uvloop"))}
    assert {str(Requirement(line)) for line in listed} == without | {
        str(Requirement("kserve>=0.21,<0.22"))
    }


def test_the_runtime_is_what_kserve_takes() -> None:
    file = EXAMPLES / "kubernetes" / "modelserver" / "runtime.yaml"
    require("CRD schemas")
    runtime, service = yaml.safe_load_all(file.read_text())
    for found in (runtime, service):
        assert schemas.knows(found)
        schemas.check(found)
    assert service["spec"]["predictor"]["model"]["runtime"] == runtime["metadata"]["name"]
