"""Functions as models of KServe's server, and the registry of them."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Set
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, cast

from kserve import model_server
from kserve.metrics import PREDICT_HIST_TIME
from kserve.model import InferenceModel, InferenceVerb
from kserve.model_repository import ModelRepository

from mlserver_pyfunc.definition.locate import open_folder
from mlserver_pyfunc.errors import RequestError
from mlserver_pyfunc.hosts.common import tuning
from mlserver_pyfunc.hosts.common.models import PLATFORM, metadata_tensors, not_found
from mlserver_pyfunc.hosts.common.rest_request import BINARY_EXTENSION
from mlserver_pyfunc.hosts.common.rest_response import ArrayResponse, binary_outputs
from mlserver_pyfunc.serving.function import Function
from mlserver_pyfunc.serving.runner import logger

from . import rest, v1


class FunctionModel(InferenceModel):
    """A function as KServe's server knows it. A copy in another process is loaded there."""

    def __init__(self, folder: Path, name: str | None = None) -> None:
        opened = open_folder(folder)
        super().__init__(name or opened.model_name)
        self.version = opened.model_version
        self.function = Function(opened.definition, opened.folder, self.name, self.version)
        self.closing: asyncio.Future[None] | None = None
        self._folder = folder
        self._seconds = PREDICT_HIST_TIME.labels(model_name=self.name)

    def __reduce__(self) -> Any:
        return type(self), (self._folder, self.name)

    async def healthy(self) -> bool:
        """Whether it takes calls, which may wait. KServe's route of V1 asks this before a call."""
        return self.function.accepts_calls

    def stop(self) -> None:
        """Takes no more calls, and unloads the function when those in flight have ended."""
        self.closing = self.closing or asyncio.ensure_future(self.function.close())

    async def infer(self, request: Any) -> ArrayResponse:
        with self._seconds.time():
            answer = await self.function.infer(request)
        return self._response(request, answer, binary_outputs(request))

    async def stream(self, request: Any) -> AsyncGenerator[ArrayResponse, None]:
        async with aclosing(self.function.stream(request)) as answers:
            async for answer in answers:
                yield self._response(request, answer)

    async def __call__(
        self,
        body: Any,
        headers: Mapping[str, str] | None = None,
        verb: InferenceVerb = InferenceVerb.PREDICT,
    ) -> Any:
        """Answers a request of the V1 protocol, which KServe has taken out of its CloudEvent."""
        if verb is not InferenceVerb.PREDICT:  # KServe answers this error with status 501.
            raise NotImplementedError(f'model "{self.name}" cannot explain: it is a function')
        request = v1.to_request(self.function.contract, body, headers or {})
        response = await self.infer(request)
        return v1.to_body(response), response.own_headers

    def metadata(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "versions": [self.version] if self.version else [],
            "platform": PLATFORM,
            "inputs": metadata_tensors(self.function.definition.inputs),
            "outputs": metadata_tensors(self.function.definition.outputs),
            "parameters": {**self.function.metadata, BINARY_EXTENSION: True},
        }

    def _response(
        self, request: Any, answer: Any, binary: Set[str] | None = frozenset()
    ) -> ArrayResponse:
        arrays, parameters = answer.arrays, answer.parameters
        response = ArrayResponse(self.name, self.version, arrays, parameters, binary)
        response.id = request.id = request.id or str(uuid.uuid4())
        return response


class Functions(ModelRepository):
    """The registry of all functions: the only object that KServe sends to other processes."""

    def __init__(self, models: Iterable[FunctionModel]) -> None:
        super().__init__()
        self.models.update({model.name: model for model in models})
        self.end = asyncio.Event()
        rest.add_routes(model_server.app, self)

    def __reduce__(self) -> Any:
        return _in_process_of_uvicorn, ([*self.models.values()],)

    def get_model(self, name: str, version: str | None = None) -> FunctionModel:
        """Returns a model. Raises RequestError, status 404, if it or its version is unknown."""
        model: Any = self.models.get(name)
        if model is None:
            text = not_found(f'model "{name}"', self.models, "no model is served")
        elif version and version != model.version:
            served = [model.version] if model.version else []
            text = not_found(f'version "{version}" of model "{name}"', served, "it has none")
        else:
            return cast(FunctionModel, model)
        raise RequestError(text, 404)

    @property
    def ready(self) -> bool:
        return bool(self.models) and all(
            self.get_model(name).function.ready for name in self.models
        )

    @asynccontextmanager
    async def loaded(self, _: Any) -> AsyncIterator[None]:
        """Loads the functions, and unloads them at the end of the block. Raises LoadError."""
        tuning.raise_malloc_thresholds()
        tuning.raise_gc_threshold()
        models = [self.get_model(name) for name in self.models]
        try:
            for model in models:
                await model.function.load()
                logger.info('function "%s" is loaded', model.name)
            yield
        finally:
            for model in models:
                model.stop()
            await asyncio.gather(*(model.closing for model in models if model.closing))


def _in_process_of_uvicorn(models: list[FunctionModel]) -> Functions:
    """Makes the registry of a process that has REST alone (`--workers`)."""
    functions = Functions(models)
    logger.parent = logging.getLogger("kserve")
    model_server.app.router.lifespan_context = functions.loaded
    return functions
