"""Calls a function from plain Python: the server's path, without a server."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from mlserver_pyfunc.definition import FunctionDefinition
from mlserver_pyfunc.definition.locate import FunctionFolder, open_folder
from mlserver_pyfunc.handler.frames import as_inputs, like
from mlserver_pyfunc.protocol import bytes_tensors
from mlserver_pyfunc.protocol.request import InferenceRequest
from mlserver_pyfunc.protocol.response import json_output, response_body
from mlserver_pyfunc.protocol.tensors import Array

from .function import Function
from .runner import Answer

T = TypeVar("T")


class LocalFunction(AbstractContextManager["LocalFunction"]):
    """A loaded function. Calls take the server's path: contract, queue, handler, contract.

    Use it as a context manager, or call `close` when done. A function that does not load raises a
    LoadError, which names the phase and the cause. See docs/testing.md.
    """

    def __init__(self, folder: FunctionFolder) -> None:
        self.folder = folder
        self.function = Function(
            folder.definition, folder.folder, folder.model_name, folder.model_version
        )
        self.contract = self.function.contract
        self.model_name = folder.model_name
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        try:
            self._wait(self.function.load())
        except BaseException:
            self._stop()
            raise

    @property
    def definition(self) -> FunctionDefinition:
        """Definition of the function, with the tensors that its signature tells."""
        return self.function.definition

    def __call__(self, inputs: Any = None, /, **named: Any) -> Any:
        """Calls the function and returns its outputs by name, with the declared datatypes.

        An array keeps its own datatype, lists and scalars are sent as JSON would carry them. Use
        `inputs` for names that are not Python identifiers, or for a frame: the answer is a frame
        then. Raises the RequestError that a client would get, with its status.
        """
        answer = self.infer(self._request(inputs, named))
        return like(inputs, arrays_of(answer), self.contract.outputs)

    def stream(self, inputs: Any = None, /, **named: Any) -> Iterator[Any]:
        """Calls the function and yields its answers one by one; otherwise like a call."""
        for answer in self.infer_stream(self._request(inputs, named)):
            yield like(inputs, arrays_of(answer), self.contract.outputs)

    def request(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Answers a request in the protocol's JSON form, as REST does. Raises as a call does."""
        request = InferenceRequest.from_json(body)
        return self.response(self.infer(request), request.id)

    def response(self, answer: Answer, request_id: str | None = None) -> dict[str, Any]:
        """Returns an answer in the protocol's JSON form, as REST sends it."""
        return response_body(
            self.model_name,
            self.folder.model_version,
            request_id or None,
            {key: value for key, value in answer.parameters.items() if key != "headers"},
            [json_output(named) for named in answer.arrays],
        )

    def infer(self, request: InferenceRequest) -> Answer:
        return self._wait(self.function.infer(request))

    def infer_stream(self, request: InferenceRequest) -> Iterator[Answer]:
        answers = self.function.stream(request)
        try:
            while (answer := self._wait(_next(answers))) is not None:
                yield answer
        finally:
            self._wait(answers.aclose())

    def close(self) -> None:
        """Waits for calls in flight, runs the unload function and forgets the modules."""
        if self._loop.is_closed():
            return
        try:
            self._wait(self.function.close())
        finally:
            self._stop()

    def abandon(self) -> None:
        """Closes like `close`, and does not wait: the garbage collector may call it anywhere."""
        if not self._loop.is_closed():
            closing = asyncio.run_coroutine_threadsafe(self.function.close(), self._loop)
            closing.add_done_callback(lambda _: self._loop.stop())

    def __exit__(self, *_: object) -> None:
        self.close()

    def _request(self, inputs: Any, named: Mapping[str, Any]) -> InferenceRequest:
        contract = self.contract
        return InferenceRequest.from_values(contract, as_inputs(contract, inputs, named))

    def _wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def load(folder: str | Path) -> LocalFunction:
    """Loads the function of a folder or definition file. Raises DefinitionError or LoadError."""
    return LocalFunction(open_folder(folder))


def with_tensors(folder: FunctionFolder) -> FunctionFolder:
    """Returns a folder whose definition has all tensors, from the loaded function if it must."""
    if {"inputs", "outputs"} <= set(folder.definition.written):
        return folder
    with LocalFunction(folder) as function:
        return replace(folder, definition=function.definition)


def arrays_of(answer: Answer) -> dict[str, Array]:
    """Returns an answer's arrays by output name. BYTES are `str` if the definition says so."""
    return {
        named.spec.name: bytes_tensors.decode_text(each) if named.spec.text else each
        for named, each in [(named, named.masked) for named in answer.arrays]
    }


async def _next(answers: AsyncIterator[Answer]) -> Answer | None:
    return await anext(answers, None)
