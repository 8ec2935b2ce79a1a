"""Runs a function in worker processes, and replaces workers that die."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Coroutine, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mlserver_pyfunc.definition import ServingDefinition
from mlserver_pyfunc.errors import LoadError, SourceError
from mlserver_pyfunc.handler.call import InferenceCall
from mlserver_pyfunc.handler.loading import HandlerSpec
from mlserver_pyfunc.protocol.contract import Contract
from mlserver_pyfunc.serving import tracing
from mlserver_pyfunc.serving.metrics import WORKER_EXITS, metrics_of
from mlserver_pyfunc.serving.runner import Answer, HandlerInfo, drain, logger
from mlserver_pyfunc.sources import SourceTree

from .dispatcher import Dispatcher
from .process import Exit
from .worker import Worker

FIRST_DELAY = 0.1
LONGEST_DELAY = 30.0
"""Seconds before a failed worker is started again: the first delay, which doubles with each
failure, up to the longest."""

STABLE_SECONDS = 10.0
"""A worker that lived longer, or answered a call, is not counted as a failed start."""

CRASH_LOOP = 3
"""Number of failures in a row after which requests no longer wait for a worker."""


@dataclass
class _Slot:
    index: int
    worker: Worker | None = None
    failures: int = 0
    reason: str = ""

    @property
    def delay(self) -> float:
        return min(FIRST_DELAY * 2 ** (self.failures - 1), LONGEST_DELAY) if self.failures else 0

    def failed(self, reason: str) -> None:
        self.worker = None
        self.failures += 1
        self.reason = reason

    def died(self, worker: Worker, exit_: Exit, in_call: bool) -> None:
        lived = worker.served or time.monotonic() - worker.since > STABLE_SECONDS
        if lived or exit_.reason in ("timeout", "cancel"):
            self.failures = -1
        elif in_call:
            self.failures = min(self.failures, CRASH_LOOP - 2)
        self.failed(f"worker {worker.index} {exit_.text}")


class WorkerRunner:
    """Runs a function in `serving.workers` processes. Implements `Runner`."""

    def __init__(
        self,
        spec: HandlerSpec,
        contract: Contract,
        serving: ServingDefinition,
        python: Path,
        source: SourceTree,
    ) -> None:
        self.handler = HandlerInfo()
        self._source = source
        self._serving = serving
        self._model_name = spec.model_name
        self._metrics = metrics_of(spec.model_name, spec.model_version)
        self._dispatcher = Dispatcher(contract, serving, self._metrics)
        counted = self._metrics.of_handler
        load_message = {
            "spec": spec.to_json(),
            "log_level": logger.getEffectiveLevel(),
            "taken_metrics": counted.taken(),
            "traces": tracing.active is not None,
        }
        self._new_worker = partial(
            Worker, spec.model_name, python, load_message, serving.init_timeout, contract.report,
            counted.apply, self._dispatcher.on_message,
        )  # fmt: skip
        self._slots = [_Slot(index) for index in range(serving.workers)]
        self._alive: set[Worker] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._last_exit = ""

    @property
    def ready(self) -> bool:
        return bool(self._dispatcher.workers)

    @property
    def metadata(self) -> Mapping[str, str]:
        metadata = {
            "isolation": "process",
            "workers": f"{len(self._dispatcher.workers)} of {len(self._slots)} up",
        }
        if self.handler.python:
            metadata |= {"python": self.handler.python, "numpy": self.handler.numpy}
        if self._last_exit:
            metadata["last_exit"] = self._last_exit
        if self._dispatcher.refusal:
            metadata["crash_loop"] = self._dispatcher.refusal
        return metadata

    async def load(self) -> None:
        await self._check_source()
        starts = [asyncio.ensure_future(self._start(slot)) for slot in self._slots]
        try:
            workers = await asyncio.gather(*starts)
        except BaseException:
            for start in starts:
                start.cancel()
            await asyncio.gather(*starts, return_exceptions=True)
            await self.close()
            raise
        for slot, worker in zip(self._slots, workers, strict=True):
            self._dispatcher.add(worker)
            self._run(self._supervise(slot))

    async def answer(self, call: InferenceCall) -> Answer:
        pending = self._dispatcher.submit(call)
        try:
            answer = await pending.future
        except asyncio.CancelledError:
            self._dispatcher.leave(pending)
            raise
        assert answer is not None
        return answer

    async def items(self, call: InferenceCall) -> AsyncGenerator[Answer, None]:
        pending = self._dispatcher.submit(call)
        try:
            while (answer := await pending.future) is not None:
                yield answer
                while pending.items:
                    yield pending.items.popleft()
                self._dispatcher.next_item(pending)
        finally:
            self._dispatcher.leave(pending)

    async def close(self) -> None:
        await drain(self._dispatcher.active, self._model_name)
        self._dispatcher.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*(worker.unload() for worker in list(self._alive)))

    async def _supervise(self, slot: _Slot) -> None:
        while True:
            worker = slot.worker
            if worker is None:
                await asyncio.sleep(slot.delay)
                await self._restart(slot)
                continue
            either: set[asyncio.Future[Any]] = {worker.ended, worker.max_requests_reached}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if worker.ended.done():
                continue
            # The old worker serves until the new one is loaded.
            slot.worker = None
            while not await self._restart(slot):
                await asyncio.sleep(slot.delay)
            if not worker.ended.done():
                self._metrics.count(WORKER_EXITS, "max_requests")
            self._dispatcher.remove(worker)
            self._run(self._retire(worker))

    async def _check_source(self) -> None:
        try:
            await asyncio.to_thread(self._source.check_unchanged)
        except (SourceError, OSError) as error:
            raise LoadError(self._model_name, "fetch", str(error)) from None

    async def _restart(self, slot: _Slot) -> bool:
        try:
            await self._check_source()
            self._dispatcher.add(await self._start(slot))
        except (LoadError, OSError) as error:
            self._last_exit = str(error)
            slot.failed(self._last_exit)
            self._metrics.count(WORKER_EXITS, "init")
            logger.error(
                "%s: worker %d cannot be started, next try in %g s: %s",
                self._model_name, slot.index, slot.delay, error,
            )  # fmt: skip
            self._note_crash_loop()
            return False
        logger.info("%s: worker %d is up again", self._model_name, slot.index)
        return True

    async def _start(self, slot: _Slot) -> Worker:
        try:
            devices = self._serving.devices_of(slot.index)
            worker = self._new_worker(slot.index, self._max_requests(slot), devices)
        except OSError as error:
            cause = f"cannot start a worker process: {error}"
            raise LoadError(self._model_name, "start", cause) from None
        self._alive.add(worker)
        worker.ended.add_done_callback(lambda _: self._alive.discard(worker))
        self.handler = self._dispatcher.handler_info = await worker.load()
        slot.worker = worker
        worker.ended.add_done_callback(lambda ended: self._on_exit(slot, worker, ended.result()))
        return worker

    def _max_requests(self, slot: _Slot) -> int | None:
        limit = self._serving.max_requests
        if limit is None:
            return None
        # Workers of later slots are replaced earlier, so that not all are replaced at once.
        return max(limit - limit * slot.index // (2 * len(self._slots)), 1)

    async def _retire(self, worker: Worker) -> None:
        while worker.calls and not worker.ended.done():
            await asyncio.wait({worker.ended}, timeout=0.05)
        await worker.unload()

    def _on_exit(self, slot: _Slot, worker: Worker, exit_: Exit) -> None:
        in_call = bool(worker.calls)
        self._dispatcher.on_exit(worker, exit_)
        if worker.unloading:
            return
        self._last_exit = f"worker {worker.index} {exit_.text}"
        logger.error("%s: worker %d %s", self._model_name, worker.index, exit_.text)
        self._metrics.count(WORKER_EXITS, exit_.reason)
        if slot.worker is worker:  # else it reached `max_requests`, and the next one starts
            slot.died(worker, exit_, in_call)
            self._note_crash_loop()

    def _note_crash_loop(self) -> None:
        if self._dispatcher.workers or any(s.failures < CRASH_LOOP for s in self._slots):
            return
        slot = max(self._slots, key=lambda slot: slot.failures)
        self._dispatcher.refuse(f"{slot.reason}, {slot.failures} times in a row")

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
