"""gRPC answers in the form that Triton gives them.

Triton's streams have `ModelStreamInferResponse` where the protocol's have `ModelInferResponse`,
with the same method and the same requests. A message of one form cannot be read as the other, so
a client asks for Triton's form by the metadata of the call.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

from mlserver.errors import MLServerError
from mlserver.grpc import dataplane_pb2 as pb

from mlserver_pyfunc import settings

from . import messages

METADATA_KEY = "triton-stream"

_WANTS_FINAL = "triton_enable_empty_final_response"
_IS_FINAL = "triton_final_response"

Answer = Callable[[Any, AsyncIterator[Any], Any], AsyncGenerator[Any, None]]

logger = logging.getLogger("mlserver.pyfunc")


def answer_in_triton_form(stock: Any) -> Any:
    """Answers a gRPC stream in Triton's form if its metadata asks for it.

    Without it, Triton's client takes each answer of a stream for an error: its message has the
    text of an error where MLServer's has the name of the model.
    """

    # Not async: streams in the protocol's own form then run through no code of ours.
    def f(self: Any, requests_stream: Any, context: Any) -> AsyncGenerator[Any, None]:
        answers: Answer = stock
        if _is_asked_for(context):
            return _answers(answers, self, requests_stream, context)
        return answers(self, requests_stream, context)

    return f


def send_raw_outputs(stock: Any) -> Any:
    """Answers typed requests with raw contents too, if the server is switched to Triton's form.

    Without it, Triton's examples for typed contents fail: the outputs are typed if the inputs
    are, and Triton's are always raw.
    """
    if not settings.is_switched_on(settings.TRITON):
        return stock

    def _GetReturnRaw(request: Any) -> bool:  # noqa: N802
        return True

    return _GetReturnRaw


class _StreamContext:
    """The context of one request of a stream.

    The trailing metadata of a response would become headers of the next request.
    """

    def __init__(self, context: Any) -> None:
        self.invocation_metadata = context.invocation_metadata
        self.time_remaining = context.time_remaining

    def set_trailing_metadata(self, metadata: Any) -> None:
        """Drops the metadata."""


def _is_asked_for(context: Any) -> bool:
    for key, value in context.invocation_metadata() or ():
        if key == METADATA_KEY:
            return bool(value.lower() == "true")
    return settings.is_switched_on(settings.TRITON)


async def _answers(
    stock: Answer, servicer: Any, requests: AsyncIterator[Any], context: Any
) -> AsyncGenerator[Any, None]:
    """Answers the requests of a stream, each as a stream of its own.

    MLServer gives all requests of a stream to the model of the first one, under the id of the
    first one, and ends the stream at an error. Triton's clients expect none of these.
    """
    new_response = messages.message_class("ModelStreamInferResponse")
    async for request in requests:
        wants_final = _WANTS_FINAL in request.parameters and (
            request.parameters[_WANTS_FINAL].bool_param
        )
        try:
            stream = stock(servicer, _stream_of(request), _StreamContext(context))
            async with aclosing(stream) as responses:
                async for response in responses:
                    if wants_final:
                        response.parameters[_IS_FINAL].bool_param = False
                    yield new_response(infer_response=response.SerializeToString())
        except Exception as error:
            level = logging.INFO if isinstance(error, MLServerError) else logging.ERROR
            logger.log(level, "stream: %s", error, exc_info=level == logging.ERROR)
            failed = pb.ModelInferResponse(id=request.id).SerializeToString()
            yield new_response(error_message=str(error) or repr(error), infer_response=failed)
            continue
        if wants_final:
            final = pb.ModelInferResponse(
                model_name=request.model_name, model_version=request.model_version, id=request.id
            )
            final.parameters[_IS_FINAL].bool_param = True
            yield new_response(infer_response=final.SerializeToString())


async def _stream_of(request: Any) -> AsyncIterator[Any]:
    yield request
