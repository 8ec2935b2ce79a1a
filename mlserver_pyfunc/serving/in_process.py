"""Runs a function's handler in the server's process."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any

from mlserver_pyfunc.definition import ServingDefinition
from mlserver_pyfunc.errors import BindError, LoadError, OverloadedError, RequestError
from mlserver_pyfunc.handler.binding import CallPlan
from mlserver_pyfunc.handler.call import InferenceCall, handler_error, printable_id, request_id
from mlserver_pyfunc.handler.context import Context
from mlserver_pyfunc.handler.loading import HandlerLoader, HandlerSpec, cause_of
from mlserver_pyfunc.handler.outcome import Outcome, outcome_in_task
from mlserver_pyfunc.handler.results import name_values
from mlserver_pyfunc.protocol.contract import AxisSizes, Contract

from . import limits
from .executor import Executor
from .metrics import metrics_of
from .runner import Answer, HandlerInfo, drain, logger


class InProcessRunner:
    """Runs a function in the server's process, off the event loop. Implements `Runner`."""

    def __init__(
        self, spec: HandlerSpec, contract: Contract, serving: ServingDefinition, context: Context
    ) -> None:
        self.handler = HandlerInfo()
        self._contract = contract
        self._model_name = contract.model_name
        self._loader = HandlerLoader(spec, context)
        self._executor = Executor(
            self._model_name, serving.concurrency, serving.max_queue, serving.timeout
        )
        self._metrics = metrics_of(spec.model_name, spec.model_version)
        self._init_timeout = serving.init_timeout
        self._phase = "import"
        self.plan: CallPlan | None = None

    @property
    def ready(self) -> bool:
        return self.plan is not None and self._executor.has_slot

    @property
    def metadata(self) -> Mapping[str, str]:
        return {"isolation": "none"}

    async def load(self) -> None:
        try:
            await asyncio.wait_for(self._load(), self._init_timeout)
        except BaseException as error:
            self._discard()
            if isinstance(error, asyncio.TimeoutError):
                cause = limits.over_init_limit(self._init_timeout)
                raise LoadError(self._model_name, self._phase, cause) from None
            raise

    async def answer(self, call: InferenceCall) -> Answer:
        plan = self._require_plan()
        request_id.set(call.label)
        # Before the call: a handler may change its dictionary of inputs.
        sizes = self._contract.axis_sizes(call.inputs)
        wait = self._metrics.enter_queue(call.trace) if self._executor.is_full else None

        def start() -> Any:
            if wait is not None:
                wait.end()
            result = plan(call)
            if inspect.isawaitable(result):
                return self._checked_awaited(result, sizes)
            return self._checked(result, sizes)

        try:
            if plan.kind == "async":
                outcome: Outcome[Any] = await self._executor.run_async(start)
            else:
                outcome = await self._executor.run(start)
                if inspect.iscoroutine(coroutine := outcome.value):
                    outcome = await self._executor.run_async(lambda: coroutine)
            answer: Answer = self._value(outcome, call)
            if call.trace:
                call.trace.leave()
            return answer
        except BaseException as error:
            call.cancel(error)
            raise
        finally:
            if wait is not None:
                wait.end()

    async def items(self, call: InferenceCall) -> AsyncGenerator[Answer, None]:
        plan = self._require_plan()
        request_id.set(call.label)
        sizes = self._contract.axis_sizes(call.inputs)
        is_async, executor = plan.kind == "async generator", self._executor
        stream = executor.stream_async if is_async else executor.stream
        try:
            async with aclosing(stream(lambda: plan(call))) as outcomes:
                async for outcome in outcomes:
                    yield self._checked(self._value(outcome, call), sizes)
            if call.trace:
                call.trace.leave()
        except BaseException as error:
            call.cancel(error)
            raise

    async def close(self) -> None:
        self.plan, plan = None, self.plan
        if plan is None:
            return
        await drain(self._executor.active, self._model_name)
        if self._loader.unload is not None:
            await self._unload(self._loader.unload)
        self._discard()

    async def _unload(self, function: Callable[[], Any]) -> None:
        seconds = limits.UNLOAD_SECONDS
        try:
            outcome = await asyncio.wait_for(self._run_user_code(function), seconds)
        except asyncio.TimeoutError:
            logger.warning(
                'function "%s": unload_function still runs after %g s, unloading all the same',
                self._model_name, seconds,
            )  # fmt: skip
            return
        if outcome.error is not None:
            logger.error(
                'function "%s": unload_function failed', self._model_name, exc_info=outcome.error
            )

    async def _load(self) -> None:
        for phase, step in self._loader.load_steps():
            self._phase = phase
            error = (await self._run_user_code(step)).error
            if error is None:
                continue
            if not isinstance(error, BindError):
                logger.error('function "%s": %s failed', self._model_name, phase, exc_info=error)
            raise LoadError(self._model_name, phase, cause_of(error))
        self.plan = plan = self._loader.plan
        assert plan is not None
        self.handler = HandlerInfo(plan.kind, plan.required_fields, derived=self._loader.derived)

    async def _run_user_code(self, function: Callable[[], Any]) -> Outcome[Any]:
        """Calls a function on the handler's thread, and awaits its result if that is awaitable."""
        outcome: Outcome[Any] = await self._executor.run(function, limited=False)
        if not inspect.isawaitable(outcome.value):
            return outcome
        awaitable = outcome.value
        return await outcome_in_task(lambda: awaitable)

    def _discard(self) -> None:
        self.plan = None
        self._executor.close()
        self._loader.close()

    def _require_plan(self) -> CallPlan:
        if self.plan is None:
            raise limits.not_loaded(self._model_name)
        if not self._executor.has_slot:
            raise OverloadedError(
                f'model "{self._model_name}" is at its limit: calls past their time limit '
                "(serving.timeout) still run, on every thread that it has (serving.concurrency)"
            )
        return self.plan

    def _checked(self, result: Any, sizes: AxisSizes) -> Answer:
        named = name_values(self._contract, result)
        return Answer(self._contract.encode_outputs(named.values, sizes), named.parameters)

    async def _checked_awaited(self, result: Awaitable[Any], sizes: AxisSizes) -> Answer:
        return self._checked(await result, sizes)

    def _value(self, outcome: Outcome[Any], call: InferenceCall) -> Any:
        error = outcome.error
        if error is None:
            return outcome.value
        if isinstance(error, RequestError):
            raise error
        shown = printable_id(call.label)
        request = f" (request {shown})" if shown else ""
        logger.error('handler of model "%s" failed%s', self._model_name, request, exc_info=error)
        raise handler_error(self._model_name, error, call.label) from error
