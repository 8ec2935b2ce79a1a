"""Definitions that arrive through the platforms' own ways, without the platforms."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.deployment.platforms import seldon_v2
from tests.deployment.platforms.cluster import Cluster, make_volume

from .models import Definition, inline, tensor, write_model
from .process import ServerProcess, serving
from .wire import Request, Tensor, rest_infer

CODE = "def handler(x, context):\n    return x * context.init_parameters.get('factor', 2)\n"
TENSORS = {"inputs": [tensor("x", "FP64", [-1])], "outputs": [tensor("y", "FP64", [-1])]}
RUNTIME = "mlserver_pyfunc.PyFuncRuntime"


def _definition(**more: Any) -> Definition:
    return {**inline(CODE, "handler", TENSORS), **more}


def _ask(server: ServerProcess, model: str) -> list[float]:
    request = Request(model, [Tensor("x", "FP64", (2,), [1.0, 2.5])])
    values: list[float] = rest_infer(server.client, request).expect_ok().outputs["y"].values
    return values


def _as_strings(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _as_strings(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_as_strings(each) for each in value]
    return str(value).lower() if isinstance(value, bool) else str(value)


class Agent:
    """Writes models as Seldon v2's agent does, into a server that has loaded none."""

    def __init__(self, folder: Path, server: ServerProcess) -> None:
        self._folder = folder
        self.server = server

    def write(self, source: Path, name: str, **parameters: str) -> None:
        target = self._folder / name / "1"
        shutil.copytree(source, target)
        file = target / "model-settings.json"
        settings = seldon_v2.rewritten(json.loads(file.read_text()), name)
        settings["parameters"].setdefault("extra", {}).update(parameters)
        file.write_text(json.dumps(settings))

    def load(self, name: str) -> tuple[int, str]:
        answer = self.server.client.post(f"/v2/repository/models/{name}/load")
        return answer.status_code, answer.text


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    folder = tmp_path_factory.mktemp("agent")
    env = {"MLSERVER_LOAD_MODELS_AT_STARTUP": "false", "MLSERVER_MODEL_PARALLEL_WORKERS": "1"}
    with serving(folder, tmp_path_factory.mktemp("work"), env=env) as server:
        server.wait_for_log("Uvicorn running")
        yield Agent(folder, server)
        assert server.stop() == 0, server.log


def test_a_server_that_loads_nothing_at_start_is_ready_for_the_agent(agent: Agent) -> None:
    assert agent.server.client.get("/v2/health/ready").status_code == 200
    assert agent.load("absent_1")[0] == 404


def test_versions_of_seldon_are_no_disagreement(agent: Agent, tmp_path: Path) -> None:
    definition = _definition(model_name="iris", model_version="7", init_parameters={"factor": 3})
    write_model(tmp_path / "iris", definition, name="iris", parameters={"version": "7"})
    for name in ("iris_1", "iris_2"):
        agent.write(tmp_path / "iris", name)
        assert agent.load(name) == (200, "")
    assert _ask(agent.server, "iris_1") == _ask(agent.server, "iris_2") == [3.0, 7.5]
    assert agent.server.client.get("/v2/models/iris_2").json()["versions"] == ["1"]
    assert '"iris" is served under' not in agent.server.log


def test_another_name_than_the_definitions_is_told(agent: Agent, tmp_path: Path) -> None:
    write_model(tmp_path / "iris", _definition(model_name="iris"))
    agent.write(tmp_path / "iris", "flower_1")
    assert agent.load("flower_1") == (200, "")
    assert _ask(agent.server, "flower_1") == [2.0, 5.0]
    assert 'function "iris" is served under the name "flower_1"' in agent.server.log


def test_a_definition_in_a_parameter_is_served(agent: Agent, tmp_path: Path) -> None:
    write_model(tmp_path / "bare", None)
    agent.write(tmp_path / "bare", "text_1", function=json.dumps(_definition(model_name="text")))
    assert agent.load("text_1") == (200, "")
    assert _ask(agent.server, "text_1") == [2.0, 5.0]


def test_values_that_arrive_as_strings_are_read_as_what_they_are(
    agent: Agent, tmp_path: Path
) -> None:
    definition = _definition(serving={"warmup": True, "concurrency": 2, "timeout": 1.5})
    definition = {**_as_strings(definition), "source": definition["source"]}
    write_model(tmp_path / "bare", None, parameters={"extra": {"function": definition}})
    agent.write(tmp_path / "bare", "strings_1")
    assert agent.load("strings_1") == (200, "")
    assert _ask(agent.server, "strings_1") == [2.0, 5.0]


def test_metadata_that_the_agent_kept_agrees(agent: Agent, tmp_path: Path) -> None:
    write_model(tmp_path / "m", _definition(), **TENSORS, platform="mine", tags=["lost"])
    agent.write(tmp_path / "m", "kept_1")
    assert agent.load("kept_1") == (200, "")
    assert agent.server.client.get("/v2/models/kept_1").json()["platform"] == "mine"


def test_the_name_in_the_settings_goes_before_the_platforms_and_is_told(tmp_path: Path) -> None:
    write_model(tmp_path / "models", _definition(), name="rose")
    env = {"MLSERVER_MODEL_NAME": "flower", "MLSERVER_MODEL_IMPLEMENTATION": RUNTIME}
    with serving(tmp_path / "models", tmp_path, "rose", env=env) as server:
        assert _ask(server, "rose") == [2.0, 5.0]
        assert not server.is_ready("flower")
        told = 'goes before MLSERVER_MODEL_NAME "flower"; remove "name" from model-settings.json'
        assert told in server.log


def test_the_platforms_name_counts_where_the_settings_have_none(tmp_path: Path) -> None:
    write_model(tmp_path / "models", _definition(model_name="rose"))
    env = {"MLSERVER_MODEL_NAME": "flower", "MLSERVER_MODEL_URI": str(tmp_path / "models")}
    with serving(tmp_path / "models", tmp_path, "flower", env=env) as server:
        assert _ask(server, "flower") == [2.0, 5.0]
        assert "goes before" not in server.log


@pytest.mark.parametrize("settings", [True, False], ids=["with settings", "by environment"])
def test_files_of_a_config_map_are_served(settings: bool, tmp_path: Path) -> None:
    """Their folder holds links, and a second copy of each file behind them."""
    definition = {**_definition(), "source": {"source": ".", "handler": "model:handler"}}
    files = {"function.yaml": json.dumps(definition), "model.py": CODE}
    if settings:
        files["model-settings.json"] = json.dumps({"implementation": RUNTIME})
    objects = [{"kind": "ConfigMap", "metadata": {"name": "c"}, "data": files}]
    volume = {"name": "v", "configMap": {"name": "c"}}
    pod: dict[str, Any] = {"spec": {}}
    folder = make_volume(Cluster(objects, {}), pod, volume, tmp_path / "mounted")
    env = {
        "MLSERVER_MODEL_NAME": "mounted",
        "MLSERVER_MODEL_IMPLEMENTATION": RUNTIME,
        "MLSERVER_MODEL_URI": str(folder),
    }
    with serving(folder, tmp_path, "mounted", env=env) as server:
        assert _ask(server, "mounted") == [2.0, 5.0]
