"""A loaded function: from its definition to its answers, without a server.

`Function.load` fetches the source, chooses the environment and the runner, and loads the code.
`Function.infer` and `Function.stream` decode a request, run the handler and select the outputs.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlserver_pyfunc.definition import FunctionDefinition
from mlserver_pyfunc.environments.environment import provide, unmet_needs
from mlserver_pyfunc.errors import (
    ContractError,
    DefinitionError,
    LoadError,
    PyFuncError,
    RequestError,
)
from mlserver_pyfunc.handler.call import InferenceCall
from mlserver_pyfunc.handler.context import Context
from mlserver_pyfunc.handler.loading import HandlerSpec
from mlserver_pyfunc.protocol.contract import TensorSpec
from mlserver_pyfunc.protocol.lenient import new_contract
from mlserver_pyfunc.protocol.request import InferenceRequest
from mlserver_pyfunc.protocol.samples import smallest_shape
from mlserver_pyfunc.protocol.tensors import Array
from mlserver_pyfunc.settings import init_parameters
from mlserver_pyfunc.sources import SourceTree, lock

from . import limits
from .breaches import BreachLog
from .in_process import InProcessRunner
from .metrics import metrics_of
from .runner import Answer, Runner, logger

_CLIENT_GONE = 499
"""Status in the metrics if the client left before the answer. Nginx uses the same number."""


class Function:
    """One function, from `load` to `close`. All methods are for one event loop's thread.

    Attributes:
        definition: Definition of the function.
        model_name: Name of the model, as served.
        model_version: Version of the model, as served; None without one.
        contract: Contract that checks requests and results.
        provenance: Where the source came from; empty until it is fetched.

    Args:
        definition: Definition of the function to load.
        folder: Folder of the definition. A relative source starts there.
        model_name: Name of the model, as served.
        model_version: Version of the model, as served; None without one.
    """

    def __init__(
        self,
        definition: FunctionDefinition,
        folder: Path,
        model_name: str,
        model_version: str | None = None,
    ) -> None:
        self.definition = definition
        self.model_name = model_name
        self.model_version = model_version
        self.provenance: Mapping[str, str] = {}
        self._folder = folder
        self._metrics = metrics_of(model_name, model_version)
        self.contract = new_contract(
            model_name,
            [tensor.spec for tensor in definition.inputs],
            [tensor.spec for tensor in definition.outputs],
            definition.contract.lenient,
            BreachLog(self._metrics).add,
        )
        self._context: Context | None = None
        self._runner: Runner | None = None

    @property
    def ready(self) -> bool:
        """Whether a call could run now."""
        return self._runner is not None and self._runner.ready

    @property
    def streams(self) -> bool:
        """Whether the handler is a generator."""
        return self._runner is not None and self._runner.streams

    @property
    def accepts_calls(self) -> bool:
        """Whether a call is accepted, even if it has to wait for a worker."""
        return self._runner is not None and self._runner.accepts_calls

    @property
    def metadata(self) -> Mapping[str, str]:
        """Where the code came from and how it runs, for the model's metadata."""
        runner = self._runner.metadata if self._runner else {}
        return {**_described(self.definition), **self.provenance, **runner}

    async def load(self) -> None:
        """Fetches and imports the source, runs the init function, binds the handler, warms up.

        Raises:
            LoadError: Names the function, the phase and the cause. The traceback of user
                code that fails goes to the log. Nothing is left loaded.
        """
        definition = self.definition
        if not definition.outputs and definition.contract.responses == "enforce":
            raise self._failure("definition", "outputs: expected at least one tensor, got none")
        if definition.serving.isolation == "none" and (unmet := unmet_needs(definition)):
            raise self._failure("environment", "; ".join(unmet))
        try:
            tree = await asyncio.to_thread(lock.fetch_locked, definition, self._folder)
        except (PyFuncError, OSError) as error:
            raise self._failure("fetch", str(error)) from None
        self.provenance = tree.provenance.as_parameters()
        try:
            spec = self._new_spec(tree)
        except DefinitionError as error:
            raise self._failure("definition", str(error)) from None
        context = self._context = spec.new_context(logger)
        runner = await self._new_runner(spec, context)
        await runner.load()
        self._runner = runner
        if definition.serving.warmup:
            try:
                await self._warm_up(runner, context, tree)
            except LoadError:
                await self.close()
                raise

    async def infer(self, request: Any) -> Answer:
        """Answers one inference request.

        Args:
            request: Inference request of the host. It has the attributes of the protocol's.

        Raises:
            RequestError: With the status to answer.
        """
        started = time.perf_counter()
        status = 500
        try:
            answer = await self._infer(request)
            status = 200
            return answer
        except RequestError as error:
            status = error.status
            raise
        except asyncio.CancelledError:
            status = _CLIENT_GONE
            raise
        finally:
            self._metrics.count_request(time.perf_counter() - started, status)

    async def _infer(self, request: Any) -> Answer:
        runner = self._loaded()
        if runner.streams:
            raise ContractError(
                f'model "{self.model_name}" streams its answers: '
                "call infer_stream or generate_stream (REST) or ModelStreamInfer (gRPC)"
            )
        call, requested = self._decode(request)
        return _selected(await runner.answer(call), requested)

    async def stream(self, request: Any) -> AsyncGenerator[Answer, None]:
        """Answers one inference request item by item. A handler that does not stream gives one.

        Args:
            request: Inference request of the host. It has the attributes of the protocol's.

        Raises:
            RequestError: With the status to answer.
        """
        started = time.perf_counter()
        status = 500
        answers = self._stream(request)
        try:
            async for answer in answers:
                yield answer
            status = 200
        except RequestError as error:
            status = error.status
            raise
        except (asyncio.CancelledError, GeneratorExit):
            status = _CLIENT_GONE
            raise
        finally:
            self._metrics.count_request(time.perf_counter() - started, status)
            await answers.aclose()

    async def _stream(self, request: Any) -> AsyncGenerator[Answer, None]:
        runner = self._loaded()
        call, requested = self._decode(request)
        if not runner.streams:
            yield _selected(await runner.answer(call), requested)
            return
        items = runner.items(call)
        try:
            async for answer in items:
                yield _selected(answer, requested)
        finally:
            await items.aclose()

    async def close(self) -> None:
        """Waits for calls in flight, runs the unload function and forgets the modules."""
        if self._runner is not None:
            await self._runner.close()

    def _decode(self, request: Any) -> tuple[InferenceCall, list[str]]:
        contract = self.contract
        inputs = contract.decode_inputs(request.inputs)
        requested: list[str] = []
        if request.outputs:
            requested = contract.requested_outputs(output.name for output in request.outputs)
        assert self._context is not None
        specs = contract.input_specs(inputs)
        return InferenceCall(self._context, inputs, specs, request), requested

    async def _warm_up(self, runner: Runner, context: Context, tree: SourceTree) -> None:
        samples = self.definition.serving.samples
        if not samples:
            call = InferenceCall(context, self._warm_up_inputs(), self.contract.inputs)
            try:
                await _try(runner, call)
            except RequestError as error:
                raise self._failure("warmup", str(error)) from None
        for name in samples:
            try:
                body = await asyncio.to_thread(_read_sample, name, (self._folder, tree.root))
                call, _ = self._decode(InferenceRequest.from_json(body))
                await _try(runner, call)
            except (RequestError, OSError, ValueError) as error:
                raise self._failure("warmup", f'sample "{name}": {error}') from None

    def _warm_up_inputs(self) -> dict[str, Array]:
        examples = self.definition.input_examples
        sizes = {name: each.size for name, each in self.contract.axis_sizes(examples).items()}
        zeros = {s.name: _zeros(s, sizes) for s in self.contract.inputs.values()}
        for array in zeros.values():
            array.setflags(write=False)
        return {**zeros, **examples}

    async def _new_runner(self, spec: HandlerSpec, context: Context) -> Runner:
        """Makes a runner for this process if the definition allows it, else for workers."""
        serving = self.definition.serving
        isolated = serving.isolation == "process" or (
            serving.isolation == "auto" and bool(unmet_needs(self.definition))
        )
        runner: Runner
        if isolated:
            runner = await self._new_worker_runner(spec)
        else:
            if serving.for_processes:
                logger.warning(
                    'function "%s" runs in the server\'s process, where serving.%s does not count: '
                    "set serving.isolation to process",
                    self.model_name, ", serving.".join(serving.for_processes),
                )  # fmt: skip
            runner = InProcessRunner(spec, self.contract, serving, context)
        if serving.batch is None:
            return runner
        from .batching import BatchingRunner

        slots = serving.concurrency * (serving.workers if isolated else 1)
        return BatchingRunner(runner, self.contract, serving, serving.batch, slots, self._metrics)

    async def _new_worker_runner(self, spec: HandlerSpec) -> Runner:
        from .workers.pool import WorkerRunner

        try:
            locked = lock.read(self._folder)
            resolved = locked.resolved if locked else None
            environment = await asyncio.to_thread(
                provide, self.definition, self.model_name, resolved or ()
            )
        except (PyFuncError, OSError) as error:
            raise self._failure("environment", str(error)) from None
        self._metrics.set_environment_seconds(environment.seconds)
        return WorkerRunner(spec, self.contract, self.definition.serving, environment.python)

    def _new_spec(self, tree: SourceTree) -> HandlerSpec:
        definition, source = self.definition, self.definition.source
        return HandlerSpec(
            model_name=self.model_name,
            model_version=self.model_version,
            handler=source.handler,
            init_function=source.init_function,
            unload_function=source.unload_function,
            init_parameters={**definition.init_parameters, **init_parameters()},
            inputs=list(self.contract.inputs.values()),
            outputs=list(self.contract.outputs.values()),
            source_dir=tree.root,
            default_module=tree.module,
            inline=tree.inline,
            definition=definition.model_dump(mode="json"),
            concurrency=definition.serving.concurrency,
            memory_limit=definition.serving.memory_limit,
            lenient=definition.contract.lenient,
            dialect=definition.dialect,
            project=definition.project,
        )

    def _failure(self, phase: str, cause: str) -> LoadError:
        return LoadError(self.model_name, phase, cause)

    def _loaded(self) -> Runner:
        if self._runner is None:
            raise limits.not_loaded(self.model_name)
        return self._runner


def _selected(answer: Answer, requested: Sequence[str]) -> Answer:
    if not requested:
        return answer
    by_name = {named.spec.name: named for named in answer.arrays}
    chosen = [by_name[name] for name in requested if name in by_name]
    return Answer(chosen, answer.parameters)


async def _try(runner: Runner, call: InferenceCall) -> None:
    """Makes a call, of a stream as far as its first item."""
    if not runner.streams:
        await runner.answer(call)
        return
    items = runner.items(call)
    try:
        async for _ in items:
            break
    finally:
        await items.aclose()


def _read_sample(name: str, folders: Sequence[Path]) -> Any:
    """Reads a request from the first folder that has the file.

    Raises:
        FileNotFoundError: None has it.
        ValueError: It is not JSON.
    """
    for folder in folders:
        if (folder / name).is_file():
            try:
                return json.loads((folder / name).read_bytes())
            except ValueError as error:
                raise ValueError(f"not JSON: {error}") from None
    listed = " or ".join(str(folder) for folder in dict.fromkeys(folders))
    raise FileNotFoundError(f"no such file in {listed}")


def _described(definition: FunctionDefinition) -> dict[str, str]:
    labels = ", ".join(definition.labels)
    found = {"description": definition.description, "labels": labels, "project": definition.project}
    return {key: text for key, text in found.items() if text}


def _zeros(spec: TensorSpec, sizes: Mapping[str, int]) -> Array:
    shape = smallest_shape(spec, sizes)
    if not spec.datatype.is_bytes:
        return np.zeros(shape, dtype=spec.datatype.dtype)
    return np.full(shape, "" if spec.text else b"", dtype=object)
