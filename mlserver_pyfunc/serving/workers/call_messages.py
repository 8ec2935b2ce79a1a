"""What messages about calls hold: for the handler, and from it."""

from __future__ import annotations

from typing import Any

from mlserver_pyfunc import errors
from mlserver_pyfunc.errors import RequestError, ResponseError
from mlserver_pyfunc.handler.call import InferenceCall, printable_id
from mlserver_pyfunc.protocol.contract import Contract, NamedArray
from mlserver_pyfunc.protocol.tensors import TensorError
from mlserver_pyfunc.serving.runner import Answer, logger

from .wire.codec import read_tensors
from .wire.messages import Message, WireError

_ERRORS = {
    kind.__name__: kind
    for kind in (
        errors.InferenceError,
        errors.ContractError,
        errors.ResponseError,
        errors.HandlerError,
        errors.OverloadedError,
        errors.TimeLimitError,
    )
}


def head_of(call: InferenceCall, needs: frozenset[str]) -> dict[str, Any]:
    """What a handler asks for besides the tensors.

    Args:
        call: To be sent.
        needs: As `CallPlan.required_fields`.
    """
    head: dict[str, Any] = {}
    whole = not needs.isdisjoint(("request", "event"))
    if whole or "parameters" in needs:
        head["parameters"] = dict(call.parameters)
    if "headers" in needs or "event" in needs:
        head["headers"] = dict(call.headers)
    if whole:
        head["outputs"] = call.outputs
        head["tensor_parameters"] = {
            tensor.name: dict(tensor.parameters) for tensor in call.request.inputs
        }
    return head


def answer_of(message: Message, contract: Contract) -> Answer:
    """Reads a result or an item.

    Raises:
        ResponseError: Its tensors are not as declared.
    """
    try:
        arrays = read_tensors(message, contract.outputs)
    except (WireError, TensorError) as error:
        raise ResponseError(
            f'answer of a worker of model "{contract.model_name}": {error}'
        ) from None
    named = [NamedArray(contract.outputs[name], array) for name, array in arrays.items()]
    return Answer(named, message.values.get("parameters", {}))


def error_of(message: Message, model_name: str, request_id: str) -> RequestError:
    """Reads the error of a call, and logs user code's traceback."""
    values = message.values
    if values.get("traceback"):
        shown = printable_id(request_id)
        request = f" (request {shown})" if shown else ""
        logger.error('handler of model "%s" failed%s\n%s', model_name, request, values["traceback"])
    kind = _ERRORS.get(values["error"], RequestError)
    error = kind(values["message"])
    error.status = values["status"]
    return error
