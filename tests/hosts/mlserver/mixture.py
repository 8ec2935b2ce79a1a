"""A mixture of valid, invalid and failing requests, each with the one right answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from .wire import Reply, Request, Tensor

KINDS = 6


def question(number: int) -> tuple[Request, tuple[int, str], str, list[int | bytes]]:
    """The request of a number, its statuses, and the error or the values of its answer."""
    name, kind = f"q-{number}", number % KINDS
    text = str(number).encode()
    if kind == 0:
        values = [number, number + 1, -number]
        tensor = Tensor("int64_any", "INT64", (3,), values)
        return Request("echo", [tensor], ["int64_any"], id=name), (200, "OK"), "", values
    if kind == 1:
        tensor = Tensor("text", "BYTES", (2,), [b"a" + text, b"b"])
        upper = [b"A" + text, b"B"]
        return Request("upper", [tensor], id=name), (200, "OK"), "", upper
    if kind == 2:
        tensor = Tensor("int64_any", "INT64", (number, 0), [])
        error = f'input "int64_any" of model "echo": expected shape [-1], got [{number}, 0]'
        return Request("echo", [tensor], id=name), (400, "INVALID_ARGUMENT"), error, []
    model = "flaky" if number % 2 else "flaky-async"
    if kind == 3:
        tensor = Tensor("mode", "BYTES", (1,), [b"raise:" + text])
        error = f'handler of model "{model}" raised ValueError: {number} (request {name})'
        return Request(model, [tensor], id=name), (500, "INTERNAL"), error, []
    if kind == 4:
        tensor = Tensor("mode", "BYTES", (1,), [b"inference_error:429"])
        error = "refused with 429"
        return Request(model, [tensor], id=name), (429, "RESOURCE_EXHAUSTED"), error, []
    tensor = Tensor("mode", "BYTES", (1,), [b"ok:" + text])
    return Request(model, [tensor], id=name), (200, "OK"), "", [text]


def problem(number: int, reply: Reply) -> str:
    """What is wrong with a reply; empty where it is the right one for its request."""
    request, statuses, error, values = question(number)
    if reply.status not in statuses or reply.error != error:
        return f"{request}: expected {statuses} {error!r}, got {reply.status} {reply.error!r}"
    if error:
        return ""
    got = next(iter(reply.outputs.values())).values
    if reply.id != request.id or got != values:
        return f"{request}: expected {values}, got {got} with the id {reply.id}"
    return ""


def hammer(
    clients: int, seconds: float, first: int, new_client: Callable[[], Callable[[Request], Reply]]
) -> tuple[int, list[str]]:
    """Lets clients ask one after the other; how many answers there were, and what was wrong."""
    until = time.monotonic() + seconds

    def ask(client: int) -> tuple[int, list[str]]:
        send, problems, count = new_client(), [], 0
        while time.monotonic() < until and len(problems) < 5:
            number = first + client + count * clients
            found = problem(number, send(question(number)[0]))
            count += 1
            if found:
                problems.append(found)
        return count, problems

    with ThreadPoolExecutor(clients) as pool:
        results = list(pool.map(ask, range(clients)))
    return sum(count for count, _ in results), [p for _, found in results for p in found]
