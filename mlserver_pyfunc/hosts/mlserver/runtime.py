"""The MLServer runtime: the only module that knows a model's lifecycle on the host."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from mlserver import MLModel
from mlserver.errors import MLServerError
from mlserver.settings import ModelSettings
from mlserver.types import (
    InferenceRequest,
    InferenceResponse,
    MetadataModelResponse,
    MetadataTensor,
    Parameters,
)

from mlserver_pyfunc.definition import FunctionDefinition, TensorDefinition
from mlserver_pyfunc.definition.locate import Located, find_definition
from mlserver_pyfunc.definition.model_settings import (
    disagreements,
    explicit_name,
    seldon_model,
)
from mlserver_pyfunc.errors import LoadError, PyFuncError, RequestError
from mlserver_pyfunc.handler.shadowing import pin_package
from mlserver_pyfunc.serving.function import Function
from mlserver_pyfunc.serving.runner import logger

from . import fast_path, patches
from .data_plane import Served
from .pages import Pages
from .rest_response import ArrayResponse, ErrorResponse, binary_outputs

PLATFORM = "mlserver_pyfunc"

pin_package()
patches.extend_error_mapping()
patches.tell_up_from_ready()
patches.end_empty_streams_well()
patches.leave_our_children_alone()
patches.give_grpc_calls_time()
patches.refuse_typed_fp16()
patches.show_prints_at_once()
fast_path.install()


class PyFuncRuntime(Pages, MLModel):
    """Serves a Python function: `"implementation": "mlserver_pyfunc.PyFuncRuntime"`."""

    def __init__(self, settings: ModelSettings) -> None:
        # Of data_plane, by the version that requests ask for; goes with the model.
        self.served: dict[str | None, Served] = {}
        self._ready = False
        self._function: Function | None = None
        self._shutdown: asyncio.Task[None] | None = None
        super().__init__(settings)
        patches.keep_out_of_pool(settings)
        # Read here already: MLServer registers a model by its version before it loads it.
        self._located, self._unreadable = _read(settings)
        _adopt_version(settings, self._located)

    @property
    def ready(self) -> bool:
        """Whether requests are taken: MLServer refuses them where it is false."""
        return self._ready and self._function is not None and self._function.accepts_calls

    @ready.setter
    def ready(self, value: bool) -> None:
        self._ready = value

    @property
    def definition(self) -> FunctionDefinition | None:
        return self._located.definition if self._located else None

    @property
    def provenance(self) -> Mapping[str, str]:
        return self._function.metadata if self._function else {}

    @property
    def streams(self) -> bool:
        return self._function is not None and self._function.streams

    @property
    def up(self) -> bool:
        """Whether a request could run now: what the readiness endpoints tell."""
        return self.ready and self._function is not None and self._function.ready

    async def load(self) -> bool:
        """Loads the function.

        Raises:
            MLServerError: One line that names the function, the phase and the cause.
        """
        try:
            located = self._agreed()
            function = Function(located.definition, located.folder, self.name, self.version)
            await function.load()
        except PyFuncError as error:
            logger.error("%s", error)
            raise MLServerError(str(error), 500) from None
        self._function = function
        self._shutdown = asyncio.get_running_loop().create_task(self._close_on_shutdown())
        patches.add_model(self.name, self.version)
        patches.expect_calls_of(located.definition.serving.timeout)
        self.inputs = [_metadata_tensor(tensor) for tensor in located.definition.inputs]
        self.outputs = [_metadata_tensor(tensor) for tensor in located.definition.outputs]
        logger.info('function "%s" loaded from %s', self.name, located.where)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answers one inference request.

        Raises:
            MLServerError: With the status to answer.
        """
        try:
            answer = await self._loaded().infer(payload)
        except RequestError as error:
            raise patches.to_host_error(error) from None
        return ArrayResponse(
            self.name, self.version, answer.arrays, answer.parameters, binary_outputs(payload)
        )

    async def predict_stream(
        self, payloads: AsyncIterator[InferenceRequest]
    ) -> AsyncIterator[InferenceResponse]:
        """Answers each request of a stream, item by item; an error is the last item."""
        try:
            async for payload in payloads:
                answers = self._loaded().stream(payload)
                try:
                    async for answer in answers:
                        yield ArrayResponse(
                            self.name, self.version, answer.arrays, answer.parameters
                        )
                finally:
                    await answers.aclose()
        except RequestError as error:
            yield ErrorResponse(self.name, patches.to_host_error(error))

    async def unload(self) -> bool:
        """Unloads the function, after the calls in flight."""
        if self._shutdown is not None:
            self._shutdown.cancel()
        await self._close()
        return True

    async def metadata(self) -> MetadataModelResponse:
        """The contract, the versions that are loaded and where the code came from."""
        parameters = dict(self._function.metadata) if self._function else {}
        return MetadataModelResponse(
            name=self.name,
            versions=patches.loaded_versions(self.name),
            platform=self.settings.platform or PLATFORM,
            inputs=self.inputs,
            outputs=self.outputs,
            parameters=Parameters(**parameters),
        )

    def _agreed(self) -> Located:
        """The definition, once it and the model's settings agree."""
        if self._located is None:
            raise LoadError(self.name, "definition", self._unreadable)
        file = Path(self.settings._source) if self.settings._source else None
        model = seldon_model(file, self.name)
        problems = disagreements(
            self._located.definition,
            version=None if model else self.version,
            inputs=self.settings.inputs,
            outputs=self.settings.outputs,
        )
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
        """Compares the definition's name with the host's; empty where they go together."""
        explicit = None if model else explicit_name(file)
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
            raise RequestError(f'model "{self.name}" is not loaded', 503)
        return self._function

    async def _close_on_shutdown(self) -> None:
        """Waits to be cancelled with the event loop's other tasks, when the servers are down:
        MLServer itself does not unload models on SIGTERM."""
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await self._close()
            raise

    async def _close(self) -> None:
        function, self._function = self._function, None
        if function is None:
            return
        patches.remove_model(self.name, self.version)
        await function.close()


def _read(settings: ModelSettings) -> tuple[Located | None, str]:
    parameters = settings.parameters
    source = Path(settings._source) if settings._source else None
    uri = parameters.uri if parameters else None
    extra = parameters.extra if parameters else None
    try:
        return find_definition(source, uri, extra), ""
    except PyFuncError as error:
        return None, str(error)


def _adopt_version(settings: ModelSettings, located: Located | None) -> str | None:
    """Takes over a version that only the definition gives."""
    if settings.parameters is None:
        return None
    if located is not None and not settings.parameters.version:
        settings.parameters.version = located.definition.model_version
    version: str | None = settings.parameters.version
    return version


def _version(settings: ModelSettings) -> str | None:
    return _adopt_version(settings, _read(settings)[0])


patches.tell_versions(_version)
patches.tell_other_runtimes()


def _metadata_tensor(tensor: TensorDefinition) -> MetadataTensor:
    given = {
        "content_type": tensor.content_type,
        "description": tensor.description,
        "optional": tensor.optional or None,
    }
    parameters = {key: value for key, value in given.items() if value is not None}
    return MetadataTensor(
        name=tensor.name,
        datatype=tensor.datatype,
        shape=tensor.shape,
        parameters=Parameters(**parameters) if parameters else None,
    )
