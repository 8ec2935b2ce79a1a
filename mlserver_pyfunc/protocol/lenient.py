"""A contract whose breaches are reported and let through: `contract: {responses: warn}`.

What cannot be a tensor is an error all the same: an unknown datatype, a request whose data do not
fit their own shape, a value that no tensor of its datatype can hold.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mlserver_pyfunc.errors import ContractError, ResponseError

from . import casting
from .contract import NO_SIZES, AxisSize, AxisSizes, Contract, NamedArray, TensorSpec, decode, fit
from .contract import Report as Report
from .datatypes import DATATYPES, Datatype
from .request import RequestInput
from .types import Array, TensorError

_BY_DTYPE = {datatype.dtype: datatype for datatype in DATATYPES.values()}


def new_contract(
    model_name: str,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    lenient: Collection[str],
    report: Report,
) -> Contract:
    """Makes the contract of a function."""
    if not lenient:
        return Contract(model_name, inputs, outputs)
    contract = LenientContract(model_name, inputs, outputs)
    contract.lenient, contract.report = frozenset(lenient), report
    return contract


class LenientContract(Contract):
    """A contract that reports the breaches of one side or of both, and lets them through.

    A side that declares no tensors has no breaches.
    """

    def decode_inputs(self, request_inputs: Iterable[RequestInput]) -> dict[str, Array]:
        """Decodes the input tensors of a request with the datatypes and shapes that they have.

        Raises:
            ContractError: A tensor is given twice, or its data do not fit its own shape.
        """
        if "requests" not in self.lenient:
            return super().decode_inputs(request_inputs)
        arrays: dict[str, Array] = {}
        for tensor in request_inputs:
            where = self._where("input", tensor.name)
            if tensor.name in arrays:
                raise ContractError(f"{where}: expected once, got it twice")
            try:
                spec = self._spec_of(tensor)
                arrays[tensor.name] = array = decode(replace(spec, limits=None), tensor)
            except TensorError as error:
                raise ContractError(f"{where}: {error}") from None
            try:
                if spec.limits is not None:
                    spec.limits.check(array)
            except TensorError as error:
                self.report("request_value", tensor.name, f"{where}: {error}")
        for name in self._required:
            if name not in arrays:
                where = self._where("input", name)
                self.report("request_missing", name, f"{where}: missing from the request")
        if problem := self._mismatch("input", self._input_axes, self._fitting(arrays), {}):
            self.report("request_axes", "", problem)
        return arrays

    def axis_sizes(self, arrays: Mapping[str, Array]) -> AxisSizes:
        """Returns the sizes of the named axes of a request, for `encode_outputs`."""
        sizes: dict[str, AxisSize] = {}
        self._mismatch("input", self._input_axes, self._fitting(arrays), sizes)
        return sizes

    def input_specs(self, arrays: Mapping[str, Array]) -> Mapping[str, TensorSpec]:
        """Returns the specifications of a request's arrays: the declared ones that fit."""
        if "requests" not in self.lenient:
            return self.inputs
        fitting = self._fitting(arrays)
        return {
            name: self.inputs[name]
            if name in fitting
            else _undeclared(name, _BY_DTYPE[array.dtype], array.shape, self.inputs.get(name))
            for name, array in arrays.items()
        }

    def requested_outputs(self, names: Iterable[str]) -> list[str]:
        """Returns the names of the outputs that a request asks for.

        Raises:
            ContractError: Requests are checked, and a name is not declared or requested twice.
        """
        if "requests" not in self.lenient and self.outputs:
            return super().requested_outputs(names)
        return list(dict.fromkeys(names))

    def encode_outputs(
        self, values: Mapping[str, Any], sizes: AxisSizes = NO_SIZES
    ) -> list[NamedArray]:
        """Makes tensors of a handler's result, of the declared datatypes if they fit.

        Raises:
            ResponseError: A value cannot be a tensor.
        """
        if "responses" not in self.lenient:
            return super().encode_outputs(values, sizes)
        for name, spec in self.outputs.items():
            if values.get(name) is None and not spec.optional:
                where = self._where("output", name)
                self.report("response_missing", name, f"{where}: the handler returned no value")
        names = [name for name in self.outputs if name in values]
        names += [name for name in values if name not in self.outputs]
        sent = []
        for name in names:
            try:
                if (value := values[name]) is not None:
                    sent.append(self._sendable(name, value))
            except TensorError as error:
                raise ResponseError(f"{self._where('output', name)}: {error}") from None
        arrays = {each.spec.name: each.array for each in sent if not each.spec.undeclared}
        if problem := self._mismatch("output", self._output_axes, arrays, dict(sizes)):
            self.report("response_axes", "", problem)
        return sent

    def _spec_of(self, tensor: RequestInput) -> TensorSpec:
        """Returns the declared specification of a request's tensor if it fits, else its own."""
        declared, shape = self.inputs.get(tensor.name), tuple(tensor.shape)
        datatype = DATATYPES.get(tensor.datatype)
        if datatype is None:
            raise TensorError(f"a datatype of {', '.join(DATATYPES)}", str(tensor.datatype))
        if min(shape, default=0) < 0:
            raise TensorError("sizes of 0 or more", str(list(shape)))
        if (
            declared is not None
            and declared.datatype.name == datatype.name
            and declared.admits(shape)
        ):
            return declared
        where = self._where("input", tensor.name)
        if declared is not None:
            self._report_misfit("request", declared, datatype, shape, where)
        elif self.inputs:
            listed = ", ".join(f'"{name}"' for name in self.inputs)
            self.report("request_unknown", "", f"{where}: unknown, expected {listed}")
        return _undeclared(tensor.name, datatype, shape, declared)

    def _fitting(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Returns the arrays of a request that are as declared."""
        return {
            name: array
            for name, array in arrays.items()
            if (spec := self.inputs.get(name)) is not None
            and spec.datatype.dtype == array.dtype
            and spec.admits(array.shape)
        }

    def _sendable(self, name: str, value: Any) -> NamedArray:
        declared, where = self.outputs.get(name), self._where("output", name)
        given = value if isinstance(value, NamedArray) else _as_tensor(name, declared, value)
        datatype, array = given.spec.datatype, given.array
        if declared is None:
            if self.outputs:
                listed = ", ".join(f'"{output}"' for output in self.outputs)
                self.report("response_unknown", "", f"{where}: unknown, expected {listed}")
        elif given.spec.shape == array.shape and datatype.name == declared.datatype.name:
            try:
                return NamedArray(declared, fit(declared, array))
            except TensorError as error:
                self.report("response_shape", name, f"{where}: {error}")
        elif given.spec.shape != array.shape:
            said = given.spec.shape
            elements = f"{math.prod(said)} elements for shape {list(said)}"
            problem = TensorError(elements, str(array.size))
            self.report("response_shape", name, f"{where}: {problem}")
        else:
            self._report_misfit("response", declared, datatype, array.shape, where)
        return NamedArray(_undeclared(name, datatype, array.shape, declared), array)

    def _report_misfit(
        self, side: str, declared: TensorSpec, datatype: Datatype, shape: Sequence[int], where: str
    ) -> None:
        if datatype.name == declared.datatype.name:
            problem = TensorError(f"shape {list(declared.shape)}", str(list(shape)))
            self.report(f"{side}_shape", declared.name, f"{where}: {problem}")
        else:
            problem = TensorError(f"datatype {declared.datatype.name}", datatype.name)
            self.report(f"{side}_datatype", declared.name, f"{where}: {problem}")


def _undeclared(
    name: str, datatype: Datatype, shape: tuple[int, ...], declared: TensorSpec | None
) -> TensorSpec:
    text = datatype.is_bytes and declared is not None and declared.text
    return TensorSpec(name, datatype, shape, text=text, undeclared=True)


def _as_tensor(name: str, declared: TensorSpec | None, value: Any) -> NamedArray:
    """Makes an array of a value: of the declared datatype if it fits, else of the value's own."""
    if declared is not None:
        try:
            array = casting.from_value(declared.datatype, value)
            return NamedArray(_undeclared(name, declared.datatype, array.shape, declared), array)
        except TensorError:
            pass
    try:
        datatype = _BY_DTYPE.get(np.asarray(value).dtype.newbyteorder("<"), DATATYPES["BYTES"])
    except ValueError:
        datatype = DATATYPES["BYTES"]
    array = casting.from_value(datatype, value)
    return NamedArray(_undeclared(name, datatype, array.shape, declared), array)
