"""A model has one name: the one that its settings, the environment or its definition give it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mlserver_pyfunc.cli import main
from mlserver_pyfunc.definition.locate import open_folder

from . import grpc_calls
from .conftest import GrpcCall
from .models import inline, tensor, write_model
from .process import ServerProcess, serving
from .wire import Request, Tensor, rest_infer

X, Y = (tensor(name, "FP32", [-1]) for name in "xy")
BY_ENVIRONMENT = {"MLSERVER_MODEL_IMPLEMENTATION": "mlserver_pyfunc.PyFuncRuntime"}


def _definition(factor: int = 2, **more: Any) -> dict[str, Any]:
    code = f"def handler(x):\n    return x * {factor}\n"
    return {**inline(code, "handler", {"inputs": [X], "outputs": [Y]}), **more}


@dataclass(frozen=True)
class Case:
    """One way to name a model.

    Attributes:
        served: The name that it gets.
        name: `model_name` of the definition.
        settings: Keys of model-settings.json; None if there is no such file.
        path: Folder of the model, below the repository.
        place: Where its definition is: "beside" the settings, "inline" in them, or in "code".
    """

    served: str
    name: str | None = None
    settings: Mapping[str, Any] | None = field(default_factory=dict)
    path: str = "myfolder"
    place: str = "beside"

    def write(self, root: Path) -> Path:
        """Writes the model's folder."""
        folder = root / self.path
        definition = _definition(model_name=self.name)
        if self.place == "inline":
            write_model(folder, None, parameters={"extra": {"function": definition}})
        elif self.place == "code":
            write_model(folder, None, parameters={"extra": {"function": "code"}})
            write_model(folder / "code", definition)
            (folder / "code" / "model-settings.json").unlink()
        else:
            write_model(folder, definition, **(self.settings or {}))
        if self.settings is None:
            (folder / "model-settings.json").unlink()
        return folder


GIVEN = {"MLSERVER_MODEL_NAME": "given"}
# Environment of the server and of the commands, and the models that one server has.
CASES: dict[str, tuple[Mapping[str, str], list[Case]]] = {
    "no variable": (
        {},
        [
            Case("myfolder"),
            Case("by-definition", "by-definition", path="a"),
            Case("by-settings", None, {"name": "by-settings"}, "b"),
            Case("by-both", "by-both", {"name": "by-both"}, "c"),
            Case("by-triton", "by-triton", {"parameters": {"version": "1"}}, "by-triton/1"),
            Case("iris_3", "iris", {"name": "iris_3"}, "iris_3/1"),
            Case("by-inline", "by-inline", path="d", place="inline"),
            Case("e", None, path="e", place="code"),
        ],
    ),
    "variable": (GIVEN, [Case("given", "doubler"), Case("set", None, {"name": "set"}, "b")]),
    "no settings": (BY_ENVIRONMENT, [Case("doubler", "doubler", None)]),
    "no settings, folder": (BY_ENVIRONMENT, [Case("myfolder", None, None)]),
    "no settings, variable": ({**BY_ENVIRONMENT, **GIVEN}, [Case("given", "doubler", None)]),
}


def _ask(server: ServerProcess, model: str, version: str = "") -> list[float]:
    request = Request(model, [Tensor("x", "FP32", (1,), [1.5])], version=version)
    values: list[float] = rest_infer(server.client, request).expect_ok().outputs["y"].values
    return list(values)


def _index(server: ServerProcess) -> list[tuple[str, str | None, str]]:
    listed = server.client.post("/v2/repository/index", json={}).json()
    return sorted((each["name"], each.get("version"), each["state"]) for each in listed)


@pytest.mark.parametrize("variables", CASES)
def test_the_server_and_the_commands_agree_on_the_name(
    variables: str, tmp_path: Path, grpc_call: GrpcCall, monkeypatch: pytest.MonkeyPatch
) -> None:
    env, cases = CASES[variables]
    folders = {case.served: case.write(tmp_path / "models") for case in cases}
    if cases[0].settings is None:
        env = {**env, "MLSERVER_MODEL_URI": str(tmp_path / "models" / cases[0].path)}
    with serving(tmp_path / "models", tmp_path, *folders, env=env) as server:
        assert {name for name, _, state in _index(server) if state == "READY"} == set(folders)
        for name, folder in folders.items():
            assert _ask(server, name) == [3.0]
            assert grpc_call(grpc_calls.is_ready, server.grpc_address, name)
            assert server.client.get(f"/v2/models/{name}").json()["name"] == name
            statuses = [_post(server, name, action) for action in ("load", "unload", "load")]
            assert statuses == [200, 200, 200]
            assert _ask(server, name) == [3.0]
            assert folder.name in folders or _post(server, folder.name, "load") == 404
        assert server.stop() == 0, server.log
    for variable in ("MLSERVER_MODEL_NAME", *BY_ENVIRONMENT):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in env.items():
        monkeypatch.setenv(variable, value)
    for name, folder in folders.items():
        _commands_agree(folder, name)


def _post(server: ServerProcess, model: str, action: str) -> int:
    return server.client.post(f"/v2/repository/models/{model}/{action}").status_code


def _commands_agree(folder: Path, served: str) -> None:
    assert open_folder(folder).model_name == served
    path = f"/v2/models/{served}/infer"
    assert path in json.loads(_run("openapi", folder))["paths"]
    assert f"Client of the model `{served}`." in _run("client", folder)
    manifest = _run("manifest", folder, "kubernetes", "--image", "registry.example/f:1")
    assert f"/v2/models/{served}/ready" in manifest
    _run("validate", folder)
    assert "3" in _run("run", folder, "-i", "x=1.5")


def _run(command: str, folder: Path, *options: str) -> str:
    platform, rest = (options[:1], options[1:]) if command == "manifest" else ((), options)
    done = CliRunner().invoke(main, [command, *platform, str(folder), *rest])
    assert done.exit_code == 0, done.output
    return done.output


def test_two_folders_serve_two_versions_of_the_name_of_their_definitions(tmp_path: Path) -> None:
    root = tmp_path / "repository"
    for folder, factor, version in (("old", 2, "1"), ("new", 3, "2")):
        write_model(root / folder, _definition(factor, model_name="scale", model_version=version))
    with serving(root, tmp_path, "scale", "scale/versions/1", "scale/versions/2") as server:
        for _ in range(2):
            assert [_ask(server, "scale", v) for v in ("", "1", "2")] == [[4.5], [3.0], [4.5]]
            assert _index(server) == [("scale", "1", "READY"), ("scale", "2", "READY")]
            assert server.client.get("/v2/models/old/ready").status_code == 404
            assert _post(server, "scale", "load") == 200
        assert _post(server, "scale", "unload") == 200
        assert {state for _, _, state in _index(server)} == {"UNAVAILABLE"}
        assert server.stop() == 0, server.log


def test_two_folders_of_one_name_and_version_do_not_load(tmp_path: Path) -> None:
    root = tmp_path / "repository"
    for folder in ("a", "b"):
        write_model(root / folder, _definition(model_name="scale"))
    server = ServerProcess(root, tmp_path)
    server.start()
    try:
        server.wait_for_log('function "scale" failed to load: definition: expected one folder')
        assert server.wait_for_end() == 0
    finally:
        server.close()


def test_the_log_does_not_compare_names_with_folders_again_and_again(tmp_path: Path) -> None:
    root = tmp_path / "repository"
    write_model(root / "myfolder", _definition(), name="doubler")
    with serving(root, tmp_path, "doubler") as server:
        for _ in range(10):
            _index(server)
        # MLServer lists the models once before it imports this runtime.
        assert server.log.count("is different than model's folder name") <= 1
        assert server.stop() == 0, server.log
