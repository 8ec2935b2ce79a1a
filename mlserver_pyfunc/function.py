"""A function from its definition to its answers: the serving path, without a server."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from . import sources
from .context import Context, InferenceCall
from .contract import Contract, NamedArray, TensorSpec
from .definition import FunctionDefinition, TensorDefinition
from .environment import unmet_needs
from .errors import (
    ContractError,
    HandlerError,
    LoadError,
    PyFuncError,
    RequestError,
    describe,
)
from .execution import Executor, Outcome
from .handler import BindError, CallPlan, Resolver, bind
from .loader import FunctionPackage
from .results import name_values
from .sources import SourceTree
from .tensors import DATATYPES, Array

UNLOAD_SECONDS = 10.0
"""How long calls in flight, and then the unload function, may hold up an unload."""

logger = logging.getLogger("mlserver.pyfunc")


@dataclass(frozen=True, slots=True)
class Answer:
    """Checked outputs, in declared order or as asked for, and the response's parameters."""

    arrays: list[NamedArray]
    parameters: Mapping[str, Any]


class Function:
    """A function, from `load` to `close`. All methods are for one event loop's thread.

    Args:
        definition: What to load.
        folder: The definition's folder: relative sources start there.
        model_name: As served.
        model_version: As served; None without one.
    """

    def __init__(
        self,
        definition: FunctionDefinition,
        folder: Path,
        model_name: str,
        model_version: str | None = None,
    ) -> None:
        serving = definition.serving
        self.definition = definition
        self.model_name = model_name
        self.model_version = model_version
        self.contract = Contract(model_name, _specs(definition.inputs), _specs(definition.outputs))
        self.provenance: Mapping[str, str] = {}
        self._folder = folder
        self._executor = Executor(
            model_name, serving.concurrency, serving.max_queue, serving.timeout
        )
        self._context: Context | None = None
        self._package: FunctionPackage | None = None
        self._plan: CallPlan | None = None
        self._unload: Callable[[], Any] | None = None

    @property
    def ready(self) -> bool:
        """Whether a call could run now."""
        return self._plan is not None and self._executor.has_slot

    @property
    def streams(self) -> bool:
        return self._plan is not None and self._plan.streams

    async def load(self) -> None:
        """Fetches, imports, initialises and binds.

        Raises:
            LoadError: Names the function, the phase and the cause. The traceback of user
                code is in the log. Nothing is left loaded.
        """
        try:
            await self._load()
        except BaseException:
            self._discard()
            raise

    async def infer(self, payload: Any) -> Answer:
        """Answers one inference request.

        Args:
            payload: The host's inference request.

        Raises:
            RequestError: With the status to answer.
        """
        plan = self._require_plan()
        if plan.streams:
            raise ContractError(
                f'model "{self.model_name}" streams its answers: '
                "call infer_stream or generate_stream (REST) or ModelStreamInfer (gRPC)"
            )
        call, requested = self._decode(payload)
        return _selected(await self._answer(plan, call), requested)

    async def stream(self, payload: Any) -> AsyncGenerator[Answer, None]:
        """Answers one inference request item by item; a plain handler gives one.

        Raises:
            RequestError: With the status to answer.
        """
        plan = self._require_plan()
        call, requested = self._decode(payload)
        if not plan.streams:
            yield _selected(await self._answer(plan, call), requested)
            return
        items = self._items(plan, call)
        try:
            async for answer in items:
                yield _selected(answer, requested)
        finally:
            await items.aclose()

    async def close(self, drain_seconds: float = UNLOAD_SECONDS) -> None:
        """Waits for calls in flight, runs the unload function, forgets the modules."""
        self._plan, plan = None, self._plan
        if plan is None:
            return
        if not await self._executor.drain(drain_seconds):
            logger.warning(
                'function "%s": calls still run after %g s, unloading all the same',
                self.model_name,
                drain_seconds,
            )
        if self._unload is not None:
            with suppress(asyncio.TimeoutError):
                error = (await asyncio.wait_for(self._call(self._unload), UNLOAD_SECONDS)).error
                if error is not None:
                    logger.error(
                        'function "%s": unload_function: %s',
                        self.model_name,
                        describe(error),
                        exc_info=error,
                    )
        self._discard()

    async def _load(self) -> None:
        definition = self.definition
        if not definition.outputs:
            raise self._failure(
                "definition", "no outputs are declared, expected at least one tensor"
            )
        unmet = unmet_needs(definition)
        if unmet:
            raise self._failure("environment", "; ".join(unmet))
        try:
            tree = await asyncio.to_thread(sources.fetch, definition.source, self._folder)
        except (PyFuncError, OSError) as error:
            raise self._failure("fetch", str(error)) from None
        self.provenance = tree.provenance.as_parameters()
        package = self._package = FunctionPackage(self.model_name, tree.root, tree.inline)
        context = self._context = self._new_context(tree)
        resolver = Resolver(package.load, tree.module, context)
        source = definition.source
        await self._phase("import", lambda: package.load(resolver.module_of(source.handler)))
        if source.init_function:
            init = await self._phase("init", partial(resolver.resolve, source.init_function))
            await self._phase("init", partial(resolver.call_with_context, init))
        handler = await self._phase("bind", partial(resolver.resolve, source.handler))
        plan = await self._phase("bind", partial(bind, handler, self.contract.inputs.values()))
        if source.unload_function:
            unload = await self._phase("bind", partial(resolver.resolve, source.unload_function))
            self._unload = partial(resolver.call_with_context, unload)
        self._plan = plan
        if definition.serving.warmup:
            await self._warm_up(plan)

    def _new_context(self, tree: SourceTree) -> Context:
        return Context(
            logger=logger,
            model_name=self.model_name,
            model_version=self.model_version,
            definition=self.definition.model_dump(mode="json"),
            source_dir=tree.root,
            init_parameters=self.definition.init_parameters,
        )

    async def _call(self, function: Callable[[], Any]) -> Outcome[Any]:
        """Runs user code of load or unload: on the handler's thread, awaited if it asks so."""
        outcome: Outcome[Any] = await self._executor.run(function, limited=False)
        if not inspect.isawaitable(outcome.value):
            return outcome
        try:
            return Outcome(await outcome.value)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            return Outcome(error=error)

    async def _phase(self, phase: str, function: Callable[[], Any]) -> Any:
        outcome = await self._call(function)
        if outcome.error is None:
            return outcome.value
        if isinstance(outcome.error, BindError):
            raise self._failure(phase, str(outcome.error))
        logger.error('function "%s": %s failed', self.model_name, phase, exc_info=outcome.error)
        raise self._failure(phase, describe(outcome.error))

    def _failure(self, phase: str, cause: str) -> LoadError:
        return LoadError(self.model_name, phase, cause)

    async def _warm_up(self, plan: CallPlan) -> None:
        inputs = {spec.name: _zeros(spec) for spec in self.contract.inputs.values()}
        call = InferenceCall(self._require_context(), inputs, self.contract.inputs)
        try:
            if not plan.streams:
                await self._answer(plan, call)
                return
            items = self._items(plan, call)
            async for _ in items:
                break
            await items.aclose()
        except RequestError as error:
            raise self._failure("warmup", str(error)) from None

    def _decode(self, payload: Any) -> tuple[InferenceCall, list[str]]:
        contract = self.contract
        inputs = contract.decode_inputs(payload.inputs)
        requested: list[str] = []
        if payload.outputs:
            requested = contract.requested_outputs(output.name for output in payload.outputs)
        return InferenceCall(self._require_context(), inputs, contract.inputs, payload), requested

    async def _answer(self, plan: CallPlan, call: InferenceCall) -> Answer:
        if plan.kind == "async":
            awaitable = partial(plan, call)
        else:
            outcome = await self._executor.run(lambda: self._checked(plan(call)))
            value = self._value(outcome, call)
            if isinstance(value, Answer):
                return value
            awaitable = partial(lambda waiting: waiting, value)
        answer: Answer = self._value(
            await self._executor.run_async(partial(self._checked_awaited, awaitable)), call
        )
        return answer

    async def _items(self, plan: CallPlan, call: InferenceCall) -> AsyncGenerator[Answer, None]:
        start = partial(plan, call)
        executor = self._executor
        outcomes = (
            executor.stream_async(start)
            if plan.kind == "async generator"
            else executor.stream(start)
        )
        try:
            async for outcome in outcomes:
                yield self._checked_result(self._value(outcome, call))
        finally:
            await outcomes.aclose()

    def _checked(self, result: Any) -> Answer | Awaitable[Any]:
        """Checks a result, but for one that is still to be awaited."""
        return result if inspect.isawaitable(result) else self._checked_result(result)

    async def _checked_awaited(self, start: Callable[[], Awaitable[Any]]) -> Answer:
        return self._checked_result(await start())

    def _checked_result(self, result: Any) -> Answer:
        named = name_values(self.contract, result)
        return Answer(self.contract.encode_outputs(named.values), named.parameters)

    def _value(self, outcome: Outcome[Any], call: InferenceCall) -> Any:
        error = outcome.error
        if error is None:
            return outcome.value
        if isinstance(error, RequestError):
            raise error
        request = f" (request {call.id})" if call.id else ""
        logger.error('handler of model "%s" failed%s', self.model_name, request, exc_info=error)
        raise HandlerError(
            f'handler of model "{self.model_name}" raised {describe(error)}{request}'
        ) from error

    def _require_context(self) -> Context:
        if self._context is None:
            raise RequestError(f'model "{self.model_name}" is not loaded', 503)
        return self._context

    def _discard(self) -> None:
        self._plan = None
        self._executor.close()
        if self._package is not None:
            self._package.close()

    def _require_plan(self) -> CallPlan:
        if self._plan is None:
            raise RequestError(f'model "{self.model_name}" is not loaded', 503)
        return self._plan


def _selected(answer: Answer, requested: Sequence[str]) -> Answer:
    if not requested:
        return answer
    by_name = {named.spec.name: named for named in answer.arrays}
    chosen = [by_name[name] for name in requested if name in by_name]
    return Answer(chosen, answer.parameters)


def _specs(definitions: Sequence[TensorDefinition]) -> list[TensorSpec]:
    return [
        TensorSpec(
            name=tensor.name,
            datatype=DATATYPES[tensor.datatype],
            shape=tuple(tensor.shape),
            optional=tensor.optional,
            text=tensor.content_type == "str",
        )
        for tensor in definitions
    ]


def _zeros(spec: TensorSpec) -> Array:
    shape = tuple(1 if size == -1 else size for size in spec.shape)
    if not spec.datatype.is_bytes:
        return np.zeros(shape, dtype=spec.datatype.dtype)
    return np.full(shape, "" if spec.text else b"", dtype=object)
