"""Each command that meets a settings file that is none says so in the same words."""

import pytest

from .test_cli import call, run

FUNCTION = """\
source: {code: "def f(x):\\n    return x\\n", handler: f}
inputs: [{name: x, datatype: FP32, shape: [-1]}]
outputs: [{name: y, datatype: FP32, shape: [-1]}]
"""
BROKEN = {
    '{"name": ': "not JSON: ",
    "[]": "expected a mapping, got list",
}
OF_ANOTHER_KIND = {
    '{"parameters": "uri"}': "parameters: expected a mapping",
    '{"parameters": {"uri": 3}}': "parameters.uri: expected text",
    '{"parameters": {"extra": "x"}}': "parameters.extra: expected a mapping",
    '{"name": 5}': "name: expected text",
    '{"inputs": [{"name": "x"}]}': "inputs.0.datatype: field required; inputs.0.shape: field",
    '{"max_batch_size": "x"}': "max_batch_size: expected a whole number",
}
PORTS = ("--port", "0", "--grpc-port", "0", "--metrics-port", "0")
STORED = ("--storage-uri", "s3://models/f", "--image", "registry.example/f:1")
OF_THE_MODEL = {
    "run": (["run"], ["-i", "x=1"]),
    "build": (["build"], ["--output", "context"]),
    "lock": (["lock"], []),
    "env": (["env"], []),
    "openapi": (["openapi"], []),
    "client": (["client"], []),
    "manifest": (["manifest", "kserve"], STORED),
    "deploy": (["deploy", "kserve"], STORED),
}
OF_THE_SERVER = {name: OF_THE_MODEL[name] for name in ("build", "manifest", "deploy")}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    folder = tmp_path / "f"
    folder.mkdir()
    (folder / "function.yaml").write_text(FUNCTION)
    (folder / "model-settings.json").write_text(
        '{"implementation": "mlserver_pyfunc.PyFuncRuntime"}'
    )
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.mark.parametrize("text", BROKEN)
@pytest.mark.parametrize("command", OF_THE_MODEL)
def test_a_broken_model_settings_file_is_a_function_that_cannot_be_loaded(command, text, folder):
    is_refused(OF_THE_MODEL[command], text, folder / "model-settings.json")


@pytest.mark.parametrize("text", OF_ANOTHER_KIND)
def test_so_is_one_whose_values_are_of_another_kind_than_mlserver_takes(text, folder):
    is_refused(OF_THE_MODEL["openapi"], text, folder / "model-settings.json")


@pytest.mark.parametrize("text", BROKEN)
@pytest.mark.parametrize("command", OF_THE_SERVER)
def test_a_broken_server_settings_file_is_one_too(command, text, folder):
    is_refused(OF_THE_SERVER[command], text, folder / "settings.json")


def test_serve_refuses_broken_server_settings_as_the_others_do(folder):
    (folder / "settings.json").write_text("[]")
    _, err = run("serve", folder, *PORTS, code=3)
    assert f"error: {folder / 'settings.json'}: expected a mapping, got list\n" in err
    assert "Traceback" not in err


def test_serve_says_which_setting_of_the_server_is_of_another_kind(folder):
    (folder / "settings.json").write_text('{"debug": "banana"}')
    _, err = run("serve", folder, *PORTS, code=3)
    assert f"error: {folder / 'settings.json'} or MLSERVER_ variables: debug: expected" in err
    assert "Traceback" not in err


def is_refused(command, text, file):
    file.write_text(text)
    words, options = command
    _, err = call(*words, file.parent, *options, code=3)
    said = {**BROKEN, **OF_ANOTHER_KIND}[text]
    assert f"error: {file}: {said}" in err
    assert "next: mlserver-pyfunc validate" in err
    found, _ = call("validate", file.parent, code=1)
    assert f"{file.name}:1:1: error M201: {said}" in found
