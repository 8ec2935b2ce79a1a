"""A loaded function: from its definition to its answers, without a server."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any

from mlserver_pyfunc.definition import FunctionDefinition, examples_of
from mlserver_pyfunc.definition.derived import completed
from mlserver_pyfunc.environments.environment import provide, unmet_needs, with_needs
from mlserver_pyfunc.errors import ContractError, LoadError, PyFuncError, RequestError
from mlserver_pyfunc.handler.call import InferenceCall
from mlserver_pyfunc.handler.context import Context
from mlserver_pyfunc.handler.loading import HandlerSpec
from mlserver_pyfunc.handler.metrics import Metrics
from mlserver_pyfunc.protocol.contract import ARROW, Contract, Report
from mlserver_pyfunc.protocol.request import InferenceRequest, pandas_column
from mlserver_pyfunc.protocol.types import TensorError
from mlserver_pyfunc.settings import init_parameters, log_setting
from mlserver_pyfunc.sources import SourceTree, lock

from . import limits, tracing
from .batching import Batcher, obstacles
from .in_process import InProcessRunner
from .metrics import CONTRACT_WARNINGS, ENVIRONMENT_SECONDS, GONE, FunctionMetrics, metrics_of
from .payload_events import PayloadEvents
from .runner import Answer, Runner, logger


class Function:
    """One function, from `load` to `close`. All methods are for one event loop's thread.

    A relative source starts in the folder. `provenance` is empty until the source is fetched. After
    the load, the definition has the tensors that only the handler's signature tells, too.
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
        self.contract = Contract(
            model_name,
            [tensor.spec for tensor in definition.inputs],
            [tensor.spec for tensor in definition.outputs],
            definition.contract.lenient,
            _breach_log(self._metrics),
        )
        self._context: Any = None
        self.runner: Runner | None = None
        self._batcher: Batcher | None = None
        self._events: PayloadEvents | None = None
        self._closing = False

    @property
    def ready(self) -> bool:
        return self.runner is not None and self.runner.ready

    @property
    def streams(self) -> bool:
        return self.runner is not None and self.runner.handler.streams

    @property
    def accepts_calls(self) -> bool:
        """Whether the function is loaded, and not being unloaded.

        Also true while no slot is free, and in a crash loop: the error then names the reason. If
        it were false, MLServer would answer 400, as if the client had made a mistake.
        """
        return self.runner is not None and not self._closing

    @property
    def metadata(self) -> Mapping[str, str]:
        runner = self.runner.metadata if self.runner else {}
        return {**_described(self.definition), **self.provenance, **runner}

    async def load(self) -> None:
        """Fetches and imports the source, runs the init function, binds the handler, warms up.

        Raises a LoadError, and leaves nothing loaded then. The traceback of user code that fails
        goes to the log.
        """
        definition = self.definition
        is_checked = definition.contract.responses == "enforce"
        if is_checked and "outputs" in definition.written and not definition.outputs:
            raise self._failure("definition", "outputs: expected at least one tensor, got none")
        with self._phase("fetch"):
            tree = await asyncio.to_thread(lock.fetch_locked, definition, self._folder)
        with self._phase("environment"):
            self.definition = definition = with_needs(definition, tree)
        if definition.serving.isolation == "none" and (unmet := unmet_needs(definition)):
            raise self._failure("environment", "; ".join(unmet))
        self.provenance = tree.provenance.as_parameters()
        with self._phase("definition"):
            spec = self._new_spec(tree)
        counted = self._metrics.of_handler
        metrics = Metrics(counted.apply, counted.taken)
        context = self._context = spec.new_context(logger, metrics)
        tracing.start()
        if tracing.active is not None:
            context.tracer = tracing.active.tracer
        runner = await self._new_runner(spec, context, tree)
        await runner.load()
        self.runner = runner
        serving = definition.serving
        workers = 1 if isinstance(runner, InProcessRunner) else serving.workers
        slots = workers * serving.concurrency
        self._metrics.set_slots(slots * (serving.batch.max_size if serving.batch else 1))
        try:
            with self._phase("definition"):
                if log_setting("URL"):
                    self._events = PayloadEvents(self.model_name, self.model_version, self._metrics)
                self.definition = completed(definition, runner.handler.derived)
            self.contract.add(*runner.handler.derived.specs)
            if serving.batch is not None:
                if found := obstacles(self.contract, runner.handler):
                    raise self._failure("bind", f"serving.batch: {'; '.join(found)}")
                self._batcher = Batcher(
                    runner, self.model_name, serving, serving.batch, slots, self._metrics
                )
            if serving.warmup:
                await self._warm_up(runner, tree)
        except LoadError:
            await self.close()
            raise

    async def infer(self, request: Any) -> Answer:
        """Answers an inference request of the host, which has the attributes of the protocol's."""
        with _Counted(self, request) as counted:
            runner = self._loaded()
            if runner.handler.streams:
                raise ContractError(
                    f'model "{self.model_name}" streams its answers: '
                    "call infer_stream or generate_stream (REST) or ModelStreamInfer (gRPC)"
                )
            call, requested, log = self._begin(request, counted, runner)
            with counted.deadline or tracing.OFF:
                answer = await (self._batcher or runner).answer(call)
            return self._asked_for(answer, requested, request, log)

    async def stream(self, request: Any) -> AsyncGenerator[Answer, None]:
        """Answers one inference request item by item. A handler that does not stream gives one."""
        with _Counted(self, request) as counted:
            runner, trace = self._loaded(), counted.trace
            longest = self.definition.serving.stream_timeout
            call, requested, log = self._begin(request, counted, runner, longest)
            async with aclosing(self._items(runner, call)) as answers:
                while True:
                    with counted.deadline or tracing.OFF:
                        answer = await anext(answers, None)
                    if answer is None:
                        return
                    if trace:
                        trace.span.add_event("first item")
                        trace = None
                    yield self._asked_for(answer, requested, request, log)

    async def _items(self, runner: Runner, call: InferenceCall) -> AsyncGenerator[Answer, None]:
        if not runner.handler.streams:
            yield await (self._batcher or runner).answer(call)
            return
        async with aclosing(runner.items(call)) as items:
            async for item in items:
                yield item

    async def close(self) -> None:
        self._closing = True
        for part in (self._batcher, self.runner, self._events):
            if part is not None:
                await part.close()

    def _begin(
        self, request: Any, counted: _Counted, runner: Runner, longest: float | None = None
    ) -> tuple[InferenceCall, list[str], Any]:
        """Decodes a request, and begins its limit and events. The last adds that of an answer."""
        try:
            call, requested = self._decode(request, counted.trace)
        except RequestError:
            if self._events is not None:
                call = InferenceCall(self._context, {}, {}, request)
                call.trace = counted.trace
                self._events.request(call, request.inputs)
            raise
        taken = runner.handler.required_fields
        counted.deadline = limits.deadline_of(request, call, taken, longest)
        return call, requested, self._events and self._events.request(call)

    def _decode(self, request: Any, trace: Any = None) -> tuple[InferenceCall, list[str]]:
        contract = self.contract
        try:
            inputs = contract.decode_inputs(request.inputs)
        except ContractError:
            if getattr(request.parameters, "content_type", None) != "pd":
                raise
            given = [pandas_column(contract.inputs.get(x.name), x) for x in request.inputs]
            inputs = contract.decode_inputs(given)
        requested: list[str] = []
        if request.outputs:
            requested = contract.requested_outputs(output.name for output in request.outputs)
        specs = contract.input_specs(inputs)
        call = InferenceCall(self._context, inputs, specs, request)
        if trace:
            call.trace = trace
            trace.below("decode", start=trace.began).end()
        return call, requested

    def _asked_for(self, answer: Answer, requested: list[str], request: Any, log: Any) -> Answer:
        """Returns the outputs that a request asks for, in one table if it asks for that."""
        if requested:
            by_name = {named.spec.name: named for named in answer.arrays}
            chosen = [by_name[name] for name in requested if name in by_name]
            answer = Answer(chosen, answer.parameters)
        if log:  # The names that are redacted are not those of a table.
            log(answer)
        asked = request.parameters and getattr(request.parameters, "output_content_type", None)
        if asked != ARROW:
            return answer
        try:
            from mlserver_pyfunc.protocol.arrow import table

            return Answer([table(answer.arrays)], {**answer.parameters, "content_type": ARROW})
        except TensorError as error:
            raise ContractError(f'outputs of model "{self.model_name}": {error}') from None

    async def _warm_up(self, runner: Runner, tree: SourceTree) -> None:
        for name in self.definition.serving.samples or [""]:
            try:
                if name:
                    body = await asyncio.to_thread(_read_sample, name, (self._folder, tree.root))
                else:
                    body = {"inputs": examples_of(self.definition.inputs)}
                call, _ = self._decode(InferenceRequest.from_json(body))
                async with aclosing(self._items(runner, call)) as items:
                    await anext(items, None)  # of a stream, the first item
            except (RequestError, OSError, ValueError) as error:
                cause = f'sample "{name}": {error}' if name else str(error)
                raise self._failure("warmup", cause) from None

    async def _new_runner(self, spec: HandlerSpec, context: Context, tree: SourceTree) -> Runner:
        serving = self.definition.serving
        if serving.isolation == "process" or (
            serving.isolation == "auto" and unmet_needs(self.definition)
        ):
            return await self._new_worker_runner(spec, tree)
        if serving.for_processes:
            logger.warning(
                'function "%s" runs in the server\'s process, where serving.%s does not count: '
                "set serving.isolation to process",
                self.model_name, ", serving.".join(serving.for_processes),
            )  # fmt: skip
        return InProcessRunner(spec, self.contract, serving, context)

    async def _new_worker_runner(self, spec: HandlerSpec, tree: SourceTree) -> Runner:
        from .workers.pool import WorkerRunner

        with self._phase("environment"):
            locked = lock.read(self._folder)
            resolved = (locked.resolved if locked else None) or ()
            environment = await asyncio.to_thread(
                provide, self.definition, self.model_name, resolved
            )
        self._metrics.set(ENVIRONMENT_SECONDS, environment.seconds)
        serving = self.definition.serving
        return WorkerRunner(spec, self.contract, serving, environment.python, tree)

    def _new_spec(self, tree: SourceTree) -> HandlerSpec:
        definition = self.definition
        return HandlerSpec(
            model_name=self.model_name,
            model_version=self.model_version,
            definition=definition.model_dump(mode="json"),
            written=list(definition.written),
            init_parameters={**definition.init_parameters, **init_parameters()},
            source_dir=tree.root,
            default_module=tree.module,
            inline=tree.inline,
            model=tree.model,
            kind=tree.kind,
        )

    @contextmanager
    def _phase(self, phase: str) -> Iterator[None]:
        """Makes each error in a phase of the load one of that phase."""
        try:
            yield
        except (PyFuncError, OSError) as error:
            raise self._failure(phase, str(error)) from None

    def _failure(self, phase: str, cause: str) -> LoadError:
        return LoadError(self.model_name, phase, cause)

    def _loaded(self) -> Runner:
        if self.runner is None or self._closing:
            raise limits.not_loaded(self.model_name)
        return self.runner


def _breach_log(metrics: FunctionMetrics) -> Report:
    logged: set[tuple[str, str]] = set()

    def add(kind: str, tensor: str, message: str) -> None:
        metrics.count(CONTRACT_WARNINGS, kind)
        if (kind, tensor) not in logged:
            logged.add((kind, tensor))
            side = kind.partition("_")[0]
            logger.warning(
                "%s; let through by contract.%ss: warn. More of this kind are only counted, in "
                "pyfunc_contract_warnings_total",
                message, side,
            )  # fmt: skip

    return add


class _Counted:
    """Counts a request with its duration and status. Faster than a generator's context manager."""

    deadline: limits.Deadline | None = None
    trace: Any = None
    _owns_trace = False

    def __init__(self, function: Function, request: Any) -> None:
        self._metrics, self._model = function._metrics, function.model_name
        self._request = request

    def __enter__(self) -> _Counted:
        if tracing.active is not None:
            self.trace = getattr(self._request, "trace", None)
            if self.trace is None:  # the host has not begun its span
                headers = getattr(self._request.parameters, "headers", None) or {}
                begun = tracing.active.request("infer", headers.items(), self._model)
                self.trace, self._owns_trace = begun.__enter__(), True
        self._started = time.perf_counter()
        self._metrics.in_flight += 1
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        self._metrics.in_flight -= 1
        if error is None:
            status = 200
        elif isinstance(error, RequestError):
            status = error.status
        else:
            is_gone = isinstance(error, (asyncio.CancelledError, GeneratorExit))
            status = GONE if is_gone else 500
        self._metrics.count_request(time.perf_counter() - self._started, status, self.deadline)
        if self.trace and (error is not None or self._owns_trace):
            self.trace.end(error, status)


def _read_sample(name: str, folders: Sequence[Path]) -> Any:
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
