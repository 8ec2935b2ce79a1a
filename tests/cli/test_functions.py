"""Commands take `model.py:predict` in place of a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.hosts.mlserver.process import serving

from .test_cli import call

GREET = '''
def greet(name: str, times: int = 1) -> list[str]:
    """Greets.

    Args:
        name: Whom.
    """
    return [f"hello {name}"] * times
'''


@pytest.fixture
def function(tmp_path: Path) -> str:
    (tmp_path / "greet.py").write_text(GREET)
    return f"{tmp_path / 'greet.py'}:greet"


def test_run_validate_openapi_and_client_take_a_function(function: str) -> None:
    assert "nothing wrong" in call("validate", function)[0]
    out, _ = call("run", function, "--input", "name=Ada", "--input", "times=2", "--json")
    answer = json.loads(out)
    assert (answer["model_name"], answer["outputs"][0]["data"]) == ("greet", ["hello Ada"] * 2)
    document = json.loads(call("openapi", function)[0])
    assert document["components"]["schemas"]["Input_0"]["description"] == "Whom."
    client, _ = call("client", function)
    assert "times: NDArray[np.int64] | None = None" in client
    assert "bytes" not in client.partition("class Outputs")[2].partition("class")[0]


def test_a_built_image_and_a_manifest_derive_the_tensors_where_they_run(
    function: str, tmp_path: Path
) -> None:
    call("build", function, "--output", tmp_path / "context")
    written = yaml.safe_load((tmp_path / "context" / "function" / "function.yaml").read_text())
    assert written == {
        "model_name": "greet",
        "source": {"handler": "greet:greet", "source": "source"},
    }
    out, _ = call("manifest", "kubernetes", function, "--shape", "inline", "--image", "a/b:1")
    [config] = [each for each in yaml.safe_load_all(out) if each["kind"] == "ConfigMap"]
    inline = json.loads(config["data"]["MLSERVER_MODEL_EXTRA"])["function"]
    assert set(inline) == {"source"}
    assert inline["source"]["handler"] == "greet"


def test_what_is_no_function_says_so(function: str, tmp_path: Path) -> None:
    _, err = call("run", f"{function}ing", code=3)
    assert 'module "greet" has no "greeting", it has greet' in err
    _, err = call("run", tmp_path / "absent.py:greet", code=3)
    assert "no such file" in err


def answered(server: Any) -> Any:
    tensor = {"name": "name", "datatype": "BYTES", "shape": [1], "data": ["Ada"]}
    answer = server.client.post("/v2/models/greet/infer", json={"inputs": [tensor]})
    return answer.json()["outputs"][0]["data"]


@pytest.mark.server
def test_serve_takes_a_function_and_serves_nothing_else(function: str, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "model-settings.json").write_text('{"name": "broken", "implementation": "a.B"}')
    with serving(Path(function), tmp_path, "greet", command="mlserver-pyfunc serve") as server:
        assert answered(server) == ["hello Ada"]
        models = server.client.post("/v2/repository/index", json={}).json()
        assert [model["name"] for model in models] == ["greet"]


@pytest.mark.server
def test_the_environment_names_a_function(function: str, tmp_path: Path) -> None:
    env = {
        "MLSERVER_MODEL_NAME": "greet",
        "MLSERVER_MODEL_IMPLEMENTATION": "mlserver_pyfunc.PyFuncRuntime",
        "MLSERVER_MODEL_URI": str(tmp_path),
        "MLSERVER_MODEL_EXTRA": json.dumps({"function": "greet.py:greet"}),
    }
    with serving(tmp_path, tmp_path, "greet", env=env) as server:
        assert answered(server) == ["hello Ada"]
