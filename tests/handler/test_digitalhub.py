"""Functions of kind openinference, as they are written for digitalhub."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlserver_pyfunc.errors import DefinitionError, LoadError, RequestError
from mlserver_pyfunc.serving.local import LocalFunction, load

ECHO = """
def handler(context, request):
    first = request.inputs[0]
    assert type(first.data) is list, first
    text = json.dumps({"type": type(first.data[0]).__name__, "request": json.loads(request.json())})
    assert request.dict() == json.loads(request.json())
    return {"outputs": [{"name": "seen", "datatype": "BYTES", "shape": [1], "data": [text]}]}
"""
CAPTION = """
def handler(project, run, context, event, request):
    run.log_metric("length", len(request.inputs[0].data))
    project.log_artifact(name="picture", kind="artifact")
    context.logger.info_with("described", model=context.model_name)
    text = bytes(request.inputs[0].data).decode()
    caption = {"name": "caption", "datatype": "BYTES", "data": [text], "shape": [1, len(text)]}
    return {"outputs": [caption]}
"""


def write(folder: Path, code: str, *, isolation: str = "none", **spec: Any) -> Path:
    (folder / "main.py").write_text("import json\n" + code)
    function = {
        "kind": "openinference",
        "name": "described",
        "project": "demo",
        "metadata": {"description": "Describes pictures.", "labels": ["vision", "demo"]},
        "spec": {
            "source": {"source": "main.py", "handler": "main:handler"},
            "inputs": [{"name": "image", "datatype": "UINT8", "shape": [-1, -1]}],
            "outputs": [{"name": "caption", "datatype": "BYTES", "shape": [-1, -1]}],
            "serving": {"isolation": isolation},
            **spec,
        },
    }
    (folder / "function.yaml").write_text(yaml.safe_dump(function))
    return folder


@pytest.fixture(params=["none", "process"])
def isolation(request: pytest.FixtureRequest) -> str:
    mode: str = request.param
    return mode


@pytest.fixture
def opened() -> Iterator[Any]:
    functions: list[LocalFunction] = []

    def open_(folder: Path) -> LocalFunction:
        functions.append(load(folder))
        return functions[-1]

    yield open_
    for function in functions:
        function.close()


def tensor(name: str, datatype: str, data: list[Any], **more: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [len(data)], "data": data, **more}


def ask(function: LocalFunction, *inputs: dict[str, Any], **more: Any) -> Any:
    return function.request({"id": "r-1", "inputs": list(inputs), **more})["outputs"]


def test_the_request_has_flat_lists_and_text(tmp_path: Path, isolation: str, opened: Any) -> None:
    inputs = [{"name": "t", "datatype": "BYTES", "shape": [-1, 1]}]
    function = opened(write(tmp_path, ECHO, isolation=isolation, inputs=inputs, outputs=None))
    given = tensor("t", "BYTES", ["a", "ß"], shape=[2, 1], parameters={"unit": "cm"})
    [output] = ask(function, given, parameters={"mode": 1}, outputs=[{"name": "seen"}])
    seen = json.loads(output["data"][0])
    assert seen["type"] == "str"
    assert seen["request"] == {
        "id": "r-1",
        "parameters": {"mode": 1},
        "inputs": [given],
        "outputs": [{"name": "seen", "datatype": None, "shape": None, "parameters": None}],
    }
    [output] = ask(function, tensor("t", "BYTES", ["a"], shape=[1, 1]))
    seen = json.loads(output["data"][0])["request"]
    assert (seen["parameters"], seen["inputs"][0]["parameters"], seen["outputs"]) == (
        None,
        None,
        [],
    )


def test_an_answer_of_another_shape_is_sent_and_warned_of_once(
    tmp_path: Path, isolation: str, opened: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "mlserver.pyfunc")
    function = opened(write(tmp_path, CAPTION, isolation=isolation))
    for _ in range(2):
        image = tensor("image", "UINT8", list(b"a parrot"), shape=[1, 8])
        assert ask(function, image) == [tensor("caption", "BYTES", ["a parrot"])]
    text = caplog.text
    assert text.count('"caption" of model "described": expected 8 elements for shape [1, 8]') == 1
    assert text.count("run.log_metric('length', 8)") == 2
    assert text.count("project.log_artifact(name='picture', kind='artifact')") == 2
    assert text.count("described model='described'") == 2
    image = tensor("image", "UINT8", list(b"!!"))
    assert ask(function, image) == [tensor("caption", "BYTES", ["!!"])]
    assert 'input "image" of model "described": expected shape [-1, -1], got [2]' in caplog.text


def test_the_function_keeps_what_describes_it(tmp_path: Path, opened: Any) -> None:
    function = opened(write(tmp_path, CAPTION))
    shown = function.function.metadata
    assert shown["description"] == "Describes pictures."
    assert (shown["labels"], shown["project"]) == ("vision, demo", "demo")


@pytest.mark.parametrize("outputs", [None, [{"datatype": "BYTES"}], [{"name": ""}]])
@pytest.mark.parametrize("inputs", [None, [{"datatype": "INT64"}], [{"name": "x", "shape": None}]])
def test_a_spec_with_tensors_left_out_loads_and_answers(
    tmp_path: Path, opened: Any, inputs: Any, outputs: Any
) -> None:
    function = opened(write(tmp_path, ECHO, inputs=inputs, outputs=outputs))
    [output] = ask(function, tensor("x", "INT64", [1, 2]))
    assert json.loads(output["data"][0])["request"]["inputs"][0]["data"] == [1, 2]


def test_requests_of_any_tensors_reach_a_worker(tmp_path: Path, opened: Any) -> None:
    function = opened(write(tmp_path, ECHO, isolation="process", outputs=None))
    for datatype, value in (("FP64", 0.5), ("BYTES", "a"), ("BOOL", True), ("UINT8", 7)):
        [output] = ask(function, tensor("other", datatype, [value]))
        seen = json.loads(output["data"][0])["request"]["inputs"][0]
        assert (seen["name"], seen["datatype"], seen["data"]) == ("other", datatype, [value])


def test_the_contract_of_a_spec_may_enforce(tmp_path: Path, opened: Any) -> None:
    contract = {"requests": "enforce", "responses": "enforce"}
    function = opened(write(tmp_path, CAPTION, contract=contract))
    with pytest.raises(RequestError, match=r"expected shape \[-1, -1\], got \[1\]"):
        ask(function, tensor("image", "UINT8", [1]))
    with pytest.raises(RequestError, match=r"expected 8 elements for shape \[1, 8\], got 1"):
        ask(function, tensor("image", "UINT8", list(b"a parrot"), shape=[1, 8]))


INIT = """
def init(context, threshold, label="none"):
    context.told = f"{threshold} {label}"

def handler(context, request):
    return {"told": context.told}
"""


def test_a_run_gives_init_parameters_of_its_own(
    tmp_path: Path, isolation: str, opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = {"source": "main.py", "handler": "main:handler", "init_function": "main:init"}
    given = {"threshold": 1, "label": "a"}
    write(tmp_path, INIT, isolation=isolation, source=source, init_parameters=given, outputs=None)
    settings = {
        "name": "described",
        "implementation": "mlserver_pyfunc.PyFuncRuntime",
        "parameters": {"extra": {"init_parameters": {"threshold": 2, "label": "b"}}},
    }
    (tmp_path / "model-settings.json").write_text(json.dumps(settings))
    image = tensor("image", "UINT8", [1], shape=[1, 1])
    assert ask(opened(tmp_path), image)[0]["data"] == ["2 b"]
    monkeypatch.setenv("MLSERVER_PYFUNC_INIT_PARAMETERS", '{"threshold": 3}')
    assert ask(opened(tmp_path), image)[0]["data"] == ["3 b"]
    monkeypatch.setenv("MLSERVER_PYFUNC_INIT_PARAMETERS", "[3]")
    with pytest.raises(LoadError, match="expected a JSON object, got"):
        load(tmp_path)
    settings["parameters"] = {"extra": {"init_parameters": 3}}
    (tmp_path / "model-settings.json").write_text(json.dumps(settings))
    with pytest.raises(DefinitionError, match="init_parameters: expected a mapping, got int"):
        load(tmp_path)


def test_an_own_definition_gets_arrays_still(tmp_path: Path, opened: Any) -> None:
    (tmp_path / "main.py").write_text(
        "def handler(request, run):\n    return [type(request.inputs[0].data).__name__, str(run)]\n"
    )
    definition = {
        "source": {"source": "main.py", "handler": "handler"},
        "inputs": [{"name": "x", "datatype": "INT64", "shape": [-1]}],
        "outputs": [{"name": "y", "datatype": "BYTES", "shape": [-1]}],
    }
    (tmp_path / "function.yaml").write_text(yaml.safe_dump(definition))
    function = opened(tmp_path)
    assert ask(function, tensor("x", "INT64", [1]))[0]["data"] == ["ndarray", "None"]
