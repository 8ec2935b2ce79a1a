"""A real server for tests."""

import os

import numpy as np
import pytest

from mlserver_pyfunc.client.rest import RestClient
from mlserver_pyfunc.testing import Server, ServerError
from tests.parity import input_of
from tests.places import FUNCTIONS

pytestmark = [pytest.mark.server, pytest.mark.pyfunc("tests/testing/functions/echo")]


def test_the_plugin_serves_the_marked_folder(pyfunc_function, pyfunc_server):
    assert pyfunc_server.models == ["echo"]
    assert pyfunc_function.model_name == "echo"


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
    result = client.infer("echo", [input_of(n, datatypes[n], a) for n, a in sent.items()])
    local = pyfunc_function(sent)
    for name, array in result.outputs.items():
        ours = [e.encode() if isinstance(e, str) else e for e in local[name].ravel().tolist()]
        assert array.ravel().tolist() == ours, name


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
                "shout", [input_of("text", "BYTES", np.array(["a b"], object))]
            )
        )
    assert [part.outputs["word"].tolist() for part in parts] == [[b"A"], [b"B"]]
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
