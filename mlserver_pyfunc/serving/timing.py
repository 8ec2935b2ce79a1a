"""Measures where the time of a call goes, without changes to the function's own code."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

from mlserver_pyfunc.definition.folder import FunctionFolder
from mlserver_pyfunc.protocol.contract import NO_SIZES, AxisSizes, Contract, NamedArray
from mlserver_pyfunc.protocol.lenient import LenientContract
from mlserver_pyfunc.protocol.request import RequestInput
from mlserver_pyfunc.protocol.tensors import Array

from .function import Function
from .local import LocalFunction

PHASES = ("decode", "queue", "handler", "check", "encode")


class TimedFunction(LocalFunction):
    """A local function that measures each phase of each call.

    `seconds` has the durations by phase, one for each call. `decode`: the request is checked and
    decoded. `queue`: the call waits for a thread. `handler`: the handler runs. `check`: its result
    is cast and checked. `encode`: the answer is written as JSON; the caller adds it.
    """

    def __init__(self, folder: FunctionFolder) -> None:
        self.seconds: dict[str, list[float]] = {phase: [] for phase in PHASES}
        super().__init__(folder)

    def add(self, phase: str, seconds: float) -> None:
        """Adds the duration of a phase in seconds."""
        self.seconds[phase].append(seconds)

    def _new_function(self, folder: FunctionFolder) -> Function:
        function = super()._new_function(folder)
        function.contract = _TimedContract(self, function.contract)
        return function


class _Inputs(dict[str, Array]):
    """Decoded inputs that note when the handler's thread first reads one."""

    first_read = 0.0

    def _read(self) -> None:
        self.first_read = self.first_read or time.perf_counter()

    def get(self, *args: Any) -> Any:
        self._read()
        return super().get(*args)

    def __contains__(self, key: object) -> bool:
        self._read()
        return super().__contains__(key)

    def __getitem__(self, key: str) -> Array:
        self._read()
        return super().__getitem__(key)


class _TimedContract(LenientContract):
    def __init__(self, timed: TimedFunction, contract: Contract) -> None:
        inputs, outputs = list(contract.inputs.values()), list(contract.outputs.values())
        super().__init__(contract.model_name, inputs, outputs)
        self.lenient, self.report = contract.lenient, contract.report
        self._timed = timed
        self._sent = _Inputs()
        self._decoded = 0.0

    def decode_inputs(self, request_inputs: Iterable[RequestInput]) -> dict[str, Array]:
        started = time.perf_counter()
        self._sent = _Inputs(super().decode_inputs(request_inputs))
        self._decoded = time.perf_counter()
        self._timed.add("decode", self._decoded - started)
        return self._sent

    def encode_outputs(
        self, values: Mapping[str, Any], sizes: AxisSizes = NO_SIZES
    ) -> list[NamedArray]:
        ended = time.perf_counter()
        began = self._sent.first_read or self._decoded
        checked = super().encode_outputs(values, sizes)
        self._timed.add("queue", began - self._decoded)
        self._timed.add("handler", ended - began)
        self._timed.add("check", time.perf_counter() - ended)
        return checked
