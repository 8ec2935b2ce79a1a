"""REST and gRPC give the same answers, and the comparison finds a difference."""

import re

import numpy as np
import pytest

from mlserver_pyfunc.client import CallError, InferResult
from mlserver_pyfunc.client.rest import RestClient
from mlserver_pyfunc.definition import read
from mlserver_pyfunc.testing import Server
from tests import parity
from tests.parity import ParityError, assert_parity, input_of
from tests.places import FUNCTIONS

pytestmark = [pytest.mark.server, pytest.mark.pyfunc("tests/testing/functions/echo")]


def test_every_route_gives_equal_answers(pyfunc_server):
    report = assert_parity(pyfunc_server, requests=15)
    assert report.routes == list(parity.ROUTES)
    assert report.skipped == {}


@pytest.mark.parametrize(
    ("one", "other", "says"),
    [
        (np.array([1.0]), np.array([2.0]), r"is \[1.0\], not \[2.0\]"),
        (np.array([1.0]), np.array([[1.0]]), "has shape"),
        (np.array([np.nan]), np.array([1.0]), "is"),
    ],
)
def test_a_difference_is_told(one, other, says):
    left, right = (InferResult({"y": array}, {"y": "FP64"}) for array in (one, other))
    difference = parity._difference(left, right, is_json=False)
    assert difference.startswith('output "y"')
    assert re.search(says, difference)


def test_infinity_over_json_is_null_and_no_difference():
    json, raw = (
        InferResult({"y": np.array([np.nan])}, {"y": "FP64"}),
        InferResult({"y": np.array([np.inf])}, {"y": "FP64"}),
    )
    assert not parity._difference(json, raw, is_json=True)
    assert parity._difference(json, raw, is_json=False)


def test_routes_that_answer_differently_fail_the_assertion(tmp_path):
    """A handler that looks at its headers tells REST and gRPC apart."""
    (tmp_path / "function.yaml").write_text(
        "model_name: split\nsource: {source: m.py, handler: f}\n"
        "outputs: [{name: y, datatype: INT8, shape: [1]}]\n"
    )
    (tmp_path / "m.py").write_text("def f(headers): return int('host' in headers)\n")
    with Server(tmp_path) as server, pytest.raises(ParityError, match='output "y" is'):
        assert_parity(server, requests=1)


def test_errors_are_compared_too():
    with Server(FUNCTIONS / "flaky") as server:
        report = assert_parity(server, read(FUNCTIONS / "flaky" / "function.yaml"), requests=5)
        assert report.requests == 5
        with pytest.raises(CallError, match="seven") as raised:
            RestClient(server.url).infer("flaky", [input_of("x", "INT32", np.array([7], np.int32))])
        assert raised.value.status == 500
