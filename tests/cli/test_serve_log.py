"""What `serve` shows: where it serves, each request, one error, and how it stops."""

import json
import re
import signal
import socket
import subprocess
import threading
import time
from contextlib import contextmanager, suppress
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from mlserver_pyfunc.cli.terminal import user_frames
from mlserver_pyfunc.deployment.server_settings import free_ports

from .test_cli import PROGRAM, run

pytestmark = pytest.mark.server

DEFINITION = (
    "model_name: slow\nmodel_version: '2'\nsource: {source: m.py, handler: f}\n"
    "inputs: [{name: x, datatype: FP64, shape: [1]}]\n"
    "outputs: [{name: y, datatype: FP64, shape: [1]}]\n"
)
CODE = (
    "import pathlib, time\n"
    "def f(x):\n"
    "    pathlib.Path(__file__).with_name('called').touch()\n"
    "    time.sleep(x[0])\n"
    "    return x\n"
)


@pytest.fixture
def slow(tmp_path):
    (tmp_path / "function.yaml").write_text(DEFINITION)
    (tmp_path / "m.py").write_text(CODE)
    return tmp_path


class Process:
    """A `serve` process and what it has written."""

    def __init__(self, folder, *options):
        self.rest, self.grpc, metrics = free_ports(3)
        ports = ["--port", self.rest, "--grpc-port", self.grpc, "--metrics-port", metrics]
        command = [PROGRAM, "serve", *map(str, [folder, *ports, *options])]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.lines = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        self.lines.extend(iter(self.process.stdout.readline, ""))

    @property
    def text(self):
        return "".join(self.lines)

    def until(self, condition):
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline, self.text
            time.sleep(0.02)

    def until_text(self, text):
        self.until(lambda: text in self.text)

    def call(self, value, timeout=60):
        tensor = {"name": "x", "datatype": "FP64", "shape": [1], "data": [value]}
        body = json.dumps({"inputs": [tensor]}).encode()
        url = f"http://127.0.0.1:{self.rest}/v2/models/slow/infer"
        try:
            with urlopen(Request(url, body), timeout=timeout) as answer:
                return answer.status
        except HTTPError as error:
            return error.code

    def answers(self):
        with suppress(OSError):
            return self.call(0) == 200
        return False

    def call_in_vain(self):
        with suppress(OSError):
            self.call(50)

    def ended(self):
        code = self.process.wait(60)
        self._reader.join(60)
        return code


@contextmanager
def serving(folder, *options):
    server = Process(folder, *options)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.wait(60)


def test_it_shows_contract_addresses_and_each_request(slow):
    with serving(slow) as server:
        server.until_text("metrics")
        assert "slow 2: x FP64 [1] -> y FP64 [1]" in server.text
        for link in (
            f"playground  http://127.0.0.1:{server.rest}/v2/models/slow/playground",
            f"docs        http://127.0.0.1:{server.rest}/v2/models/slow/docs",
            f"REST        http://127.0.0.1:{server.rest}/v2/models/slow/infer",
            f"gRPC        127.0.0.1:{server.grpc}",
        ):
            assert link in server.text
        before = len(server.lines)
        assert server.call(0) == 200
        server.until(lambda: len(server.lines) == before + 1)
        assert re.search(r"POST infer +slow  200  [\d.]+ ms\n", server.lines[-1])
        assert server.call("many") == 400
        server.until_text("400  ")
        assert re.search(r'400  [\d.]+ ms  input "x" of model "slow": expected', server.text)
        run("infer", f"127.0.0.1:{server.grpc}", "--grpc", "-m", "slow", "-i", "x=0")
        server.until_text("ModelInfer    slow  OK")
        run("infer", f"127.0.0.1:{server.grpc}", "--grpc", "-m", "slow", "-i", "x=[1, 2]", code=1)
        server.until_text("ModelInfer    slow  INVALID_ARGUMENT")
        # A client that polls must not fill the log.
        urlopen(f"http://127.0.0.1:{server.rest}/v2/health/ready").close()
        assert server.call(0) == 200
        server.until(lambda: len(server.lines) == before + 5)
        assert "health" not in server.text


def test_a_request_that_waits_for_another_says_how_long(slow):
    with serving(slow) as server:
        server.until_text("metrics")
        first = threading.Thread(target=server.call, args=(1,))
        first.start()
        server.until((slow / "called").exists)
        server.call(0)
        first.join()
        server.until_text("waited")
        assert re.search(r"200  [\d.]+ ms  waited [\d.]+ ms\n", server.text)


def test_json_lines_hold_the_same(slow):
    with serving(slow, "--log-format", "json") as server:
        server.until_text('"ready"')
        server.call("many")
        server.until_text('"call"')
        server.process.send_signal(signal.SIGINT)
        assert server.ended() == 0
        lines = [json.loads(line) for line in server.lines]
    ready = next(line for line in lines if line["event"] == "ready")
    assert ready["models"] == {"slow 2": "x FP64 [1] -> y FP64 [1]"}
    call = next(line for line in lines if line["event"] == "call")
    assert (call["method"], call["model"], call["status"]) == ("POST infer", "slow", "400")
    assert call["reason"].startswith('input "x" of model "slow": expected')
    assert lines[-1]["message"] == "stopped"


def test_a_stream_that_fails_after_its_first_item_says_why(slow):
    (slow / "m.py").write_text("def f(x):\n    yield x\n    raise ValueError('no ink')\n")
    tensor = {"name": "x", "datatype": "FP64", "shape": [1], "data": [1]}
    body = json.dumps({"inputs": [tensor]}).encode()
    with serving(slow) as server:
        server.until_text("metrics")
        url = f"http://127.0.0.1:{server.rest}/v2/models/slow/infer_stream"
        with urlopen(Request(url, body), timeout=60) as answer:
            assert answer.status == 200
            assert b"no ink" in answer.read()
        server.until_text("ms  ")
        assert re.search(r"POST infer_stream +slow  200  [\d.]+ ms  .*no ink", server.text)
        run(
            "infer",
            f"127.0.0.1:{server.grpc}",
            "--grpc",
            "-m",
            "slow",
            "-i",
            "x=0",
            "--stream",
            code=1,
        )
        server.until_text("ModelStreamInfer  slow")
        assert re.search(r"ModelStreamInfer +slow  [A-Z]+  [\d.]+ ms  .*no ink", server.text)


def test_quiet_shows_no_line(slow):
    with serving(slow, "--quiet") as server:
        server.until(server.answers)
        server.process.send_signal(signal.SIGINT)
        assert server.ended() == 0
        assert server.text == ""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_for_the_call_in_flight(slow, number):
    with serving(slow) as server:
        server.until_text("metrics")
        statuses = []
        caller = threading.Thread(target=lambda: statuses.append(server.call(1.5)))
        caller.start()
        server.until((slow / "called").exists)
        before = len(server.lines)
        server.process.send_signal(number)
        assert server.ended() == 0
        caller.join()
        assert statuses == [200]
        said, answered = server.lines[before:]
        assert "stopping after 1 in flight, Ctrl-C stops at once" in said
        assert "200" in answered


def test_a_second_signal_stops_at_once(slow):
    with serving(slow) as server:
        server.until_text("metrics")
        threading.Thread(target=server.call_in_vain, daemon=True).start()
        server.until((slow / "called").exists)
        server.process.send_signal(signal.SIGINT)
        server.until_text("stopping")
        started = time.monotonic()
        server.process.send_signal(signal.SIGINT)
        assert server.ended() == 130
        assert time.monotonic() - started < 40
        assert "Traceback" not in server.text


def test_a_signal_while_a_function_loads_ends_the_load(slow):
    (slow / "m.py").write_text(f"import time\ntime.sleep(50)\n{CODE}")
    with serving(slow) as server:
        server.until_text("loading slow")
        time.sleep(0.5)
        server.process.send_signal(signal.SIGINT)
        assert server.ended() == 130
        assert len(server.lines) == 2
        assert server.lines[-1].endswith("stopped while loading\n")


@pytest.mark.parametrize("isolation", ["none", "process"])
def test_a_load_failure_is_one_error_with_the_users_frames(slow, isolation):
    (slow / "m.py").write_text("import json\ndef f(x):\n    json.loads('{')\nf(0)\n")
    (slow / "function.yaml").write_text(DEFINITION + f"serving: {{isolation: {isolation}}}\n")
    with serving(slow) as server:
        assert server.ended() == 3
        assert server.text.count("failed to load") == 1
        frames = re.findall(r'File "(.*)", line (\d+)', server.text)
        assert frames == [(str(slow / "m.py"), "4"), (str(slow / "m.py"), "3")]
        assert "next:" not in server.text, "validate shows nothing about it"


def test_verbose_shows_all_frames(slow):
    (slow / "m.py").write_text("import json\njson.loads('{')\n")
    with serving(slow, "--verbose") as server:
        assert server.ended() == 3
        assert "json/decoder.py" in server.text


def test_the_next_step_is_named_if_it_shows_the_fault(slow):
    (slow / "m.py").write_text("def g(x): return x\n")
    with serving(slow) as server:
        assert server.ended() == 3
        assert f"next: mlserver-pyfunc validate {slow} shows it by file and line" in server.text


@pytest.mark.parametrize("option", ["--port", "--grpc-port", "--metrics-port"])
def test_a_taken_port_is_one_line(slow, option):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        others = {"--port": 0, "--grpc-port": 0, "--metrics-port": 0, option: port}
        arguments = [str(each) for pair in others.items() for each in pair]
        _, err = run("serve", slow, *arguments, code=5)
    assert err.splitlines() == [
        f"error: {option}: port {port} of 127.0.0.1 is taken",
        "next: choose another port, or 0 for a free one",
    ]


def test_a_port_that_does_not_exist_is_one_line(slow):
    _, err = run("serve", slow, "--port", "99999", code=5)
    assert err == "error: --port: expected 0 to 65535, got 99999\n"


def test_what_a_client_sends_cannot_control_the_terminal(slow):
    with serving(slow) as server:
        server.until_text("metrics")
        with socket.create_connection(("127.0.0.1", server.rest)) as client:
            client.sendall(b"GET /v2/models/%1b%5b2J%0Aforged HTTP/1.1\r\nHost: a\r\n\r\n")
            client.recv(1000)
        server.until_text("404")
        assert "\x1b" not in server.text
        assert not any(line.startswith("forged") for line in server.lines)


def test_lines_below_a_frame_go_with_it():
    trace = (
        '  File "/usr/lib/python3/site-packages/numpy/lib.py", line 1, in load\n'
        "    fid = open(a)\n          ^^^^^^^\n"
        '  File "/home/me/m.py", line 2, in f\n    load()\n'
        "ValueError: no\n"
    )
    assert (
        user_frames(trace) == '  File "/home/me/m.py", line 2, in f\n    load()\nValueError: no\n'
    )
