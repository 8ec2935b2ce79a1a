"""Runs a function's handler in the server's process."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from mlserver_pyfunc.definition import FunctionDefinition
from mlserver_pyfunc.errors import (
    BindError,
    HandlerError,
    LoadError,
    OverloadedError,
    RequestError,
    describe,
)
from mlserver_pyfunc.handler.binding import CallPlan, bind
from mlserver_pyfunc.handler.call import InferenceCall, printable_id, request_id
from mlserver_pyfunc.handler.context import Context
from mlserver_pyfunc.handler.loader import FunctionPackage
from mlserver_pyfunc.handler.resolver import Resolver
from mlserver_pyfunc.handler.results import name_values
from mlserver_pyfunc.protocol.contract import Contract
from mlserver_pyfunc.sources import SourceTree

from .executor import Executor
from .job import Outcome
from .metrics import Wait, metrics_of
from .runner import UNLOAD_SECONDS, Answer, logger, warn_of_running_calls


class InProcessRunner:
    """Runs a function in the server's process, off the event loop.

    Args:
        definition: The function's.
        contract: Its tensors; names the model in errors.
        tree: Its source.
        context: For user code.
    """

    def __init__(
        self,
        definition: FunctionDefinition,
        contract: Contract,
        tree: SourceTree,
        context: Context,
    ) -> None:
        serving = definition.serving
        self._source = definition.source
        self._contract = contract
        self._model_name = contract.model_name
        self._package = FunctionPackage(self._model_name, tree.root, tree.inline)
        self._resolver = Resolver(self._package.load, tree.module, context)
        self._executor = Executor(
            self._model_name, serving.concurrency, serving.max_queue, serving.timeout
        )
        self._metrics = metrics_of(context.model_name, context.model_version)
        self._init_timeout = serving.init_timeout
        self._plan: CallPlan | None = None
        self._unload: Callable[[], Any] | None = None

    @property
    def ready(self) -> bool:
        return self._plan is not None and self._executor.has_slot

    @property
    def accepts_calls(self) -> bool:
        # Also while no slot is free: MLServer would answer 400, as if the client were wrong.
        return self._plan is not None

    @property
    def metadata(self) -> Mapping[str, str]:
        return {"isolation": "none"}

    @property
    def streams(self) -> bool:
        return self._plan is not None and self._plan.streams

    @property
    def required_fields(self) -> frozenset[str]:
        return self._plan.required_fields if self._plan is not None else frozenset()

    async def load(self) -> None:
        """As `Runner.load`. The traceback of user code is in the log."""
        try:
            await asyncio.wait_for(self._load(), self._init_timeout)
        except asyncio.TimeoutError:
            self._discard()
            limit = f"its limit of {self._init_timeout:g} s (serving.init_timeout)"
            raise LoadError(self._model_name, "init", f"passed {limit}") from None
        except BaseException:
            self._discard()
            raise

    async def answer(self, call: InferenceCall) -> Answer:
        """As `Runner.answer`."""
        plan = self._require_plan()
        request_id.set(call.id)
        if not self._executor.is_full:
            return await self._answer(plan, call)
        wait = self._metrics.enter_queue()
        try:
            return await self._answer(_Begun(plan, wait), call)
        finally:
            wait.end()

    async def _answer(self, plan: CallPlan | _Begun, call: InferenceCall) -> Answer:
        start: Callable[[], Awaitable[Any]]
        if plan.kind == "async":
            start = partial(plan, call)
        else:
            outcome = await self._executor.run(lambda: self._checked_unless_awaitable(plan(call)))
            value = self._value(outcome, call)
            if isinstance(value, Answer):
                return value
            start = partial(_identity, value)
        awaited = await self._executor.run_async(partial(self._checked_awaited, start))
        answer: Answer = self._value(awaited, call)
        return answer

    async def items(self, call: InferenceCall) -> AsyncGenerator[Answer, None]:
        """As `Runner.items`."""
        plan = self._require_plan()
        request_id.set(call.id)
        start = partial(plan, call)
        executor = self._executor
        outcomes = (
            executor.stream_async(start)
            if plan.kind == "async generator"
            else executor.stream(start)
        )
        try:
            async for outcome in outcomes:
                yield self._checked(self._value(outcome, call))
        finally:
            await outcomes.aclose()

    async def close(self) -> None:
        """As `Runner.close`."""
        self._plan, plan = None, self._plan
        if plan is None:
            return
        if not await self._executor.drain(UNLOAD_SECONDS):
            warn_of_running_calls(self._model_name)
        if self._unload is not None:
            with suppress(asyncio.TimeoutError):
                outcome = await asyncio.wait_for(self._call(self._unload), UNLOAD_SECONDS)
                self._log_unload_error(outcome.error)
        self._discard()

    async def _load(self) -> None:
        source, resolver = self._source, self._resolver
        await self._phase("import", lambda: self._package.load(resolver.module_of(source.handler)))
        if source.init_function:
            init = await self._phase("init", partial(resolver.resolve, source.init_function))
            await self._phase("init", partial(resolver.call_with_context, init))
        handler = await self._phase("bind", partial(resolver.resolve, source.handler))
        plan = await self._phase("bind", partial(bind, handler, self._contract.inputs.values()))
        if source.unload_function:
            unload = await self._phase("bind", partial(resolver.resolve, source.unload_function))
            self._unload = partial(resolver.call_with_context, unload)
        self._plan = plan

    async def _phase(self, phase: str, function: Callable[[], Any]) -> Any:
        outcome = await self._call(function)
        error = outcome.error
        if error is None:
            return outcome.value
        if isinstance(error, BindError):
            raise LoadError(self._model_name, phase, str(error))
        logger.error('function "%s": %s failed', self._model_name, phase, exc_info=error)
        raise LoadError(self._model_name, phase, describe(error))

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

    def _log_unload_error(self, error: BaseException | None) -> None:
        if error is not None:
            logger.error('function "%s": unload_function failed', self._model_name, exc_info=error)

    def _discard(self) -> None:
        self._plan = None
        self._executor.close()
        self._package.close()

    def _require_plan(self) -> CallPlan:
        if self._plan is None:
            raise RequestError(f'model "{self._model_name}" is not loaded', 503)
        if not self._executor.has_slot:
            raise OverloadedError(
                f'model "{self._model_name}" is at its limit: calls past their time limit '
                "(serving.timeout) still run, on every thread that it has (serving.concurrency)"
            )
        return self._plan

    def _checked(self, result: Any) -> Answer:
        named = name_values(self._contract, result)
        return Answer(self._contract.encode_outputs(named.values), named.parameters)

    def _checked_unless_awaitable(self, result: Any) -> Any:
        return result if inspect.isawaitable(result) else self._checked(result)

    async def _checked_awaited(self, start: Callable[[], Awaitable[Any]]) -> Answer:
        return self._checked(await start())

    def _value(self, outcome: Outcome[Any], call: InferenceCall) -> Any:
        error = outcome.error
        if error is None:
            return outcome.value
        if isinstance(error, RequestError):
            raise error
        shown = printable_id(call.id)
        request = f" (request {shown})" if shown else ""
        logger.error('handler of model "%s" failed%s', self._model_name, request, exc_info=error)
        raise HandlerError(
            f'handler of model "{self._model_name}" raised {describe(error)}{request}'
        ) from error


class _Begun:
    """A call plan that tells when it is called: the wait for it is over."""

    def __init__(self, plan: CallPlan, wait: Wait) -> None:
        self.kind = plan.kind
        self._plan = plan
        self._wait = wait

    def __call__(self, call: InferenceCall) -> Any:
        self._wait.end()
        return self._plan(call)


def _identity(value: Any) -> Any:
    return value
