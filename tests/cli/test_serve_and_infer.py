"""`serve` and `infer` against each other, by every route."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress

import numpy as np
import pytest

from mlserver_pyfunc.client import CallError
from mlserver_pyfunc.client.rest import RestClient
from mlserver_pyfunc.deployment.server_settings import free_ports
from tests.parity import input_of
from tests.places import FUNCTIONS
from tests.waiting import wait_until

from .test_cli import PROGRAM, run

pytestmark = pytest.mark.server


@contextmanager
def serving(folder, *options):
    rest, grpc, metrics = free_ports(3)
    ports = ["--port", rest, "--grpc-port", grpc, "--metrics-port", metrics]
    command = [PROGRAM, "serve", *map(str, [folder, *ports, *options])]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines = []
    ready = threading.Event()

    def read():
        for line in process.stdout:
            lines.append(line)
            if "serving " in line:
                ready.set()

    threading.Thread(target=read, daemon=True).start()
    try:
        assert ready.wait(60), "".join(lines)
        yield f"http://127.0.0.1:{rest}", f"127.0.0.1:{grpc}", lines
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(60)
    assert code == 0, "".join(lines)


@pytest.fixture(scope="module")
def flaky():
    with serving(FUNCTIONS / "flaky") as (url, target, _):
        yield url, target


def test_infer_shows_contract_answer_and_latency(flaky):
    url, target = flaky
    for args in (
        [url],
        [url, "--binary"],
        [f"{url}/v2/models/flaky"],
        [target, "--grpc", "-m", "flaky"],
    ):
        out, err = run("infer", *args, "-i", "x=[1, 2, 3]")
        assert re.search(r"input\tx\tINT32\t\[-1\]", out)
        assert "2  4  6" in out
        assert re.search(r"(REST JSON|REST binary|gRPC raw): [\d.]+ ms", err)


def test_infer_tells_the_servers_error_in_its_words(flaky):
    url, target = flaky
    for args in ([url], [target, "--grpc", "-m", "flaky"]):
        _, err = run("infer", *args, "-i", "x=7", code=1)
        assert "RuntimeError: seven is not to my taste" in err
        _, err = run("infer", *args, code=1)
        assert err.endswith("next: give --input x=VALUE, or --random\n")
        _, err = run("infer", *args, "-i", "z=1", code=2)
        assert 'no input "z", expected x' in err
    _, err = run("infer", url, "-m", "absent", "-i", "x=7", code=1)
    assert 'model "absent" not found' in err


VERSIONED = (
    "model_name: pair\nmodel_version: '{0}'\nsource: {{code: 'def f(): return {0}', handler: f}}\n"
    "outputs: [{{name: y, datatype: INT8, shape: [1]}}]\n"
)


def test_infer_calls_the_version_that_it_is_told(tmp_path):
    for version in ("1", "2"):
        folder = tmp_path / version
        folder.mkdir()
        (folder / "function.yaml").write_text(VERSIONED.format(version))
        settings = {"name": "pair", "implementation": "mlserver_pyfunc.PyFuncRuntime"}
        (folder / "model-settings.json").write_text(json.dumps(settings))
    with serving(tmp_path) as (url, target, _):
        for version in (1, 2):
            named = ["--model-version", version]
            for args in (
                [f"{url}/v2/models/pair/versions/{version}"],
                [url, "-m", "pair", *named, "--binary"],
                [target, "--grpc", "-m", "pair", *named],
                [f"grpc://{target}", "-m", "pair", *named],
            ):
                out, _ = run("infer", *args, "--json")
                assert json.loads(out)["outputs"][0]["data"] == [version]
        _, err = run("infer", f"{url}/v2/models/pair/versions/3", code=1)
        assert 'version "3" of model "pair" not found' in err
        _, err = run("infer", f"http://{target}", "-m", "pair", code=4)
        assert "does not speak HTTP: is it the port of gRPC?" in err


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["http://localhost:abc"], 4, '"http://localhost:abc": expected http://HOST:PORT'),
        (["localhost", "--grpc", "-m", "a"], 4, '"localhost": expected HOST:PORT'),
        (["http://localhost", "--timeout", "0"], 2, "0.0 is not in the range x>0"),
    ],
)
def test_infer_tells_what_is_no_address_and_no_time(args, code, message):
    _, err = run("infer", *args, code=code)
    assert message in err


def test_infer_says_that_no_server_answers():
    (port,) = free_ports(1)
    for args in ([f"http://127.0.0.1:{port}"], [f"127.0.0.1:{port}", "--grpc", "-m", "a"]):
        _, err = run("infer", *args, code=4)
        assert "is the server up?" in err


def test_infer_streams():
    with serving(FUNCTIONS / "shout") as (url, target, _):
        for args in ([url], [target, "--grpc", "-m", "shout"]):
            out, _ = run("infer", *args, "-i", "text=a b", "--stream", "--json")
            words = [json.loads(line)["outputs"][0]["data"] for line in out.splitlines()]
            assert words == [["A"], ["B"]]
            assert "\nA B\n" in run("infer", *args, "-i", "text=a b", "--stream")[0]


@pytest.fixture
def heard(tmp_path):
    """Answers with the headers of the call."""
    (tmp_path / "function.yaml").write_text(
        "model_name: heard\nsource: {source: m.py, handler: f}\n"
        "inputs: [{name: word, datatype: BYTES, shape: [-1], content_type: str}]\n"
        "outputs: [{name: said, datatype: BYTES, shape: [-1], content_type: str}]\n"
    )
    (tmp_path / "m.py").write_text(
        "def f(word, headers):\n    return [str(headers.get(w)) for w in word]\n"
    )
    return tmp_path


def test_infer_sends_headers_by_every_route(heard):
    headers = ["--header", "Seldon-Model:heard", "--header", "x-note: a: b "]
    with serving(heard) as (url, target, _):
        for args in ([url], [url, "--binary"], [target, "--grpc", "-m", "heard"]):
            call = [*args, *headers, "-i", 'word=["seldon-model", "x-note"]', "--json"]
            out, _ = run("infer", *call)
            assert json.loads(out)["outputs"][0]["data"] == ["heard", "a: b"]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("Seldon-Model", 'expected NAME:VALUE, got "Seldon-Model"'),
        ("a b: c", 'expected NAME:VALUE, got "a b"'),
        (": c", 'expected NAME:VALUE, got ""'),
        ("x:secret\r\ny: z", 'expected printable ASCII as the value of "x"'),
        ("x:secret\xe9", 'expected printable ASCII as the value of "x"'),
    ],
)
def test_infer_refuses_what_is_no_header(header, message):
    for args in (["http://127.0.0.1:1"], ["127.0.0.1:1", "--grpc", "-m", "a"]):
        _, err = run("infer", *args, "--header", header, code=2)
        assert message in err
        assert "secret" not in err


def first_bytes(answer, *args):
    """What `infer` sends to a server that says `answer` and no more."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = "{}:{}".format(*server.getsockname())
        command = [PROGRAM, "infer", address, "-m", "a", *args, "--timeout", "1"]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            connection, _ = server.accept()
            with connection:
                connection.settimeout(60)
                connection.sendall(answer)
                got = b""
                with suppress(OSError):
                    while b"a.example.com" not in got and (piece := connection.recv(65536)):
                        got += piece
        finally:
            process.kill()
            process.wait()
    return got


EMPTY_SETTINGS = b"\0\0\0\4\0\0\0\0\0"


def test_infer_reaches_a_virtual_host_through_an_ingress():
    rest = first_bytes(b"", "--header", "Host: a.example.com")
    assert rest.count(b"ost: ") == 1
    assert b"a.example.com" in rest
    assert b"a.example.com" in first_bytes(
        EMPTY_SETTINGS, "--grpc", "--header", "Host: a.example.com"
    )


def test_infer_by_grpc_never_imports_mlserver():
    program = (
        "import sys, mlserver_pyfunc.client.grpc, mlserver_pyfunc.cli.infer, "
        "mlserver_pyfunc.cli.inputs, mlserver_pyfunc.cli.output, mlserver_pyfunc.protocol.samples;"
        "sys.exit('mlserver' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_serve_exits_with_three_where_a_function_does_not_load(tmp_path):
    (tmp_path / "function.yaml").write_text(
        "source: {source: m.py, handler: f}\noutputs: [{name: y, datatype: INT8, shape: [1]}]\n"
    )
    (tmp_path / "m.py").write_text("def g(): return 1\n")
    ports = ["--port", "0", "--grpc-port", "0", "--metrics-port", "0"]
    _, err = run("serve", tmp_path, *ports, code=3)
    assert 'failed to load: bind: module "m" has no "f"' in err
    assert "mlserver-pyfunc validate" in err


def test_serve_of_a_folder_of_nothing_says_so(tmp_path):
    _, err = run("serve", tmp_path, "--port", "0", code=3)
    assert "no function definition found" in err


CODE = "import time\ndef f(x):\n    time.sleep(0.002)\n    return x * 0 + {version}\n"


def write(folder, version):
    """In place of the old file at once, as editors do."""
    (folder / "new").write_text(CODE.format(version=version))
    os.replace(folder / "new", folder / "m.py")


@pytest.fixture
def versions(tmp_path):
    (tmp_path / "function.yaml").write_text(
        "model_name: versions\nsource: {source: m.py, handler: f}\n"
        "inputs: [{name: x, datatype: INT32, shape: [1]}]\n"
        "outputs: [{name: y, datatype: INT32, shape: [1]}]\n"
    )
    write(tmp_path, 0)
    return tmp_path


def call(client):
    result = client.infer("versions", [input_of("x", "INT32", np.array([1], np.int32))])
    return int(result.outputs["y"][0])


def test_reload_keeps_the_old_code_where_the_new_has_a_fault(versions):
    with serving(versions, "--reload") as (url, _, lines):
        client = RestClient(url)
        assert call(client) == 0
        (versions / "m.py").write_text("def f(x:\n")
        wait_until(lambda: any("goes on serving" in line for line in lines))
        assert call(client) == 0
        write(versions, 2)
        wait_until(lambda: call(client) == 2)


EDITS = int(os.environ.get("PYFUNC_TEST_EDITS", "6"))


def test_reload_under_load_loses_no_request(versions):
    """PYFUNC_TEST_EDITS=100 for the long run."""
    answers, errors, done = [], [], threading.Event()

    def load(url):
        client = RestClient(url)
        while not done.is_set():
            try:
                answers.append((time.monotonic(), call(client)))
            except CallError as error:
                errors.append(str(error))

    with serving(versions, "--reload") as (url, _, _lines):
        threads = [threading.Thread(target=load, args=(url,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        probe = RestClient(url)
        try:
            for version in range(1, EDITS + 1):
                write(versions, version)
                wait_until(lambda version=version: call(probe) == version)
        finally:
            done.set()
            for thread in threads:
                thread.join()
    assert errors == []
    seen = {version for _, version in answers}
    assert seen <= set(range(EDITS + 1))
    assert EDITS in seen
    assert len(answers) > EDITS
