"""Each ready model-settings.json is served, and does what its README says."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.hosts.mlserver.process import ServerProcess
from tests.places import ROOT

from .conftest import Serve
from .markdown import blocks
from .session import assert_printed, run, steps

FOLDER = ROOT / "model-settings"
README = FOLDER / "README.md"
WAYS = sorted(path.parent.name for path in FOLDER.glob("*/model-settings.json"))
CODE = (FOLDER / "file" / "model.py").read_text()


@pytest.mark.server
@pytest.mark.parametrize("way", [way for way in WAYS if way != "git"])
def test_serves_the_way_of_defining_a_function(way: str, serve: Serve) -> None:
    assert_doubles(serve(FOLDER / way, "doubler"))


@pytest.mark.server
def test_serves_a_function_from_git(serve: Serve, tmp_path: Path) -> None:
    """The URL is of a repository made here: the published one cannot be reached from tests."""
    commit = commit_repository(tmp_path / "repository")
    url = f"git+file://{tmp_path}/repository#main"
    settings = (FOLDER / "git" / "model-settings.json").read_text()
    model = tmp_path / "model"
    model.mkdir()
    (model / "model-settings.json").write_text(re.sub(r'git\+https://[^"]+', url, settings))
    server = serve(model, "doubler", env={"MLSERVER_PYFUNC_CACHE": str(tmp_path / "cache")})
    assert_doubles(server)
    assert get(server, "v2/models/doubler")["parameters"]["commit"] == commit


@pytest.mark.server
def test_serves_a_function_from_the_environment_alone(serve: Serve, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    script = f"set -eu; . {FOLDER}/environment/model.env; env -0"
    printed = subprocess.run(["sh", "-c", script], capture_output=True, check=True).stdout
    variables = dict(item.split("=", 1) for item in printed.decode().split("\0") if item)
    model = {key: value for key, value in variables.items() if key.startswith("MLSERVER_MODEL_")}
    assert_doubles(serve(empty, "doubler", env=model))


@pytest.mark.server
def test_readme_shows_what_the_server_answers(serve: Serve) -> None:
    server = serve(FOLDER / "file", "doubler")
    (step,) = steps(README)
    assert_printed(step.expected, run(step, server.rest_address, server.grpc_address, ROOT))


def test_readme_shows_each_file_as_it_is_with_comments() -> None:
    shown = [block for block in blocks(README) if block.language == "jsonc"]
    for block in shown:
        (way,) = re.findall(r"`(\w+)/`", block.section)
        without = "".join(
            line for line in block.text.splitlines(True) if not line.strip().startswith("//")
        )
        assert without == (FOLDER / way / "model-settings.json").read_text()
    assert len(shown) == len(WAYS)


def test_each_way_holds_the_same_code() -> None:
    encoded = [definition(way)["source"]["base64"] for way in ("base64", "digitalhub")]
    assert [base64.b64decode(text).decode() for text in encoded] == [CODE, CODE]
    assert definition("code")["source"]["code"] == CODE
    with zipfile.ZipFile(FOLDER / "zip" / "model.zip") as archive:
        assert archive.read("model.py").decode() == CODE


def definition(way: str) -> dict[str, Any]:
    settings = json.loads((FOLDER / way / "model-settings.json").read_text())
    function: dict[str, Any] = settings["parameters"]["extra"]["function"]
    spec: dict[str, Any] = function.get("spec", function)
    return spec


def commit_repository(repository: Path) -> str:
    shutil.copytree(FOLDER / "file", repository / "model-settings" / "file")
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    for command in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "x"]):
        subprocess.run(["git", *identity, *command], cwd=repository, check=True)
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=repository, check=True, capture_output=True, text=True
    )
    return head.stdout.strip()


def assert_doubles(server: ServerProcess) -> None:
    tensor = {"name": "x", "datatype": "FP32", "shape": [2], "data": [1, 2.5]}
    request = urllib.request.Request(
        f"http://{server.rest_address}/v2/models/doubler/infer",
        data=json.dumps({"inputs": [tensor]}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as response:
        assert json.load(response)["outputs"][0]["data"] == [2.0, 5.0]


def get(server: ServerProcess, path: str) -> Any:
    with urllib.request.urlopen(f"http://{server.rest_address}/{path}") as response:
        return json.load(response)
