"""The generated client: clean under mypy, and right against a real server."""

import subprocess
import sys

import pytest

from mlserver_pyfunc.client.typed_client import client_module
from mlserver_pyfunc.definition import parse, read
from mlserver_pyfunc.testing import Server
from tests.places import FUNCTIONS

ODD = {
    "source": {"code": "def f(): pass", "handler": "f"},
    "inputs": [
        {"name": "class", "datatype": "FP16", "shape": [], "description": 'a "quoted"\nnote\\'},
        {"name": "a-b", "datatype": "BYTES", "shape": [-1], "optional": True},
        {"name": "c.d", "datatype": "UINT64", "shape": [2, 2]},
        {"name": "1st", "datatype": "BOOL", "shape": [1]},
        {"name": "self", "datatype": "INT8", "shape": [1]},
    ],
    "outputs": [{"name": "import", "datatype": "BYTES", "shape": [-1], "content_type": "str"}],
}
NO_INPUTS = {**ODD, "inputs": []}
NULLABLE = {
    **ODD,
    "inputs": [{"name": "x", "datatype": "INT64", "shape": [-1], "nullable": True}],
    "outputs": [
        {"name": "x", "datatype": "INT64", "shape": [-1], "nullable": True},
        {"name": "s", "datatype": "BYTES", "shape": [-1], "nullable": True, "content_type": "str"},
    ],
}


def test_it_is_clean_under_strict_mypy(tmp_path):
    definitions = {
        "echo": read(FUNCTIONS / "echo/function.yaml"),
        "odd_names": parse(ODD),
        "no_inputs": parse(NO_INPUTS),
        "nullable": parse(NULLABLE),
    }
    for name, definition in definitions.items():
        (tmp_path / f"{name}.py").write_text(client_module(definition, "some model"))
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", *(f"{name}.py" for name in definitions)],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_a_function_without_inputs_has_no_section_of_arguments():
    assert "Args:" not in client_module(parse(NO_INPUTS), "m").partition("def predict")[2]


CALLER = """
import asyncio, sys
import numpy as np
from generated import AsyncClient, Client, Result

values = dict(
    bool=np.array([True, False]), uint8=np.ones((2, 3), np.uint8), int64=np.array(-(2**63)),
    uint64=np.array([2**64 - 1], np.uint64), fp32=np.array([[np.inf, 1]], np.float32),
    fp64=np.array([0.1]), text=np.array(["naïve"], object),
    blob=np.array([b"\\xff", b""], object),
)

def check(result):
    assert isinstance(result, Result)
    assert result.int64.item() == -(2**63) and result.uint64.tolist() == [2**64 - 1]
    assert result.fp32.tolist() == [[np.inf, 1]] and result.text.tolist() == ["naïve"]
    assert result.blob.tolist() == [b"\\xff", b""] and result.bool.dtype == np.bool_

async def asynchronously(url, protocol):
    async with AsyncClient(url, protocol=protocol) as client:
        check(await client.predict(**values))

def wrongly(client):
    try:
        client.predict(**{**values, "fp32": np.ones((1, 3), np.float32)})
    except Exception as error:
        assert "expected shape [-1, 2], got [1, 3]" in str(error), error
    else:
        raise AssertionError("the server took a wrong shape")

url, protocol = sys.argv[1:]
with Client(url, protocol=protocol) as client:
    check(client.predict(**values))
    check(client.predict(**values, extra_scale=np.array([2], np.float32)))
    wrongly(client)
asyncio.run(asynchronously(url, protocol))
"""


@pytest.mark.server
def test_it_calls_a_real_server_by_rest_and_grpc_sync_and_async(tmp_path):
    definition = read(FUNCTIONS / "echo/function.yaml")
    (tmp_path / "generated.py").write_text(client_module(definition, "echo"))
    (tmp_path / "caller.py").write_text(CALLER)
    with Server(FUNCTIONS / "echo") as server:
        for url, protocol in ((server.url, "rest"), (server.grpc_target, "grpc")):
            subprocess.run([sys.executable, "caller.py", url, protocol], cwd=tmp_path, check=True)
