from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mlserver_pyfunc.cli import main
from mlserver_pyfunc.definition.locate import find_definition, open_folder, split_function
from mlserver_pyfunc.errors import DefinitionError


def _definition(name: str) -> dict[str, Any]:
    return {"model_name": name, "source": {"code": "def f(): ...", "handler": "f"}}


def _write(path: Path, name: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_definition(name)))
    return path


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    return tmp_path / "model" / "model-settings.json"


def test_a_definition_in_the_settings_goes_before_one_beside_them(settings: Path) -> None:
    _write(settings.with_name("function.yaml"), "beside")
    located = find_definition(settings, None, {"function": _definition("inside")})
    assert located.definition.model_name == "inside"
    assert (located.folder, located.where) == (settings.parent, "parameters.extra.function")


def test_one_beside_the_settings_goes_before_one_under_the_uri(
    settings: Path, tmp_path: Path
) -> None:
    beside = _write(settings.with_name("function.yaml"), "beside")
    _write(tmp_path / "uri" / "function.yaml", "under")
    located = find_definition(settings, str(tmp_path / "uri"), {})
    assert located.definition.model_name == "beside"
    assert (located.folder, located.where) == (beside.parent, str(beside))


@pytest.mark.parametrize("form", ["{}", "file://{}", "{}/function.yaml"])
def test_one_under_the_uri_is_found(form: str, settings: Path, tmp_path: Path) -> None:
    under = _write(tmp_path / "with space" / "function.yaml", "under")
    uri = form.format(str(under.parent).replace(" ", "%20" if "file" in form else " "))
    for file in (settings, None):
        located = find_definition(file, uri, None)
        assert located.definition.model_name == "under"
        assert located.folder == under.parent


def test_a_relative_uri_starts_at_the_settings(settings: Path) -> None:
    _write(settings.parent / "code" / "function.yaml", "under")
    assert find_definition(settings, "./code", None).definition.model_name == "under"


def test_a_relative_uri_of_a_model_of_the_environment_starts_where_the_server_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(tmp_path / "code" / "function.yaml", "under")
    monkeypatch.chdir(tmp_path)
    assert find_definition(None, "./code", None).definition.model_name == "under"


@pytest.mark.parametrize("value", ["other.yaml", "sub", "sub/function.yaml"])
def test_the_settings_may_name_a_file_or_folder(value: str, settings: Path) -> None:
    _write(settings.with_name("function.yaml"), "beside")
    _write(settings.with_name("other.yaml"), "named")
    _write(settings.parent / "sub" / "function.yaml", "named")
    located = find_definition(settings, None, {"function": value})
    assert located.definition.model_name == "named"


def test_a_definition_may_be_json_text_as_seldon_sends_it(settings: Path) -> None:
    text = json.dumps(_definition("text"))
    assert find_definition(settings, None, {"function": text}).definition.model_name == "text"


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("{not json", "parameters.extra.function: not JSON: "),
        ("absent.yaml", "absent.yaml: No such file or directory"),
        ([1], "parameters.extra.function: expected a mapping, got list"),
        ({"source": {}}, "parameters.extra.function: source.handler: missing"),
        ({"sources": {}}, "parameters.extra.function: source: missing; sources: unknown key, did"),
    ],
)
def test_a_definition_in_the_settings_that_is_none_is_an_error(
    function: Any, message: str, settings: Path
) -> None:
    with pytest.raises(DefinitionError) as caught:
        find_definition(settings, None, {"function": function})
    assert message in str(caught.value)


def test_where_there_is_none_the_error_says_where_it_was_looked_for(
    settings: Path, tmp_path: Path
) -> None:
    with pytest.raises(DefinitionError) as caught:
        find_definition(settings, str(tmp_path / "uri"), {"other": 1})
    message = str(caught.value)
    assert message.startswith("no function definition found, looked for parameters.extra.function")
    assert str(settings.with_name("function.yaml")) in message


def test_functions_below_a_folder_are_told_what_they_need_to_be_served(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "function.yaml").touch()
    done = CliRunner().invoke(main, ["serve", str(tmp_path), "--port", "0"])
    assert done.output.endswith(
        'function.yaml: to serve "a", "b" together, each needs a model-settings.json with '
        '{"implementation": "mlserver_pyfunc.PyFuncRuntime"}\n'
    ), done.output


def test_a_uri_elsewhere_is_not_a_folder(settings: Path) -> None:
    with pytest.raises(DefinitionError, match="no function definition found"):
        find_definition(settings, "s3://bucket/iris", None)


@pytest.mark.parametrize("name", ["50%20off", "a#b", "a?b", "with space"])
def test_a_folder_may_have_characters_that_urls_escape(name: str, tmp_path: Path) -> None:
    _write(tmp_path / name / "function.yaml", "found")
    assert open_folder(tmp_path / name).model_name == "found"


def test_a_folder_of_folders_is_no_function(tmp_path: Path) -> None:
    assert split_function(tmp_path) == (tmp_path, None)
