"""The tensor contract: checks that requests and responses match the declared tensors.

REST and gRPC share these checks and their error messages.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mlserver_pyfunc.errors import ContractError, ResponseError

from . import bytes_tensors, casting, tensors
from .datatypes import BY_DTYPE, DATATYPES, datatype_of
from .limits import Limits
from .nulls import NULLS, masked
from .tensors import Array, Datatype, RawTensor, TensorError
from .types import ADMITS_NULL, listed

if TYPE_CHECKING:
    from .request import RequestInput


@dataclass(frozen=True)
class TensorSpec:
    """A declared tensor."""

    name: str  # in requests and responses
    datatype: Datatype  # row of `DATATYPES`
    shape: tuple[int, ...]  # one size per axis; -1 admits any size
    optional: bool = False  # whether a request or a result may omit the tensor
    text: bool = False  # whether handlers get BYTES elements as `str` instead of `bytes`
    axes: tuple[str | None, ...] = ()  # name or None of each, names stand for -1; empty if all None
    undeclared: bool = False  # whether it breaks the contract and is let through as it is
    limits: Limits | None = None  # what each element must be, besides of the datatype
    is_nulls: bool = False  # whether it is the companion of a tensor, and tells its null elements

    @property
    def companion(self) -> TensorSpec | None:
        """The tensor that tells which elements are null, if some may be; floats have NaN."""
        if not self.datatype.nullable or self.datatype.dtype.kind == "f":
            return None
        name = self.name + NULLS
        return TensorSpec(name, DATATYPES["BOOL"], self.shape, optional=True, is_nulls=True)

    @classmethod
    def of(cls, tensor: Mapping[str, Any]) -> TensorSpec:
        """Makes the specification of a tensor from its keys in a definition."""
        names = tuple(size if isinstance(size, str) else None for size in tensor["shape"])
        return cls(
            name=tensor["name"],
            datatype=datatype_of(tensor["datatype"], nullable=tensor.get("nullable", False)),
            shape=tuple(size if isinstance(size, int) else -1 for size in tensor["shape"]),
            axes=names if any(names) else (),
            optional=tensor.get("optional", False),
            text=tensor.get("content_type") == "str",
            limits=Limits.of(tensor),
        )

    def admits(self, shape: Sequence[int]) -> bool:
        """Returns whether a shape has the declared rank and fixed sizes."""
        if len(shape) != len(self.shape):
            return False
        for size, declared in zip(shape, self.shape, strict=True):
            if size < 0 or declared not in (-1, size):
                return False
        return True


@dataclass(slots=True)
class NamedArray:
    """A checked tensor, as `spec` declares it. `nulls` tells which elements are null, if any."""

    spec: TensorSpec
    array: Array
    nulls: Array | None = None

    @classmethod
    def of(cls, spec: TensorSpec, array: Array) -> NamedArray:
        """Makes one of an array whose null elements are masked."""
        if type(array) is np.ndarray:
            return cls(spec, array)
        nulls = np.ma.getmaskarray(array)
        return cls(spec, np.asarray(array), nulls if nulls.any() else None)

    @property
    def masked(self) -> Array:
        """The array, with its null elements masked."""
        return self.array if self.nulls is None else np.ma.MaskedArray(self.array, self.nulls)


def companions(named: Iterable[NamedArray]) -> list[NamedArray]:
    """Returns the tensors that tell the null elements of others, if they have some."""
    return [
        NamedArray(spec, each.nulls)
        for each in named
        if each.nulls is not None and (spec := each.spec.companion)
    ]


Report = Callable[[str, str, str], None]
"""Gets each breach that is let through: its kind, the declared tensor or "", and its text."""

AxisSizes = Mapping[str, tuple[int, str]]
"""The size of each named axis, and the first tensor that has it."""
NO_SIZES: AxisSizes = {}
ARROW = "application/vnd.apache.arrow.stream"
"""Content type of a tensor that has a whole table, and of an answer that has one."""


class Contract:
    """The declared tensors of a function, and the checks against them.

    Responses list the outputs in their order here. `lenient` has those of `requests` and
    `responses` that only warn: what breaks the contract there is reported, and let through as it
    is. What cannot be a tensor is an error all the same: an unknown datatype, data that do not fit
    their own shape, a value that no tensor of its datatype can hold. A lenient side that declares
    no tensors has no breaches.

    Examples:
        >>> from mlserver_pyfunc.protocol.request import RequestInput
        >>> from mlserver_pyfunc.protocol.tensors import DATATYPES
        >>> pairs = TensorSpec("x", DATATYPES["FP32"], (-1, 2))
        >>> counts = TensorSpec("n", DATATYPES["INT64"], (1,))
        >>> contract = Contract("iris", inputs=[pairs], outputs=[counts])
        >>> contract.decode_inputs([RequestInput("x", "FP32", [1, 2], [1, 2.5])])
        {'x': array([[1. , 2.5]], dtype=float32)}
        >>> contract.decode_inputs([RequestInput("x", "FP32", [2], [1, 2.5])])
        Traceback (most recent call last):
        mlserver_pyfunc.errors.ContractError: input "x" of model "iris":
        expected shape [-1, 2], got [2]
        >>> contract.encode_outputs({"n": 3})[0].array
        array([3])
    """

    def __init__(
        self,
        model_name: str,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        lenient: Collection[str] = (),
        report: Report = lambda *_: None,
    ) -> None:
        self.model_name = model_name
        self.lenient = frozenset(lenient)
        self.report = report
        self._declare(inputs, outputs)

    def add(self, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> None:
        """Declares further tensors, which the handler's signature told when it was loaded."""
        if inputs or outputs:
            self._declare([*self.inputs.values(), *inputs], [*self.outputs.values(), *outputs])

    def _declare(self, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> None:
        self.inputs, self._nullable_inputs, self.all_inputs = _by_name(inputs)
        self.outputs, self._nullable_outputs, self.all_outputs = _by_name(outputs)
        self._required = [spec.name for spec in inputs if not spec.optional]
        names = [name for spec in (*inputs, *outputs) for name in spec.axes]
        shared = {name for name in names if name is not None and names.count(name) > 1}
        self._input_axes = _axes(inputs, shared)
        self._output_axes = _axes(outputs, shared)

    def decode_inputs(self, request_inputs: Sequence[RequestInput]) -> dict[str, Array]:
        """Checks and decodes the input tensors of a request, or raises a ContractError."""
        arrays: dict[str, Array] = {}
        for tensor in request_inputs:
            name, spec = tensor.name, self.all_inputs.get(tensor.name)
            if name in arrays:
                raise ContractError(f"{self._where('input', name)}: expected once, got it twice")
            problem = ""
            try:
                if spec is not None:
                    arrays[name] = decode(spec, tensor)
                elif getattr(tensor.parameters, "content_type", None) == ARROW:
                    from .arrow import columns

                    others = [each for each in request_inputs if each is not tensor]
                    return self.decode_inputs([*others, *columns(tensor, self.inputs)])
                else:
                    problem = f"unknown, expected {listed(self.inputs)}"
                    if name.endswith(NULLS) and name.removesuffix(NULLS) in self.inputs:
                        problem += f" ({ADMITS_NULL})"
            except TensorError as error:
                problem = str(error)
            if problem:
                arrays[name] = self._decode_as_sent(tensor, problem)
        for name in self._required:
            if name not in arrays:
                where = self._where("input", name)
                text = f"{where}: missing from the request, which has {listed(arrays)}"
                self._breach("request_missing", name, text)
        for spec in self._nullable_inputs.values():
            self._join_nulls(spec, arrays)
        if self._input_axes:
            problem = self._mismatch("input", self._input_axes, self._fitting(arrays), {})
            if problem:
                self._breach("request_axes", "", problem)
        return arrays

    def _join_nulls(self, spec: TensorSpec, arrays: dict[str, Array]) -> None:
        """Joins the nulls in the data of an input with those of its companion.

        The companion is there afterwards if there are some. Only now are the limits checked.
        """
        name, companion = spec.name, spec.name + NULLS
        array, nulls = arrays.get(name), arrays.pop(companion, None)
        if nulls is not None and (array is None or array.shape != nulls.shape):
            expected = f'"{name}" beside it' if array is None else f"shape {list(array.shape)}"
            text = f"{self._where('input', companion)}: expected {expected}"
            self._breach("request_shape", name, f"{text}, got {list(nulls.shape)}")
            nulls = None
        if array is None:
            return
        if nulls is not None:
            array = np.ma.MaskedArray(array, nulls)
        try:
            if spec.limits is not None:
                spec.limits.check(array)
        except TensorError as error:
            self._breach("request_value", name, f"{self._where('input', name)}: {error}")
        joined = NamedArray.of(spec, array)
        arrays[name] = joined.array
        if joined.nulls is not None:
            joined.nulls.setflags(write=False)
            arrays[companion] = joined.nulls

    def _decode_as_sent(self, tensor: RequestInput, problem: str) -> Array:
        """Decodes an input that breaks the contract with the datatype and shape that it has."""
        where, declared = self._where("input", tensor.name), self.inputs.get(tensor.name)
        if "requests" not in self.lenient:
            raise ContractError(f"{where}: {problem}")
        try:
            kind, own = _own_spec(tensor, declared)
            array = decode(own, tensor)
        except TensorError as error:
            raise ContractError(f"{where}: {error}") from None
        self._breach(f"request_{kind}", declared.name if declared else "", f"{where}: {problem}")
        return array

    def axis_sizes(self, arrays: Mapping[str, Array]) -> AxisSizes:
        """Returns the sizes of a request's named axes, or raises a ContractError if they differ."""
        if not self._input_axes:
            return NO_SIZES
        sizes: dict[str, tuple[int, str]] = {}
        problem = self._mismatch("input", self._input_axes, self._fitting(arrays), sizes)
        if problem and "requests" not in self.lenient:
            raise ContractError(problem)
        return sizes

    def input_specs(self, arrays: Mapping[str, Array]) -> Mapping[str, TensorSpec]:
        """Returns the specifications of the arrays that `decode_inputs` returned."""
        if "requests" not in self.lenient:
            return self.all_inputs
        fitting = self._fitting(arrays)
        return {
            name: self.all_inputs[name]
            if name in fitting
            else _undeclared(name, BY_DTYPE[array.dtype], array.shape, self.inputs.get(name))
            for name, array in arrays.items()
        }

    def _fitting(self, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        if "requests" not in self.lenient:
            return arrays
        return {
            name: array
            for name, array in arrays.items()
            if (spec := self.all_inputs.get(name)) is not None
            and spec.datatype.dtype == array.dtype
            and spec.admits(array.shape)
        }

    def requested_outputs(self, names: Iterable[str]) -> list[str]:
        """Checks the names of the outputs that a request asks for, or raises a ContractError."""
        if "requests" in self.lenient or (self.lenient and not self.outputs):
            return list(dict.fromkeys(names))
        requested: list[str] = []
        for name in names:
            where = self._where("output", name)
            if name not in self.all_outputs:
                raise ContractError(f"{where}: unknown, expected {listed(self.outputs)}")
            if name in requested:
                raise ContractError(f"{where}: requested twice")
            requested.append(name)
        return requested

    def encode_outputs(
        self, values: Mapping[str, Any], sizes: AxisSizes = NO_SIZES
    ) -> list[NamedArray]:
        """Checks and casts what a handler returned, or raises a ResponseError."""
        further = [name for name in values if name not in self.all_outputs]
        for name in further:
            text = (
                f"{self._where('output', name)}: the handler returned it, "
                f"but the definition declares {listed(self.outputs)}"
            )
            self._breach("response_unknown", "", text)
        checked = []
        for name, spec in self.outputs.items():
            value = values.get(name)
            if name in self._nullable_outputs and name in values:
                value = [None] if value is None and not spec.optional else masked(values, name)
            if value is not None:
                checked.append(self._fit(spec, value))
            elif not spec.optional:
                text = f"{self._where('output', name)}: the handler returned no value for it"
                self._breach("response_missing", name, text)
        given = {name: values[name] for name in further if values[name] is not None}
        checked += [self._encode_as_given(name, value) for name, value in given.items()]
        if self._output_axes:
            arrays = {each.spec.name: each.array for each in checked if not each.spec.undeclared}
            if problem := self._mismatch("output", self._output_axes, arrays, dict(sizes)):
                self._breach("response_axes", "", problem)
        return checked

    def _fit(self, declared: TensorSpec, value: Any) -> NamedArray:
        name = declared.name
        try:
            array = _said(declared, value) if isinstance(value, NamedArray) else value
            make = NamedArray.of if name in self._nullable_outputs else NamedArray
            return make(declared, fit(declared, array))
        except TensorError as error:
            text = f"{self._where('output', name)}: {error}"
        if "responses" not in self.lenient:
            raise ResponseError(text)
        given = self._encode_as_given(name, value)
        is_other = given.spec.datatype.name != declared.datatype.name
        self.report(f"response_{'datatype' if is_other else 'shape'}", name, text)
        return given

    def _encode_as_given(self, name: str, value: Any) -> NamedArray:
        """Makes an output that breaks the contract, of the declared datatype if that fits."""
        declared = self.outputs.get(name)
        try:
            datatype, array = _as_tensor(declared, value)
        except TensorError as error:
            raise ResponseError(f"{self._where('output', name)}: {error}") from None
        return NamedArray.of(_undeclared(name, datatype, array.shape, declared), array)

    def _breach(self, kind: str, tensor: str, text: str) -> None:
        """Raises the error of a breach, or reports it if its side of the contract only warns."""
        side, declared, error = (
            ("requests", self.inputs, ContractError)
            if kind.startswith("request")
            else ("responses", self.outputs, ResponseError)
        )
        if side not in self.lenient:
            raise error(text)
        if declared:
            self.report(kind, tensor, text)

    def _mismatch(
        self,
        kind: str,
        axes: Sequence[tuple[str, int, str]],
        arrays: Mapping[str, Array],
        sizes: dict[str, tuple[int, str]],
    ) -> str:
        """Describes the first axis that has not the size of its name. Adds new names to `sizes`."""
        for tensor, axis, name in axes:
            if tensor not in arrays:
                continue
            size = arrays[tensor].shape[axis]
            first, where = sizes.setdefault(name, (size, f'{kind} "{tensor}"'))
            if first != size:
                text = f'axis "{name}": expected {first} as in {where}, got {size}'
                return f"{self._where(kind, tensor)}: {text}"
        return ""

    def _where(self, kind: str, name: str) -> str:
        return f'{kind} "{name}" of model "{self.model_name}"'


def _own_spec(tensor: RequestInput, declared: TensorSpec | None) -> tuple[str, TensorSpec]:
    """Returns what of an input breaks the contract, and the specification that it keeps."""
    datatype, shape = DATATYPES.get(tensor.datatype), tuple(tensor.shape)
    if datatype is None:
        raise TensorError(f"a datatype of {', '.join(DATATYPES)}", str(tensor.datatype))
    if min(shape, default=0) < 0:
        raise TensorError("sizes of 0 or more", str(list(shape)))
    own = _undeclared(tensor.name, datatype, shape, declared)
    if declared is None:
        return "unknown", own
    if datatype.name != declared.datatype.name:
        return "datatype", own
    if not declared.admits(shape):
        return "shape", own
    return "value", replace(declared, limits=None)


def _undeclared(
    name: str, datatype: Datatype, shape: tuple[int, ...], declared: TensorSpec | None
) -> TensorSpec:
    text = datatype.is_bytes and declared is not None and declared.text
    return TensorSpec(name, datatype, shape, text=text, undeclared=True)


def _said(declared: TensorSpec, given: NamedArray) -> Array:
    """Returns the array of an output whose handler said datatype and shape, if they are right."""
    said, array = given.spec.shape, given.array
    if said != array.shape:
        raise TensorError(f"{math.prod(said)} elements for shape {list(said)}", str(array.size))
    if given.spec.datatype.name != declared.datatype.name:
        raise TensorError(f"datatype {declared.datatype.name}", given.spec.datatype.name)
    return array


def _as_tensor(declared: TensorSpec | None, value: Any) -> tuple[Datatype, Array]:
    """Makes an array of a value: of the declared datatype if it fits, else of the value's own."""
    if isinstance(value, NamedArray):
        return value.spec.datatype, value.array
    if declared is not None:
        with suppress(TensorError):
            return declared.datatype, casting.from_value(declared.datatype, value)
    datatype = DATATYPES["BYTES"]
    with suppress(ValueError):
        datatype = BY_DTYPE.get(np.asarray(value).dtype.newbyteorder("<"), datatype)
    return datatype, casting.from_value(datatype, value)


def _axes(specs: Iterable[TensorSpec], names: set[str]) -> list[tuple[str, int, str]]:
    return [
        (spec.name, axis, name)
        for spec in specs
        for axis, name in enumerate(spec.axes)
        if name in names
    ]


def decode(spec: TensorSpec, tensor: RequestInput) -> Array:
    """Checks and decodes one input tensor, to a read-only array, or raises a TensorError."""
    if tensor.datatype != spec.datatype.name:
        raise TensorError(f"datatype {spec.datatype.name}", str(tensor.datatype))
    shape = tensor.shape
    if not spec.admits(shape):
        note = "a size is 0 or more" if min(shape, default=0) < 0 else ""
        raise TensorError(f"shape {list(spec.shape)}", str(list(shape)), note)
    data = getattr(tensor.data, "root", tensor.data)
    if isinstance(data, RawTensor):
        array = tensors.from_raw(spec.datatype, data, shape)
    else:
        form = spec.datatype.is_bytes and getattr(tensor.parameters, "content_type", None)
        read = tensors.from_list if type(data) is list else tensors.from_other
        array = read(spec.datatype, data, shape, is_base64=form == "base64")
    if spec.text:
        array = bytes_tensors.decode_text(array)
    if spec.limits is not None:
        spec.limits.check(array)
    # A view of the request cannot be written to, so neither can any other input.
    array.setflags(write=False)
    return array


def fit(spec: TensorSpec, value: Any) -> Array:
    """Casts a handler's value and checks it against a specification, or raises a TensorError."""
    array = casting.from_value(spec.datatype, value)
    if array.ndim == 0 and len(spec.shape) == 1:
        array = array.reshape(1)
    elif array.shape == (1,) and not spec.shape:
        array = array.reshape(())
    if not spec.admits(array.shape):
        raise TensorError(f"shape {list(spec.shape)}", str(list(array.shape)))
    if spec.limits is not None:
        spec.limits.check(array)
    return array


def _by_name(specs: Iterable[TensorSpec]) -> tuple[dict[str, TensorSpec], ...]:
    """Returns tensors by name, those that may have nulls, and all tensors with the companions.

    Among all, those that may have nulls are without limits, which do not hold for nulls.
    """
    given = {spec.name: spec for spec in specs}
    nullable = {name: spec for name, spec in given.items() if spec.companion}
    companions = {each.name: each for spec in nullable.values() if (each := spec.companion)}
    own = {name: spec for name, spec in given.items() if name not in companions}
    unlimited = {name: replace(spec, limits=None) for name, spec in nullable.items()}
    return own, nullable, {**own, **unlimited, **companions}
