"""Whatever a handler does: its request is answered and the server goes on."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from . import grpc_calls
from .conftest import GrpcCall
from .models import inline, tensor, write_model
from .process import ServerProcess, serving
from .wire import Reply, Request, Tensor, rest_infer

PROTOCOLS = ["rest", "grpc"]
KINDS = {"sync": "flaky", "async": "flaky-async"}


def _act(mode: str, model: str = "flaky") -> Request:
    return Request(model, [Tensor("mode", "BYTES", (1,), [mode.encode()])], id="r-7")


def _sleep(model: str, seconds: float) -> Request:
    return Request(model, [Tensor("seconds", "FP64", (1,), [seconds])])


def _send(protocol: str, request: Request, server: ServerProcess, grpc_call: GrpcCall) -> Reply:
    if protocol == "rest":
        return rest_infer(server.client, request)
    reply: Reply = grpc_call(grpc_calls.infer, server.grpc_address, request, True)
    return reply


def _send_together(
    protocol: str, requests: list[Request], server: ServerProcess, grpc_call: GrpcCall
) -> list[Reply]:
    if protocol == "grpc":
        replies: list[Reply] = grpc_call(
            grpc_calls.infer_together, server.grpc_address, requests, True
        )
        return replies
    with ThreadPoolExecutor(len(requests)) as pool:
        return list(pool.map(lambda request: rest_infer(server.client, request), requests))


RAISED = {
    "raise:bad luck": "ValueError: bad luck",
    "exit:3": "SystemExit: 3",
    "exit:0": "SystemExit: 0",
    "interrupt": "KeyboardInterrupt",
    "generator exit": "GeneratorExit",
    "base exception": "Stop: enough",
    "surrogate": "ValueError: caf\\udce9",
    "unsayable": "Unsayable: (its message cannot be shown)",
    "recursion": "RecursionError: maximum recursion depth exceeded",
}
UNUSABLE = {
    "parameters:5": 'response parameters of model "{}": expected a mapping, got int',
    "parameters:{'a': b'x'}": 'response parameters of model "{}": expected what JSON can carry: '
    "got a value of type bytes",
    "parameters:{'a': 2**63}": 'response parameters of model "{}": expected what JSON can carry: '
    "got 9223372036854775808, beyond 64 bits",
    "none": 'handler of model "{}": expected a value for answer, or a dict, got None',
    "lock": 'output "answer" of model "{}": expected bytes or str, got <unlocked _thread.lock',
    "lock inside": 'output "answer" of model "{}": expected bytes or str, got <unlocked _thread',
    "shape": 'output "answer" of model "{}": expected shape [1], got [2]',
    "generator": 'handler of model "{}": expected a value for answer, or a dict, got a generator',
    "unknown output": 'output "extra" of model "{}": the handler returned it, but the definition '
    'declares "answer"',
    "missing output": 'output "answer" of model "{}": the handler returned no value for it',
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", RAISED)
def test_what_a_handler_raises_is_named_to_its_client_and_goes_no_further(
    mode: str, kind: str, protocol: str, server: ServerProcess, grpc_call: GrpcCall
) -> None:
    model = KINDS[kind]
    reply = _send(protocol, _act(mode, model), server, grpc_call)
    assert reply.status == (500 if protocol == "rest" else "INTERNAL"), reply
    assert reply.error.startswith(f'handler of model "{model}" raised {RAISED[mode]}'), reply.error
    assert reply.error.endswith("(request r-7)")
    assert "Traceback" not in reply.error
    _still_answers(model, server)


def test_the_traceback_of_what_a_handler_raises_is_in_the_log(server: ServerProcess) -> None:
    rest_infer(server.client, _act("raise:only in the log 17"))
    server.wait_for_log('handler of model "flaky" failed (request r-7)')
    server.wait_for_log("raise ValueError(argument)")


def test_what_a_handler_prints_is_in_the_log_at_once(tmp_path: Path) -> None:
    code = "def handler(x):\n    print('printed', x[0])\n    return x\n"
    row = [tensor("x", "INT64", [1])]
    printer = inline(code, "handler", {"inputs": row, "outputs": row})
    write_model(tmp_path / "models" / "printer", printer)
    # Access logs, and unbuffered output, would flush it too.
    env = {"MLSERVER_DEBUG": "false", "PYTHONUNBUFFERED": ""}
    with serving(tmp_path / "models", tmp_path, "printer", env=env) as server:
        request = Request("printer", [Tensor("x", "INT64", (1,), [7])])
        rest_infer(server.client, request).expect_ok()
        server.wait_for_log("printed 7\n")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_stop_iteration_is_contained(
    protocol: str, server: ServerProcess, grpc_call: GrpcCall
) -> None:
    reply = _send(protocol, _act("stop iteration"), server, grpc_call)
    assert reply.status == (500 if protocol == "rest" else "INTERNAL"), reply
    assert "StopIteration" in reply.error
    _still_answers("flaky", server)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", UNUSABLE)
def test_what_a_handler_returns_and_nobody_can_send_is_named(
    mode: str, kind: str, protocol: str, server: ServerProcess, grpc_call: GrpcCall
) -> None:
    model = KINDS[kind]
    reply = _send(protocol, _act(mode, model), server, grpc_call)
    assert reply.status == (500 if protocol == "rest" else "INTERNAL"), reply
    assert reply.error.startswith(UNUSABLE[mode].format(model)), reply.error
    _still_answers(model, server)


CODES = {
    400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED",
    404: "NOT_FOUND", 409: "ABORTED", 413: "RESOURCE_EXHAUSTED", 422: "FAILED_PRECONDITION",
    429: "RESOURCE_EXHAUSTED", 499: "CANCELLED", 500: "INTERNAL", 501: "UNIMPLEMENTED",
    503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED", 418: "UNKNOWN", 599: "UNKNOWN",
}  # fmt: skip


@pytest.mark.parametrize("status", CODES)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_inference_error_answers_with_its_own_status_and_message(
    protocol: str, status: int, server: ServerProcess, grpc_call: GrpcCall
) -> None:
    reply = _send(protocol, _act(f"inference_error:{status}"), server, grpc_call)
    expected = status if protocol == "rest" else CODES[status]
    assert (reply.status, reply.error) == (expected, f"refused with {status}")


def test_a_status_that_is_no_error_is_the_handlers_error(server: ServerProcess) -> None:
    reply = rest_infer(server.client, _act("inference_error:200"))
    assert reply.status == 500
    assert "expected an HTTP error status from 400 to 599, got 200" in reply.error


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_long_message_is_cut_so_that_grpc_can_carry_it(
    protocol: str, server: ServerProcess, grpc_call: GrpcCall
) -> None:
    reply = _send(protocol, _act("raise:" + "x" * 20000), server, grpc_call)
    assert reply.status == (500 if protocol == "rest" else "INTERNAL")
    assert len(reply.error) == 2000
    assert reply.error.endswith("...")


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("model", ["narrow", "narrow-async"])
def test_beyond_the_queue_requests_are_refused_at_once_and_may_come_back(
    model: str, protocol: str, server: ServerProcess, grpc_call: GrpcCall
) -> None:
    replies = _send_together(protocol, [_sleep(model, 0.5)] * 5, server, grpc_call)
    answered = [reply for reply in replies if reply.status in (200, "OK")]
    refused = [reply for reply in replies if reply not in answered]
    assert len(answered) == 2, "one slot and one in the queue"
    for reply in refused:
        assert reply.status == (503 if protocol == "rest" else "UNAVAILABLE"), reply
        assert reply.error == (
            f'model "{model}" is at its limit: 1 calls at a time (serving.concurrency) '
            "and 1 waiting (serving.max_queue)"
        )
        if protocol == "rest":
            assert reply.headers["retry-after"] == "1"
    _send(protocol, _sleep(model, 0), server, grpc_call).expect_ok()


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("model", ["hasty", "hasty-async"])
def test_a_call_past_its_limit_is_answered_at_the_limit(
    model: str, protocol: str, server: ServerProcess, grpc_call: GrpcCall
) -> None:
    _until_ready(model, server)
    # The coroutine is cancelled; the thread goes on and holds the only slot.
    seconds = 3600 if model == "hasty-async" else 4
    reply = _send(protocol, _sleep(model, seconds), server, grpc_call)
    if model == "hasty":
        _until_held(model, server)
    assert reply.status == (504 if protocol == "rest" else "DEADLINE_EXCEEDED"), reply
    assert (
        reply.error == f'call of model "{model}" passed its time limit of 0.4 s (serving.timeout)'
    )
    _until_ready(model, server)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_model_whose_only_slot_is_held_is_not_ready_until_the_call_ends(
    protocol: str, server: ServerProcess, grpc_call: GrpcCall
) -> None:
    _until_ready("hasty", server)
    assert rest_infer(server.client, _sleep("hasty", 4)).status == 504
    _until_held("hasty", server)
    refused = _send(protocol, _sleep("hasty", 0), server, grpc_call)
    assert refused.status == (503 if protocol == "rest" else "UNAVAILABLE"), refused
    assert "calls past their time limit (serving.timeout) still run" in refused.error
    assert server.is_ready("flaky"), "the other models are"
    _until_ready("hasty", server)
    rest_infer(server.client, _sleep("hasty", 0)).expect_ok()


def test_an_async_call_past_its_limit_is_cancelled_and_frees_its_slot(
    server: ServerProcess,
) -> None:
    assert rest_infer(server.client, _sleep("hasty-async", 3600)).status == 504
    _until_ready("hasty-async", server)
    rest_infer(server.client, _sleep("hasty-async", 0)).expect_ok()


def test_a_grpc_client_that_gives_up_frees_the_slot_of_an_async_call(
    server: ServerProcess, grpc_call: GrpcCall
) -> None:
    request = _sleep("narrow-async", 240)
    reply = grpc_call(grpc_calls.infer_and_cancel, server.grpc_address, request, 0.3)
    assert reply.status == "DEADLINE_EXCEEDED"
    # Sooner than the first call would end: the client waits for a minute.
    rest_infer(server.client, _sleep("narrow-async", 0)).expect_ok()


def test_a_client_that_gives_up_takes_its_request_out_of_the_queue(server: ServerProcess) -> None:
    """MLServer lets a REST call run on; what waits behind it must still be answered."""
    with ThreadPoolExecutor(1) as pool:
        running: Future[Reply] = pool.submit(rest_infer, server.client, _sleep("narrow", 0.8))
        time.sleep(0.2)
        with pytest.raises(httpx.ReadTimeout):
            server.client.post(
                "/v2/models/narrow/infer",
                json={
                    "inputs": [{"name": "seconds", "datatype": "FP64", "shape": [1], "data": [0.1]}]
                },
                timeout=httpx.Timeout(60, read=0.1),
            )
        running.result().expect_ok()
    time.sleep(0.2)
    rest_infer(server.client, _sleep("narrow", 0)).expect_ok()


@pytest.mark.parametrize("model", ["blocker", "narrow"])
def test_health_and_metadata_answer_while_a_sync_handler_blocks(
    model: str, server: ServerProcess, grpc_call: GrpcCall
) -> None:
    _stays_responsive(model, 3, server, grpc_call)


@pytest.mark.heavy
def test_health_and_metadata_answer_while_a_sync_handler_blocks_for_ten_seconds(
    server: ServerProcess, grpc_call: GrpcCall
) -> None:
    _stays_responsive("blocker", 10, server, grpc_call)


def _stays_responsive(
    model: str, seconds: float, server: ServerProcess, grpc_call: GrpcCall
) -> None:
    grpc_call(grpc_calls.is_ready, server.grpc_address, model)
    with ThreadPoolExecutor(1) as pool:
        blocked = pool.submit(rest_infer, server.client, _sleep(model, seconds))
        time.sleep(0.1)
        rounds = 0
        while not blocked.done():
            for path in ("/v2/health/live", "/v2/health/ready", f"/v2/models/{model}", "/v2"):
                assert server.client.get(path).status_code == 200, path
            assert grpc_call(grpc_calls.is_ready, server.grpc_address, model)
            rounds += not blocked.done()
            time.sleep(0.02)
        blocked.result().expect_ok()
    assert rounds > 1, "health and metadata waited for the handler"


def _still_answers(model: str, server: ServerProcess) -> None:
    reply = rest_infer(server.client, _act("ok:fine", model)).expect_ok()
    assert reply.outputs["answer"].values == [b"fine"]
    assert server.client.get("/v2/health/ready").status_code == 200


def _until_held(model: str, server: ServerProcess) -> None:
    """Waits until a call that runs past its limit holds the slot: a moment after its 504."""
    deadline = time.monotonic() + 60
    while server.is_ready(model):
        assert time.monotonic() < deadline, "the answer came after the call"
        time.sleep(0.02)


def _until_ready(model: str, server: ServerProcess, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not server.is_ready(model):
        assert time.monotonic() < deadline, f"{model} is not ready after {seconds} s"
        time.sleep(0.02)
