"""Writes a call's message to a worker, and reads the worker's answer or error."""

from __future__ import annotations

from typing import Any

from mlserver_pyfunc.errors import RequestError, ResponseError
from mlserver_pyfunc.handler.call import InferenceCall, printable_id
from mlserver_pyfunc.protocol.contract import Contract, NamedArray
from mlserver_pyfunc.protocol.tensors import TensorError
from mlserver_pyfunc.serving.runner import Answer, logger

from .wire.codec import read_tensors
from .wire.messages import Message, WireError

_ERRORS = {kind.__name__: kind for kind in RequestError.__subclasses__()}


def call_head(call: InferenceCall, required_fields: frozenset[str]) -> dict[str, Any]:
    """Collects the fields of a request that the handler takes besides the tensors."""
    head: dict[str, Any] = {}
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


def read_answer(message: Message, contract: Contract) -> Answer:
    """Reads the result of a call or an item of a stream, or raises a ResponseError."""
    try:
        lenient = "responses" in contract.lenient
        arrays = read_tensors(message, contract.outputs, lenient=lenient, text=False)
    except (WireError, TensorError) as error:
        raise ResponseError(
            f'answer of a worker of model "{contract.model_name}": {error}'
        ) from None
    named = [NamedArray(view[1], arrays[view[0]]) for view in message.head.views or ()]
    return Answer(named, message.values.get("parameters", {}))


def read_error(message: Message, model_name: str, request_id: str) -> RequestError:
    """Reads the error of a call. Logs the traceback of user code, if there is one.

    Raises a LookupError or TypeError if a value of the message is missing or of another type.
    """
    values = message.values
    text, status = values["message"], values["status"]
    if not isinstance(text, str) or not isinstance(status, int):
        raise TypeError(f"expected a text and a number, got {text!r} and {status!r}")
    if values.get("traceback"):
        shown = printable_id(request_id)
        request = f" (request {shown})" if shown else ""
        logger.error('handler of model "%s" failed%s\n%s', model_name, request, values["traceback"])
    kind = _ERRORS.get(values["error"], RequestError)
    error = kind(text)
    error.status = status
    return error
