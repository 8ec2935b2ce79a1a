"""Handlers in the manner of other frameworks, served without definitions over REST and gRPC."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.handler.forty import FORTY, Case, real
from tests.places import ROOT

from .process import ServerProcess, serving

SERVED = {case.name: case for case in FORTY if not case.reason}
ISOLATED = ("iris", "to-image", "generate", "cog-stream")


def write(folder: Path, case: Case, function: Any) -> None:
    folder.mkdir(parents=True)
    (folder / "model.py").write_text(case.code)
    settings = {"name": folder.name, "implementation": "mlserver_pyfunc.PyFuncRuntime"}
    settings |= {"parameters": {"extra": {"function": function}}}
    (folder / "model-settings.json").write_text(json.dumps(settings))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerProcess, dict]]:
    repository = tmp_path_factory.mktemp("repository")
    cases = {name: name for name in SERVED} | {f"{name}-apart": name for name in ISOLATED}
    for model, name in cases.items():
        case = SERVED[name]
        source = {"source": "model.py", "handler": case.handler}
        apart = {"source": source, "serving": {"isolation": "process"}}
        write(repository / model, case, apart if model != name else f"model.py:{case.handler}")
    with serving(repository, tmp_path_factory.mktemp("server"), *cases) as server:
        yield server, cases


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_each_is_served_as_it_is(models: Any, protocol: str) -> None:
    server, cases = models
    address = server.rest_address if protocol == "http" else server.grpc_address
    ran = subprocess.run(
        [sys.executable, "-m", f"{__package__}.signature_calls", f"{protocol}://{address}"],
        cwd=ROOT, input=json.dumps(cases), capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    answers = json.loads(ran.stdout)
    for model, name in cases.items():
        expected = json.dumps(real(SERVED[name].answer), default=lambda b: b.decode("latin-1"))
        assert answers[model] == json.loads(expected), model


def test_metadata_and_openapi_have_what_the_signature_tells(models: Any) -> None:
    server, _ = models
    for model in ("iris", "iris-apart"):
        metadata = server.client.get(f"/v2/models/{model}").json()
        told = metadata["inputs"][0]["parameters"]
        assert told == {"description": "in cm", "exclusive_minimum": 0.0}
        assert metadata["outputs"][0]["parameters"]["enum"] == '["setosa", "virginica"]'
        document = server.client.get(f"/v2/models/{model}/openapi.json").json()
        data = document["components"]["schemas"]["Input_0"]["properties"]["data"]
        assert data["items"]["exclusiveMinimum"] == 0
    data = server.client.get("/v2/models/add/openapi.json").json()["components"]["schemas"]
    assert data["Input_1"]["properties"]["data"]["default"] == [2]
    assert "Default: 2" in data["Input_1"]["description"]


def test_a_value_outside_its_limits_is_refused(models: Any) -> None:
    server, _ = models
    tensor = {"datatype": "FP64", "shape": [1]}
    body = {
        "inputs": [{"name": f"{part}_length", **tensor, "data": [0]} for part in ("sepal", "petal")]
    }
    for model in ("iris", "iris-apart"):
        answer = server.client.post(f"/v2/models/{model}/infer", json=body)
        assert answer.status_code == 400
        assert answer.json() == {
            "error": f'input "sepal_length" of model "{model}": expected values of more than 0, '
            "got 0.0 at index 0"
        }
