"""`testing.load`: a function called as the server would call it."""

from pathlib import Path

import numpy as np
import pytest

from mlserver_pyfunc.errors import (
    ContractError,
    DefinitionError,
    HandlerError,
    LoadError,
    RequestError,
    ResponseError,
)
from mlserver_pyfunc.testing import load

FUNCTIONS = Path(__file__).parent / "functions"


@pytest.fixture(scope="module")
def flaky():
    with load(FUNCTIONS / "flaky") as function:
        yield function


@pytest.fixture(scope="module")
def echo():
    with load(FUNCTIONS / "echo") as function:
        yield function


VALUES = {
    "bool": [True, False],
    "uint8": [[1, 2], [3, 255]],
    "int64": -(2**63),
    "uint64": [2**64 - 1],
    "fp32": [[1.5, -2]],
    "fp64": 0.1,
    "text": ["naïve"],
    "blob": [b"\xff\x00", b""],
}


def test_lists_and_scalars_travel_as_json_would_carry_them(echo):
    answer = echo(VALUES)
    assert answer["uint64"].tolist() == [2**64 - 1]
    assert answer["int64"].shape == ()
    assert answer["int64"].item() == -(2**63)
    assert answer["fp32"].dtype == np.float32
    assert answer["fp64"].tolist() == [0.1]
    assert answer["text"].tolist() == ["naïve"]
    assert answer["blob"].tolist() == [b"\xff\x00", b""]


def test_inputs_are_read_only_as_on_a_server(echo):
    arrays = {"fp32": np.ones((1, 2), np.float32), "uint64": np.ones(2, np.uint64)}
    for answer in (echo(VALUES), echo({**VALUES, **arrays})):
        assert not answer["fp32"].flags.writeable
        assert not answer["uint64"].flags.writeable


def test_an_array_keeps_its_own_datatype_so_a_wrong_one_is_refused(flaky):
    assert flaky(x=np.array([1, 2], np.int32))["y"].tolist() == [2, 4]
    with pytest.raises(ContractError, match="expected datatype INT32, got INT64"):
        flaky(x=np.array([1, 2], np.int64))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1.5], "whole numbers"),
        ([2**31], "whole numbers from -2147483648"),
        (["1"], "'1' at index 0"),
        ([[1]], r"expected shape \[-1\], got \[1, 1\]"),
        ([1, [2]], "at index 1"),
    ],
)
def test_a_value_that_breaks_the_contract_is_refused(flaky, value, message):
    with pytest.raises(ContractError, match=message):
        flaky(x=value)


def test_an_unknown_name_is_refused(flaky):
    with pytest.raises(ContractError, match='"z" of model "flaky": unknown, expected "x"'):
        flaky(x=[1], z=[1])


def test_an_array_without_a_protocol_datatype_is_refused(flaky):
    with pytest.raises(ContractError, match="got complex128"):
        flaky(x=np.array([1j]))


def test_a_handlers_exception_and_wrong_answer_come_as_a_client_gets_them(flaky):
    with pytest.raises(HandlerError, match="RuntimeError: seven") as raised:
        flaky(x=[7])
    assert raised.value.status == 500
    with pytest.raises(ResponseError, match=r'output "y".*expected shape \[-1\]'):
        flaky(x=[8])


def test_answers_the_protocols_json_form(flaky):
    tensor = {"name": "x", "datatype": "INT32", "shape": [2], "data": [1, 2]}
    answer = flaky.request({"id": "a", "inputs": [tensor]})
    assert answer["id"] == "a"
    assert answer["outputs"] == [{"name": "y", "datatype": "INT32", "shape": [2], "data": [2, 4]}]


@pytest.mark.parametrize("body", [{}, {"inputs": 1}, {"inputs": [{"name": "x"}]}, [], None])
def test_a_body_that_is_not_a_request_gets_400(flaky, body):
    with pytest.raises(RequestError) as raised:
        flaky.request(body)
    assert raised.value.status == 400


def test_streams_answers_one_by_one():
    with load(FUNCTIONS / "shout") as shout:
        assert [part["word"][0] for part in shout.stream(text="a b c")] == ["A", "B", "C"]
        with pytest.raises(ContractError, match="streams its answers"):
            shout(text="a b c")


def test_a_stream_left_early_frees_its_slot():
    with load(FUNCTIONS / "shout") as shout:
        for _ in range(70):
            next(shout.stream(text="a b c"))


def test_a_missing_definition_says_where_it_looked(tmp_path):
    with pytest.raises(DefinitionError, match="no function definition found"):
        load(tmp_path)
    with pytest.raises(DefinitionError, match="no such file or folder"):
        load(tmp_path / "nowhere")


def test_a_function_that_does_not_load_says_the_phase(tmp_path):
    (tmp_path / "function.yaml").write_text(
        "source: {source: m.py, handler: f}\noutputs: [{name: y, datatype: FP32, shape: [1]}]\n"
    )
    (tmp_path / "m.py").write_text("import no_such_module\n")
    with pytest.raises(LoadError, match="import: ModuleNotFoundError"):
        load(tmp_path)


def test_close_runs_the_unload_function_once(tmp_path):
    (tmp_path / "function.yaml").write_text(
        "source: {source: m.py, handler: f, unload_function: bye}\n"
        "init_parameters: {mark: MARK}\n"
        "outputs: [{name: y, datatype: FP32, shape: [1]}]\n".replace("MARK", str(tmp_path / "mark"))
    )
    (tmp_path / "m.py").write_text(
        "def f(): return 1.0\ndef bye(mark):\n    with open(mark, 'a') as file: file.write('bye')\n"
    )
    function = load(tmp_path)
    assert function()["y"].tolist() == [1.0]
    function.close()
    function.close()
    assert (tmp_path / "mark").read_text() == "bye"


def test_model_settings_give_name_version_and_inline_function(tmp_path):
    (tmp_path / "model-settings.json").write_text(
        """{"name": "inline", "parameters": {"version": "3", "extra": {"function": {
        "source": {"code": "def f(): return 1", "handler": "f"},
        "outputs": [{"name": "y", "datatype": "INT8", "shape": [1]}]}}}}"""
    )
    with load(tmp_path) as function:
        assert function.model_name == "inline"
        assert function.request({"inputs": []})["model_version"] == "3"
