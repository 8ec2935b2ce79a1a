"""A real server for tests, which answers alike by every route."""

import doctest
import os
import re

import numpy as np
import pytest

from mlserver_pyfunc.cli import main
from mlserver_pyfunc.client import CallError, InferInput, InferResult
from mlserver_pyfunc.client.rest import RestClient
from mlserver_pyfunc.definition import read
from mlserver_pyfunc.testing import ParityError, Server, ServerError, assert_parity
from mlserver_pyfunc.testing import parity as parity_module
from tests.places import FUNCTIONS

pytestmark = [pytest.mark.server, pytest.mark.pyfunc("tests/testing/functions/echo")]


def test_the_plugin_serves_the_marked_folder(pyfunc_function, pyfunc_server):
    assert pyfunc_server.models == ["echo"]
    assert pyfunc_function.model_name == "echo"


def test_every_route_gives_equal_answers(pyfunc_server):
    report = assert_parity(pyfunc_server, requests=15)
    assert report.routes == list(parity_module.CLIENTS)
    assert report.skipped == {}


def test_the_server_and_the_harness_answer_alike(pyfunc_function, pyfunc_server):
    client = RestClient(pyfunc_server.url)
    sent = {
        "bool": np.array([True]),
        "uint8": np.ones((2, 2), np.uint8),
        "int64": np.array(5),
        "uint64": np.array([2**64 - 1], np.uint64),
        "fp32": np.array([[0.1, 2]], np.float32),
        "fp64": np.array([0.1]),
        "text": np.array(["ä"], object),
        "blob": np.array([b"\xff", b""], object),
    }
    datatypes = {t.name: t.datatype for t in pyfunc_function.definition.inputs}
    result = client.infer("echo", [InferInput(n, datatypes[n], a) for n, a in sent.items()])
    local = pyfunc_function(sent)
    for name, array in result.outputs.items():
        ours = [e.encode() if isinstance(e, str) else e for e in local[name].ravel().tolist()]
        assert array.ravel().tolist() == ours, name


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
    difference = parity_module._difference(left, right, is_json=False)
    assert difference.startswith('output "y"')
    assert re.search(says, difference)


def test_infinity_over_json_is_null_and_no_difference():
    json, raw = (
        InferResult({"y": np.array([np.nan])}, {"y": "FP64"}),
        InferResult({"y": np.array([np.inf])}, {"y": "FP64"}),
    )
    assert not parity_module._difference(json, raw, is_json=True)
    assert parity_module._difference(json, raw, is_json=False)


def test_the_example_in_the_docstring_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main(["init", "hello"], standalone_mode=False)
    text = assert_parity.__doc__.replace("  # doctest: +SKIP", "")
    example = doctest.DocTestParser().get_doctest(text, {}, "assert_parity", None, None)
    result = doctest.DocTestRunner().run(example)
    assert (result.attempted, result.failed) == (2, 0)


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
            RestClient(server.url).infer(
                "flaky", [InferInput("x", "INT32", np.array([7], np.int32))]
            )
        assert raised.value.status == 500


def test_a_server_that_does_not_start_shows_the_end_of_its_log(tmp_path):
    (tmp_path / "function.yaml").write_text(
        "model_name: broken\nsource: {source: m.py, handler: f}\n"
        "outputs: [{name: y, datatype: INT8, shape: [1]}]\n"
    )
    (tmp_path / "m.py").write_text("def g(): return 1\n")
    with pytest.raises(ServerError, match='has no "f"'), Server(tmp_path):
        pass


def test_a_stopped_server_leaves_no_process():
    with Server(FUNCTIONS / "shout") as server:
        pid = server.pid
        parts = list(
            RestClient(server.url).stream(
                "shout", [InferInput("text", "BYTES", np.array(["a b"], object))]
            )
        )
    assert [part.outputs["word"].tolist() for part in parts] == [[b"A"], [b"B"]]
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
