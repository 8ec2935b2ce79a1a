"""The MLServer runtime. It alone knows the lifecycle of a model in MLServer."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from pathlib import Path
from typing import Any

from mlserver import MLModel
from mlserver.errors import MLServerError
from mlserver.repository import SchemalessModelRepository as SchemalessModelRepository
from mlserver.settings import ModelSettings
from mlserver.types import MetadataModelResponse, MetadataTensor, Parameters

from mlserver_pyfunc.definition import FunctionDefinition
from mlserver_pyfunc.definition.locate import Located
from mlserver_pyfunc.definition.model_settings import disagreements, explicit_settings, seldon_model
from mlserver_pyfunc.errors import LoadError, PyFuncError, RequestError
from mlserver_pyfunc.hosts.common.models import PLATFORM, metadata_tensors
from mlserver_pyfunc.hosts.common.rest_response import NoHeaders, StreamError, binary_outputs
from mlserver_pyfunc.serving.function import Function
from mlserver_pyfunc.serving.limits import not_loaded
from mlserver_pyfunc.serving.runner import logger

from . import access_log, models, patches
from .data_plane import ModelMetrics
from .errors import to_host_error
from .grpc_calls import ServerResponse
from .pages import Pages
from .rest_route import model_parameters

patches.install()


class PyFuncRuntime(Pages, MLModel):
    """Serves a Python function: `"implementation": "mlserver_pyfunc.PyFuncRuntime"`."""

    def __init__(self, settings: ModelSettings) -> None:
        # Filled by data_plane, by the version that requests ask for. Freed with the model.
        self.model_metrics: dict[str | None, ModelMetrics] = {}
        self._ready = False
        self._function: Function | None = None
        self._shutdown: asyncio.Task[None] | None = None
        super().__init__(settings)
        models.keep_to_ourselves(settings)
        # Before the load: MLServer registers a model by its version, and loads it then.
        self._located, self._unreadable = models.read_definition(settings)

    @property
    def ready(self) -> bool:
        """Whether the model takes requests. MLServer refuses them if it is false."""
        return self._ready and self._function is not None and self._function.accepts_calls

    @ready.setter
    def ready(self, value: bool) -> None:
        self._ready = value

    @property
    def definition(self) -> FunctionDefinition | None:
        """The definition, until a load without tensors of the signature; None if unreadable."""
        if self._function is not None:
            return self._function.definition
        return self._located.definition if self._located else None

    @property
    def provenance(self) -> Mapping[str, str]:
        return self._function.metadata if self._function else {}

    @property
    def streams(self) -> bool:
        return self._function is not None and self._function.streams

    @property
    def available(self) -> bool:
        """Whether a call could run now: the answer of the readiness endpoints."""
        return self.ready and self._function is not None and self._function.ready

    async def load(self) -> bool:
        try:
            located = self._agreed()
            function = Function(located.definition, located.folder, self.name, self.version)
            await function.load()
        except PyFuncError as error:
            logger.error("%s", error)
            models.failures[self.name] = str(error)
            raise MLServerError(str(error), 500) from None
        self._function = function
        self._shutdown = asyncio.get_running_loop().create_task(self._close_on_shutdown())
        definition = function.definition
        models.add_model(self.name, self.version, definition.serving.timeout)
        self.inputs = [MetadataTensor(**each) for each in metadata_tensors(definition.inputs)]
        self.outputs = [MetadataTensor(**each) for each in metadata_tensors(definition.outputs)]
        logger.info('function "%s" loaded from %s', self.name, located.where)
        return True

    async def predict(self, payload: Any) -> Any:
        models.begin(id(payload))
        if access_log.log is not None:
            access_log.note(payload, self.version)
        try:
            answer = await self._loaded().infer(payload)
        except RequestError as error:
            raise to_host_error(error) from None
        finally:
            models.running.discard(id(payload))
        return ServerResponse(
            self.name, self.version, answer.arrays, answer.parameters, binary_outputs(payload)
        )

    async def predict_stream(self, payloads: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """Answers the requests of a stream, item by item. An error is the last item."""
        try:
            async for payload in payloads:
                models.begin(id(payload))
                if access_log.log is not None:
                    access_log.note(payload, self.version)
                try:
                    async with aclosing(self._loaded().stream(payload)) as answers:
                        async for answer in answers:
                            yield ServerResponse(
                                self.name, self.version, answer.arrays, answer.parameters,
                                headers=NoHeaders,
                            )  # fmt: skip
                finally:
                    models.running.discard(id(payload))
        except RequestError as error:
            yield StreamError(self.name, to_host_error(error))

    async def unload(self) -> bool:
        if self._shutdown is not None:
            self._shutdown.cancel()
        await self._close()
        return True

    async def metadata(self) -> MetadataModelResponse:
        return MetadataModelResponse(
            name=self.name,
            versions=models.loaded_versions(self.name),
            platform=self.settings.platform or PLATFORM,
            inputs=self.inputs,
            outputs=self.outputs,
            parameters=Parameters(**self.provenance, **model_parameters),
        )

    def _agreed(self) -> Located:
        """Returns the definition, after comparing it with the model's settings."""
        if self._located is None:
            raise LoadError(self.name, "definition", self._unreadable)
        file = Path(self.settings._source) if self.settings._source else None
        model = seldon_model(file, self.name)
        version = None if model else self.version
        problems = disagreements(self._located.definition, self.settings, version)
        if self.settings.max_batch_size > 1:
            problems.append(
                "max_batch_size is set in model-settings.json: MLServer would join requests "
                "before their tensors are checked; remove it, and set serving.batch instead"
            )
        problems += self._name_problems(self._located.definition.model_name, file, model)
        if problems:
            raise LoadError(self.name, "definition", "; ".join(problems))
        return self._located

    def _name_problems(self, name: str | None, file: Path | None, model: str | None) -> list[str]:
        explicit = None if model else explicit_settings(file).get("name")
        given = os.environ.get("MLSERVER_MODEL_NAME")
        if explicit and given and given != explicit:
            logger.warning(
                'model "%s": model-settings.json names it so, which goes before '
                'MLSERVER_MODEL_NAME "%s"; remove "name" from model-settings.json',
                explicit,
                given,
            )
        if name and explicit and name != explicit:
            return [f'model_name is "{name}", but model-settings.json says "{explicit}"']
        if name and name != (model or self.name):
            logger.warning('function "%s" is served under the name "%s"', name, self.name)
        return []

    def _loaded(self) -> Function:
        if self._function is None:
            raise not_loaded(self.name)
        return self._function

    async def _close_on_shutdown(self) -> None:
        """Closes the function on SIGTERM: `asyncio.run` then cancels all tasks, this one too."""
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await self._close()
            raise

    async def _close(self) -> None:
        function, self._function = self._function, None
        if function is None:
            return
        models.remove_model(self.name, self.version)
        await function.close()
