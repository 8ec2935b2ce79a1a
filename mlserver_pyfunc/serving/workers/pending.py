"""Calls that wait for a worker or run on one, and their messages."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlserver_pyfunc.errors import RequestError, ResponseError
from mlserver_pyfunc.handler.call import InferenceCall, printable_id
from mlserver_pyfunc.protocol.contract import Contract, NamedArray
from mlserver_pyfunc.protocol.nulls import NULLS
from mlserver_pyfunc.protocol.tensors import TensorError
from mlserver_pyfunc.serving.metrics import Wait
from mlserver_pyfunc.serving.runner import Answer, logger

from .wire.codec import read_tensors
from .wire.messages import Kind, Message, WireError

if TYPE_CHECKING:  # a worker holds its calls
    from .worker import Worker

_ERRORS = {kind.__name__: kind for kind in RequestError.__subclasses__()}


@dataclass(slots=True, eq=False)
class PendingCall:
    """A call that waits for a worker or runs on one. Times are the event loop's."""

    call: InferenceCall
    number: int
    future: asyncio.Future[Answer | None]  # of a stream: the next item, None at the end
    failure: RequestError | None = None  # of a stream, while nobody waited for an item
    deadline: float = 0.0  # when the caller gets the error of the time limit
    timer: asyncio.TimerHandle | None = None  # which runs until then
    runs_until: float = 0.0  # when it has run for its time limit; 0 while it has not begun
    wait: Wait | None = None  # in the queue, for the metrics
    worker: Worker | None = None
    retried: bool = False  # whether it was already running on a worker that died
    items: deque[Answer] = field(default_factory=deque)  # of a stream, behind that in `future`
    begun: bool = False  # whether the stream has given an item
    ended: bool = False  # whether it has given all
    span: Any = None  # `serving.spans.Trace` of its time on the worker, if it is recorded

    def fail(self, error: RequestError) -> None:
        """Raises an error in the caller, now or when it next asks for an item."""
        self.failure = error
        self.end_span(error)
        if not self.future.done():
            self.future.set_exception(error)

    def end_wait(self) -> None:
        if self.wait is not None:
            self.wait.end()

    def end_span(self, error: BaseException | None = None) -> None:
        if self.span:
            self.span.end(error)

    def head(self, required_fields: frozenset[str]) -> dict[str, Any]:
        call, head = self.call, dict[str, Any]()
        whole = not required_fields.isdisjoint(("request", "event"))
        if whole or "parameters" in required_fields:
            head["parameters"] = dict(call.parameters)
        if "headers" in required_fields or "event" in required_fields:
            head["headers"] = dict(call.headers)
        if whole:
            head["outputs"] = call.outputs
            head["tensor_parameters"] = {
                tensor.name: dict(tensor.parameters) for tensor in call.request.inputs
            }
        return head

    def set_answer(self, message: Message, contract: Contract) -> None:
        if self.future.done() and message.kind is not Kind.ITEM:
            return
        try:
            lenient = "responses" in contract.lenient
            arrays = read_tensors(message, contract.all_outputs, lenient=lenient, text=False)
        except (WireError, TensorError) as error:
            text = f'answer of a worker of model "{contract.model_name}": {error}'
            self.fail(ResponseError(text))
            return
        named = [
            NamedArray(spec, arrays[name], arrays.get(name + NULLS) if spec.companion else None)
            for name, spec, *_ in message.head.views or ()
            if not spec.is_nulls
        ]
        answer = Answer(named, message.values.get("parameters", {}))
        if self.future.done():
            self.items.append(answer)
        else:
            self.future.set_result(answer)

    def set_error(self, message: Message, model_name: str) -> None:
        """Raises a worker's error in the caller. Logs the traceback of user code, if it has one."""
        values = message.values
        text, status = values["message"], values["status"]
        if not isinstance(text, str) or not isinstance(status, int):
            raise TypeError(f"expected a text and a number, got {text!r} and {status!r}")
        traceback = values.get("traceback")
        # An async handler whose caller has left ends so, as it was asked to.
        is_cancelled = self.future.cancelled() and str(traceback).endswith("CancelledError\n")
        if traceback and not is_cancelled:
            shown = printable_id(self.call.label)
            request = f" (request {shown})" if shown else ""
            logger.error('handler of model "%s" failed%s\n%s', model_name, request, traceback)
        error = _ERRORS.get(values["error"], RequestError)(text)
        error.status = status
        self.fail(error)
