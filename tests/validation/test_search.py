"""`validate` and the server find the same definition, however it is given."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from mlserver_pyfunc.definition.locate import Located, find_definition, open_folder
from mlserver_pyfunc.errors import DefinitionError
from mlserver_pyfunc.testing import Server
from mlserver_pyfunc.validation import validate

SETTINGS = {"implementation": "mlserver_pyfunc.PyFuncRuntime"}


def _definition(name: str) -> dict[str, Any]:
    return {
        "model_name": name,
        "source": {"code": "def f(x): return x", "handler": "f"},
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1]}],
    }


@dataclass(frozen=True)
class Given:
    """A way to give a definition; `{root}` in the settings is the absolute folder.

    Attributes:
        name: Of the case.
        uri: `parameters.uri`.
        function: `parameters.extra.function`.
        files: Definition files, by path below the folder: the model's name, or raw text.
        found: The model name that is served; None if nothing is.
    """

    name: str
    found: str | None
    uri: str | None = None
    function: Any = None
    files: dict[str, str] = field(default_factory=dict)


BESIDE = {"function.yaml": "beside"}
UNDER = {"code/function.yaml": "under"}
WAYS = [
    Given("beside", "beside", files=BESIDE),
    Given("nowhere", None),
    Given("inline", "inline", function=_definition("inline")),
    Given("inline before beside", "inline", function=_definition("inline"), files=BESIDE),
    Given("inline before the uri", "inline", "./code", _definition("inline"), UNDER),
    Given("inline as JSON text", "inline", function=json.dumps(_definition("inline"))),
    Given("inline as text that is not JSON", None, function="{a: 1}", files=BESIDE),
    Given("inline as broken text", None, function="{not json", files=BESIDE),
    Given("inline as a list", None, function=[1], files=BESIDE),
    Given("inline and incomplete", None, function={"source": {}}, files=BESIDE),
    Given("inline and too deep", None, function='{"a":' * 20_000, files=BESIDE),
    Given("null before beside", "beside", function=None, files=BESIDE),
    Given("path to a file", "named", function="other.yaml", files={"other.yaml": "named"}),
    Given("path to a file of any name", "named", function="def.txt", files={"def.txt": "named"}),
    Given("path to a folder", "under", function="code", files=UNDER),
    Given("path that is missing", None, function="nowhere"),
    Given("path that is missing, with one beside", None, function="nowhere", files=BESIDE),
    Given("path that is missing, with a uri", None, "./code", "nowhere", UNDER),
    Given("path to a folder without one", None, function="code", files={"code/x.yaml": "x"}),
    Given("empty path", "beside", function="", files=BESIDE),
    Given("relative uri", "under", "./code", files=UNDER),
    Given("relative uri of a file", "under", "./code/function.yaml", files=UNDER),
    Given("relative uri of a model file", "under", "./code/model.bin", files=UNDER),
    Given("relative uri of another definition", None, "./a/b.yaml", files={"a/b.yaml": "b"}),
    Given("absolute uri", "under", "{root}/code", files=UNDER),
    Given("file uri", "under", "file://{root}/code", files=UNDER),
    Given("file uri of a file", "under", "file://{root}/code/function.yaml", files=UNDER),
    Given("file uri with an escape", "under", "file://{root}/c%6Fde", files=UNDER),
    Given("file uri that is missing", None, "file://{root}/a/b", files=UNDER),
    Given("uri elsewhere", None, "s3://bucket/iris", files=UNDER),
    Given("uri elsewhere, with one beside", "beside", "s3://bucket/iris", files=BESIDE),
    Given("uri after beside", "beside", "./code", files={**BESIDE, **UNDER}),
    Given("uri that is missing, with one beside", "beside", "./nowhere", files=BESIDE),
    Given("file that is not a definition", None, files={"function.yaml": "- 1\n"}),
    Given("file that is not YAML", None, files={"function.yaml": "a: {\n"}),
]


def _write(given: Given, folder: Path) -> dict[str, Any]:
    for name, content in given.files.items():
        file = folder / name
        file.parent.mkdir(exist_ok=True)
        is_text = "\n" in content
        file.write_text(content if is_text else json.dumps(_definition(content), indent=1))
    parameters: dict[str, Any] = {}
    if given.uri is not None:
        parameters["uri"] = given.uri.format(root=folder)
    if given.function is not None:
        parameters["extra"] = {"function": given.function}
    settings = {**SETTINGS, "parameters": parameters}
    (folder / "model-settings.json").write_text(json.dumps(settings))
    return parameters


@pytest.mark.parametrize("given", WAYS, ids=lambda given: given.name)
def test_validate_and_the_server_find_the_same(given: Given, tmp_path: Path) -> None:
    parameters = _write(given, tmp_path)
    settings_file = tmp_path / "model-settings.json"
    if given.found is None:
        with pytest.raises(DefinitionError):
            find_definition(settings_file, parameters.get("uri"), parameters.get("extra"))
        with pytest.raises(DefinitionError):
            open_folder(tmp_path)
        errors = [finding.rule for finding in validate(tmp_path)]
        assert errors, "validate passes what does not serve"
        assert all(rule.startswith("D") for rule in errors)
        return
    served = find_definition(settings_file, parameters.get("uri"), parameters.get("extra"))
    assert served.definition.model_name == given.found
    opened = open_folder(tmp_path)
    assert Located(opened.definition, opened.folder, opened.where) == served
    assert validate(tmp_path) == []
    # A fault in the definition that is served is found there, whatever else is in the folder.
    file = Path(served.where) if Path(served.where).is_file() else settings_file
    file.write_text(file.read_text().replace("def f(x)", "def g(x)"))
    assert [(finding.rule, finding.file) for finding in validate(tmp_path)] == [("C403", file)]


@pytest.mark.parametrize("found", [True, False])
def test_both_find_one_in_a_folder_without_settings(found: bool, tmp_path: Path) -> None:
    if found:
        (tmp_path / "function.yaml").write_text(json.dumps(_definition("plain")))
        assert open_folder(tmp_path).model_name == "plain"
        assert validate(tmp_path) == []
        return
    with pytest.raises(DefinitionError, match="no function definition found"):
        open_folder(tmp_path)
    (finding,) = validate(tmp_path)
    assert finding.rule == "D001"


def test_validate_does_not_take_the_parent_of_a_folder_that_is_missing(tmp_path: Path) -> None:
    (tmp_path / "function.yaml").write_text(json.dumps(_definition("parent")))
    with pytest.raises(DefinitionError, match="no such file or folder"):
        open_folder(tmp_path / "typo")
    (finding,) = validate(tmp_path / "typo")
    assert (finding.rule, finding.file) == ("D001", tmp_path / "typo")


@pytest.mark.server
def test_a_server_serves_what_validate_passes(tmp_path: Path) -> None:
    for folder in (tmp_path / "model", tmp_path / "elsewhere"):
        folder.mkdir()
    text = json.dumps(_definition("served"))
    (tmp_path / "elsewhere" / "function.yaml").write_text(text)
    settings = {
        "name": "served",
        **SETTINGS,
        "parameters": {"uri": f"file://{tmp_path}/elsewhere"},
    }
    (tmp_path / "model" / "model-settings.json").write_text(json.dumps(settings))
    assert validate(tmp_path / "model") == []
    with Server(tmp_path / "model") as server:
        inputs = [{"name": "x", "datatype": "FP32", "shape": [1], "data": [3]}]
        url = f"{server.url}/v2/models/served/infer"
        reply = httpx.post(url, json={"inputs": inputs}, timeout=60)
        assert reply.json()["outputs"][0]["data"] == [3.0], reply.text


def test_a_file_that_is_neither_a_definition_nor_a_model_is_no_yaml(tmp_path: Path) -> None:
    (tmp_path / "model.h5").write_bytes(b"\x89HDF")
    with pytest.raises(DefinitionError, match=r"ends in one of \.yaml, .*\.onnx"):
        open_folder(tmp_path / "model.h5")
    (finding,) = validate(tmp_path / "model.h5")
    assert (finding.rule, finding.file) == ("D001", tmp_path / "model.h5")
