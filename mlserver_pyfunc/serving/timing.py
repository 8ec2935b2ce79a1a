"""Measures where the time of a call goes, without changes to the function's own code."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from mlserver_pyfunc.definition.folder import FunctionFolder
from mlserver_pyfunc.protocol.contract import NO_SIZES, AxisSizes, NamedArray
from mlserver_pyfunc.protocol.request import RequestInput
from mlserver_pyfunc.protocol.tensors import Array

from .in_process import InProcessRunner
from .local import LocalFunction

PHASES = ("decode", "queue", "handler", "check", "encode")


class TimedFunction(LocalFunction):
    """A local function that measures each phase of each call.

    `seconds` has the durations by phase, one for each call. `decode`: the request is checked and
    decoded. `queue`: the call waits for a thread. `handler`: the handler runs. `check`: its result
    is cast and checked. `encode`: the answer is written as JSON; the caller adds it.
    """

    def __init__(self, folder: FunctionFolder) -> None:
        super().__init__(folder)
        self.seconds: dict[str, list[float]] = {phase: [] for phase in PHASES}
        self._decoded = self._began = 0.0
        contract, runner = self.contract, self.function.runner
        self._decode_inputs, self._encode_outputs = contract.decode_inputs, contract.encode_outputs
        vars(contract).update(decode_inputs=self._decode, encode_outputs=self._check)
        # The handler of a worker cannot be measured from here.
        if isinstance(runner, InProcessRunner) and runner.plan is not None:
            self._handler = runner.plan.function
            runner.plan = replace(runner.plan, function=self._begin)

    def add(self, phase: str, seconds: float) -> None:
        """Adds the duration of a phase in seconds."""
        self.seconds[phase].append(seconds)

    def _decode(self, request_inputs: Iterable[RequestInput]) -> dict[str, Array]:
        started = time.perf_counter()
        inputs = self._decode_inputs(request_inputs)
        self._decoded = time.perf_counter()
        self.add("decode", self._decoded - started)
        return inputs

    def _begin(self, *args: Any, **keywords: Any) -> Any:
        self._began = time.perf_counter()
        return self._handler(*args, **keywords)

    def _check(self, values: Mapping[str, Any], sizes: AxisSizes = NO_SIZES) -> list[NamedArray]:
        ended = time.perf_counter()
        checked = self._encode_outputs(values, sizes)
        self.add("queue", self._began - self._decoded)
        self.add("handler", ended - self._began)
        self.add("check", time.perf_counter() - ended)
        return checked
