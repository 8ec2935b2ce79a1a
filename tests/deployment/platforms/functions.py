"""The functions that the platforms serve, and what they must answer."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from .kubelet import Pod

# Its braces are what Go's templates take for their own.
CODE = """
import os
import time


def init(context, factor):
    context.factor = factor
    context.logger.info("factor is {{ %s }}", factor)


def handler(x, until, context):
    if until is not None:
        context.logger.info("a slow call begins")
        while not os.path.exists(until.item()):
            time.sleep(0.05)
        context.logger.info("a slow call ends")
    return {"sum": x.sum(axis=1) * context.factor, "braces": "{{ $0 & <b> }}"}


def close(context):
    context.logger.info("closed after %s", context.model_name)
"""
BROKEN = CODE.replace("context.factor = factor", 'raise RuntimeError("the weights are missing")')
REASON = "init: RuntimeError: the weights are missing"
HANDLER = {"handler": "handler", "init_function": "init", "unload_function": "close"}
FILE_HANDLER = {key: f"model:{name}" for key, name in HANDLER.items()}
TEXT = {"content_type": "str"}
CONTRACT: dict[str, Any] = {
    "model_name": "iris",
    "model_version": "7",
    "init_parameters": {"factor": 2},
    "inputs": [
        {"name": "x", "datatype": "FP32", "shape": [-1, 2]},
        # A file: there is no answer before it is there.
        {"name": "until", "datatype": "BYTES", "shape": [1], "optional": True, **TEXT},
    ],
    "outputs": [
        {"name": "sum", "datatype": "FP32", "shape": [-1]},
        {"name": "braces", "datatype": "BYTES", "shape": [1], **TEXT},
    ],
    "serving": {"concurrency": 4},
}
# What the server says first after SIGTERM.
SHUTDOWN = "for gRPC server shutdown"
OUTPUTS = {"sum": [6.0, 14.0], "braces": ["{{ $0 & <b> }}"]}


def inline(code: str = CODE, **more: Any) -> dict[str, Any]:
    """A definition that holds its code."""
    return {"source": {"code": code, **HANDLER}, **CONTRACT, **more}


def write_folder(folder: Path, code: str = CODE, **settings: Any) -> Path:
    """A definition beside its code, with a model-settings.json where there are settings."""
    folder.mkdir(parents=True)
    (folder / "model.py").write_text(code)
    write_definition(folder, {"source": {"source": ".", **FILE_HANDLER}, **CONTRACT}, **settings)
    return folder


def write_definition(folder: Path, definition: dict[str, Any], **settings: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    # JSON is YAML.
    (folder / "function.yaml").write_text(json.dumps(definition))
    if settings:
        text = json.dumps({"implementation": "mlserver_pyfunc.PyFuncRuntime", **settings})
        (folder / "model-settings.json").write_text(text)
    return folder


def inputs(until: str | None = None) -> list[dict[str, Any]]:
    tensors: list[dict[str, Any]] = [
        {"name": "x", "datatype": "FP32", "shape": [2, 2], "data": [1.0, 2.0, 3.0, 4.0]}
    ]
    if until is not None:
        tensors.append({"name": "until", "datatype": "BYTES", "shape": [1], "data": [until]})
    return tensors


def ask_by_rest(pod: Pod, port: int, model: str, until: str | None = None) -> dict[str, Any]:
    """The outputs by name, over REST."""
    url = f"http://{pod.network.ip}:{port}/v2/models/{model}/infer"
    answer = httpx.post(url, json={"inputs": inputs(until)}, timeout=60)
    assert answer.status_code == 200, f"{answer.status_code} {answer.text}"
    assert answer.json()["model_name"] == model
    return {output["name"]: output["data"] for output in answer.json()["outputs"]}


def ask_by_grpc(pod: Pod, port: int, model: str, until: str | None = None) -> dict[str, Any]:
    """The outputs by name, over gRPC."""
    request = {"model": model, "inputs": inputs(until)}
    answer = pod.network.grpc(port, "infer", request=request)
    assert answer["status"] == "OK", answer
    outputs: dict[str, Any] = answer["outputs"]
    return outputs


def check_answers(pod: Pod, rest: int, grpc: int, model: str) -> None:
    """Both protocols give the function's own values."""
    assert pod.network.run(ask_by_rest, pod, rest, model) == OUTPUTS
    assert ask_by_grpc(pod, grpc, model) == OUTPUTS


def check_drains(pod: Pod, rest: int, grpc: int, model: str) -> None:
    """Calls in flight at SIGTERM are answered, the function is closed, and the process ends."""
    go = "/tmp/go"
    by_rest = pod.network.submit(ask_by_rest, pod, rest, model, go)
    by_grpc = pod.network.submit(ask_by_grpc, pod, grpc, model, go)
    pod.wait_until(lambda: pod.log.count("a slow call begins") == 2, "called twice")
    with ThreadPoolExecutor(1) as pool:
        ending = pool.submit(pod.terminate)
        pod.wait_until(lambda: SHUTDOWN in pod.log, "stopping")
        assert not by_rest.done()
        assert not by_grpc.done()
        assert pod.container.run(["touch", go], 5).returncode == 0
        end = ending.result()
    assert by_rest.result() == OUTPUTS
    assert by_grpc.result() == OUTPUTS
    assert (end.code, end.killed) == (0, False), f"{end}\n{pod.log}"
    assert f"closed after {model}" in pod.log


def check_never_ready(pod: Pod, reason: str = REASON) -> None:
    """No probe finds a broken function ready, and the log says why."""
    pod.wait_until(lambda: pod.ends, "restarted")
    assert not pod.was_ready
    assert reason in pod.log, pod.log
    # It ends by itself and at once: no liveness probe had to.
    assert [end.why for end in pod.ends] == ["exit"]
