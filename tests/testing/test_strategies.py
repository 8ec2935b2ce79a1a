"""Generated requests keep the contract, or break the one rule they say."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlserver_pyfunc.definition import parse, read
from mlserver_pyfunc.errors import ContractError
from mlserver_pyfunc.protocol.contract import Contract
from mlserver_pyfunc.protocol.request import InferenceRequest
from mlserver_pyfunc.testing import load, requests_for
from mlserver_pyfunc.testing.strategies import inputs_for
from tests.testing.bad_requests import bad_requests_for

FUNCTIONS = Path(__file__).parent / "functions"
ECHO = read(FUNCTIONS / "echo" / "function.yaml")
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module")
def echo():
    with load(FUNCTIONS / "echo") as function:
        yield function


@quick
@given(body=requests_for(ECHO))
def test_requests_are_answered_with_the_data_they_carry(echo, body):
    sent = {tensor["name"]: tensor for tensor in body["inputs"]}
    for output in echo.request(body)["outputs"]:
        assert output["shape"] == sent[output["name"]]["shape"]
        if "parameters" not in sent[output["name"]]:
            assert output["data"] == sent[output["name"]]["data"]


@quick
@given(arrays=inputs_for(ECHO))
def test_inputs_are_accepted_as_arrays(echo, arrays):
    assert set(echo(arrays)) == set(ECHO_OUTPUTS)


@settings(quick, max_examples=200)
@given(bad=bad_requests_for(ECHO))
def test_bad_requests_are_refused_naming_the_tensor(echo, bad):
    with pytest.raises(ContractError) as raised:
        echo.request(bad.body)
    assert raised.value.status == 400
    assert bad.tensor in str(raised.value) or bad.rule == "requested outputs"


def test_every_rule_is_drawn():
    rules = set()

    @settings(max_examples=600, deadline=None, database=None, derandomize=True)
    @given(bad_requests_for(ECHO))
    def collect(bad):
        rules.add(bad.rule)

    collect()
    assert rules == {
        "missing", "unknown", "duplicate", "datatype", "rank", "fixed axis", "negative size",
        "element count", "element kind", "null", "whole numbers", "range", "requested outputs",
    }  # fmt: skip


def test_optional_inputs_are_there_or_not():
    @settings(max_examples=50, deadline=None, database=None, derandomize=True)
    @given(st.data())
    def collect(data):
        seen.add("extra-scale" in data.draw(inputs_for(ECHO)))

    seen = set()
    collect()
    assert seen == {True, False}


NAMED = parse({
    "source": {"code": "def handler(inputs): return {**inputs}", "handler": "handler"},
    "inputs": [
        {"name": "a", "datatype": "INT64", "shape": ["rows", 2]},
        {"name": "b", "datatype": "FP32", "shape": [-1, "rows", "rows"]},
    ],
})  # fmt: skip
NAMED_CONTRACT = Contract("named", [tensor.spec for tensor in NAMED.inputs], [])


@quick
@given(body=requests_for(NAMED))
def test_axes_of_one_name_are_drawn_with_equal_sizes(body):
    NAMED_CONTRACT.decode_inputs(InferenceRequest.from_json(body).inputs)


@settings(quick, max_examples=200)
@given(bad=bad_requests_for(NAMED).filter(lambda bad: bad.rule != "requested outputs"))
def test_a_named_axis_of_another_size_is_refused(bad):
    message = 'axis "rows": expected' if bad.rule == "named axis" else None
    with pytest.raises(ContractError, match=message):
        NAMED_CONTRACT.decode_inputs(InferenceRequest.from_json(bad.body).inputs)


LIMITED = parse({
    "source": {"code": "def handler(inputs): return {**inputs}", "handler": "handler"},
    "inputs": [
        {"name": "dose", "datatype": "FP32", "shape": [-1], "minimum": 0.1, "exclusive_maximum": 1},
        {"name": "share", "datatype": "FP16", "shape": [2], "maximum": 0, "nullable": True},
        {"name": "k", "datatype": "INT8", "shape": [1], "exclusive_minimum": 1.5, "maximum": 900},
        {"name": "color", "datatype": "BYTES", "shape": ["n"], "enum": ["red", "blue"]},
        {"name": "level", "datatype": "INT64", "shape": ["n"], "enum": [3, 5], "optional": True},
        {"name": "flag", "datatype": "UINT8", "shape": [1], "optional": True, "default": [1]},
    ],
})  # fmt: skip
LIMITED_CONTRACT = Contract("limited", [tensor.spec for tensor in LIMITED.inputs], [])


@quick
@given(body=requests_for(LIMITED))
def test_values_are_drawn_within_their_limits(body):
    LIMITED_CONTRACT.decode_inputs(InferenceRequest.from_json(body).inputs)


@settings(quick, max_examples=200)
@given(bad=bad_requests_for(LIMITED).filter(lambda bad: bad.rule != "requested outputs"))
def test_a_value_beyond_its_limits_is_refused(bad):
    message = "expected (one of|values of)" if bad.rule == "limits" else None
    with pytest.raises(ContractError, match=message):
        LIMITED_CONTRACT.decode_inputs(InferenceRequest.from_json(bad.body).inputs)


def test_each_limited_input_is_drawn_beyond_its_limits():
    @settings(
        max_examples=300,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(bad_requests_for(LIMITED).filter(lambda bad: bad.rule == "limits"))
    def collect(bad):
        broken.add(bad.tensor)

    broken = set()
    collect()
    assert broken == {"dose", "share", "k", "color", "level"}


ECHO_OUTPUTS = [tensor.name for tensor in ECHO.outputs]


WARNED = parse(
    {
        "source": {"code": "def f(inputs):\n    return {}", "handler": "f"},
        "inputs": [{"name": "x", "datatype": "INT8", "shape": [-1, 2]}],
        "contract": {"requests": "warn", "responses": "warn"},
    }
)


@quick
@given(bad=bad_requests_for(WARNED))
def test_bad_requests_are_those_that_are_refused_where_the_contract_warns(bad):
    contract = Contract("m", [t.spec for t in WARNED.inputs], [], ["requests"], lambda *_: None)
    request = InferenceRequest.from_json(bad.body)
    with pytest.raises(ContractError):
        contract.decode_inputs(request.inputs)
