"""What Prometheus sees of functions."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from .models import inline, tensor, write_model
from .process import ServerProcess, serving
from .wire import Request, Tensor, rest_infer

CODE = """
import os

def handler(x):
    if x[0] < 0:
        os._exit(1)
    return x
"""
TENSORS = {"inputs": [tensor("x", "FP32", [-1])], "outputs": [tensor("y", "FP32", [-1])]}


def _request(model: str, value: float) -> Request:
    return Request(model, [Tensor("x", "FP32", (1,), [value])])


def _metrics(server: ServerProcess) -> dict[str, float]:
    port = server._env["MLSERVER_METRICS_PORT"]
    text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    lines = [line for line in text.splitlines() if line.startswith("pyfunc_")]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


@pytest.mark.parametrize("parallel_workers", ["0", "1"])
def test_metrics_of_a_function_survive_its_reload(parallel_workers: str, tmp_path: Path) -> None:
    batch = {"max_size": 8, "max_delay_ms": 1}
    for name, more in {"here": {}, "apart": {"isolation": "process"}}.items():
        definition = {**inline(CODE, "handler", TENSORS, batch=batch, **more), "model_version": "3"}
        write_model(tmp_path / "models" / name, definition)
    env = {"MLSERVER_PARALLEL_WORKERS": parallel_workers}
    with serving(tmp_path / "models", tmp_path, "here", "apart", env=env) as server:
        for model in ("here", "apart"):
            for _ in range(3):
                rest_infer(server.client, _request(model, 1)).expect_ok()
            assert server.client.post(f"/v2/repository/models/{model}/load").status_code == 200
            rest_infer(server.client, _request(model, 1)).expect_ok()
            bad = Request(model, [Tensor("x", "FP64", (1,), [1.0])])
            assert rest_infer(server.client, bad).status == 400
        assert rest_infer(server.client, _request("apart", -1)).status == 500
        rest_infer(server.client, _request("apart", 1)).expect_ok()
        # A call is counted after its answer is sent.
        last = 'pyfunc_request_duration_seconds_count{model="apart",status="200",version="3"}'
        deadline = time.monotonic() + 60
        while (seen := _metrics(server)).get(last) != 5 and time.monotonic() < deadline:
            time.sleep(0.02)
        for model, answered in {"here": 4, "apart": 5}.items():
            labels = f'model="{model}",'
            count = 'pyfunc_request_duration_seconds_count{%sstatus="%s",version="3"}'
            assert seen[count % (labels, 200)] == answered
            assert seen[count % (labels, 400)] == 1
            found = {key: seen[key] for key in seen if labels in key}
            of_model = f'{{model="{model}",version="3"}}'
            assert found[f"pyfunc_queue_depth{of_model}"] == 0
            assert (f"pyfunc_utilization{of_model}" in found) is (parallel_workers == "0")
            assert found[f"pyfunc_batch_rows_sum{of_model}"] == answered + (model == "apart")
            assert found[f"pyfunc_batch_requests_count{of_model}"] >= answered
        assert seen['pyfunc_workers_up{model="apart",version="3"}'] == 1
        assert seen['pyfunc_environment_build_seconds{model="apart",version="3"}'] == 0
        restarts = 'pyfunc_worker_restarts_total{model="apart",reason="exit",version="3"}'
        assert seen[restarts] == 1


WAITING = """
import os, time

def handler(x):
    while not os.path.exists(PATH):
        time.sleep(0.01)
    return x
"""


@pytest.mark.parametrize(
    ("serving_keys", "slots"),
    [
        ({"isolation": "none", "concurrency": 2}, 2),
        ({"isolation": "process", "workers": 2, "concurrency": 1}, 2),
    ],
)
def test_the_utilization_is_of_requests_in_flight_over_slots(
    serving_keys: dict[str, object], slots: int, tmp_path: Path
) -> None:
    path = tmp_path / "go"
    code = WAITING.replace("PATH", repr(str(path)))
    definition = inline(code, "handler", TENSORS, **serving_keys)
    write_model(tmp_path / "models" / "waits", {**definition, "model_version": "1"})
    env = {"MLSERVER_PARALLEL_WORKERS": "0"}
    with serving(tmp_path / "models", tmp_path, "waits", env=env) as server:

        def gauges() -> list[float]:
            seen = _metrics(server)
            names = ("requests_in_flight", "slots", "utilization")
            return [seen[f'pyfunc_{name}{{model="waits",version="1"}}'] for name in names]

        def expect(in_flight: float) -> None:
            deadline = time.monotonic() + 60
            while gauges()[0] != in_flight and time.monotonic() < deadline:
                time.sleep(0.02)
            assert gauges() == [in_flight, slots, in_flight / slots]

        expect(0)
        with ThreadPoolExecutor() as threads:
            calls = [
                threads.submit(rest_infer, server.client, _request("waits", 1)) for _ in range(3)
            ]
            try:
                expect(3)
            finally:
                path.touch()
            for call in calls:
                call.result().expect_ok()
        expect(0)
