"""The tensor contract: checks that requests and responses match the declared tensors.

REST and gRPC share these checks and their error messages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlserver_pyfunc.errors import ContractError, ResponseError

from . import bytes_tensors, casting, tensors
from .datatypes import datatype_of
from .limits import Limits
from .tensors import Array, Datatype, RawTensor, TensorError

if TYPE_CHECKING:
    from .request import RequestInput


@dataclass(frozen=True)
class TensorSpec:
    """A declared tensor.

    Attributes:
        name: Name in requests and responses.
        datatype: Row of `DATATYPES`.
        shape: One size per axis; -1 admits any size.
        axes: Name of each axis, or None; names stand for -1. Empty if no axis has a name.
        optional: Whether a request or a result may omit the tensor.
        text: Whether handlers get BYTES elements as `str` instead of `bytes`.
        undeclared: Whether the tensor breaks the contract and is let through as it is.
        limits: What each element must be, besides of the datatype; None without any.
    """

    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    optional: bool = False
    text: bool = False
    axes: tuple[str | None, ...] = ()
    undeclared: bool = False
    limits: Limits | None = None

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

    @property
    def keys(self) -> dict[str, Any]:
        """The tensor's keys in a definition, from which `of` makes it again."""
        axes = self.axes or (None,) * len(self.shape)
        return {
            "name": self.name,
            "datatype": self.datatype.name,
            "nullable": self.datatype.nullable,
            "shape": [name or size for name, size in zip(axes, self.shape, strict=True)],
            "optional": self.optional,
            "content_type": "str" if self.text else None,
            **(vars(self.limits) if self.limits else {}),
        }

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
    """A checked output tensor: `array` has the datatype and shape that `spec` declares."""

    spec: TensorSpec
    array: Array


@dataclass(frozen=True, slots=True)
class AxisSize:
    """The size of a named axis, and the first tensor that has it."""

    size: int
    where: str


Report = Callable[[str, str, str], None]
"""Gets each breach that is let through: its kind, the declared tensor or "", and its text."""

AxisSizes = Mapping[str, AxisSize]
NO_SIZES: AxisSizes = {}


class Contract:
    """The declared tensors of a function, and the checks against them.

    Responses list the outputs in their order here.

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

    lenient: frozenset[str] = frozenset()
    """Which of `requests` and `responses` only warn."""
    report: Report = staticmethod(lambda *_: None)

    def __init__(
        self, model_name: str, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
    ) -> None:
        self.model_name = model_name
        self._declare(inputs, outputs)

    def add(self, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> None:
        """Declares further tensors, which the handler's signature told when it was loaded."""
        if inputs or outputs:
            self._declare([*self.inputs.values(), *inputs], [*self.outputs.values(), *outputs])

    def _declare(self, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> None:
        self.inputs = {spec.name: spec for spec in inputs}
        self.outputs = {spec.name: spec for spec in outputs}
        self._required = [spec.name for spec in inputs if not spec.optional]
        names = [name for spec in (*inputs, *outputs) for name in spec.axes]
        shared = {name for name in names if name is not None and names.count(name) > 1}
        self._input_axes = _axes(inputs, shared)
        self._output_axes = _axes(outputs, shared)

    def decode_inputs(self, request_inputs: Iterable[RequestInput]) -> dict[str, Array]:
        """Checks and decodes the input tensors of a request.

        Raises:
            ContractError: A tensor is unknown, missing or given twice, or does not match its
                declaration.
        """
        arrays: dict[str, Array] = {}
        for tensor in request_inputs:
            spec = self.inputs.get(tensor.name)
            if spec is None:
                raise self._unknown("input", tensor.name, self.inputs)
            if tensor.name in arrays:
                raise ContractError(
                    f"{self._where('input', tensor.name)}: expected once, got it twice"
                )
            try:
                arrays[tensor.name] = decode(spec, tensor)
            except TensorError as error:
                raise ContractError(f"{self._where('input', tensor.name)}: {error}") from None
        for name in self._required:
            if name not in arrays:
                raise ContractError(
                    f"{self._where('input', name)}: missing from the request, "
                    f"which has {_names(arrays)}"
                )
        if self._input_axes:
            self.axis_sizes(arrays)
        return arrays

    def axis_sizes(self, arrays: Mapping[str, Array]) -> AxisSizes:
        """Returns the sizes of the named axes of a request, for `encode_outputs`.

        Raises:
            ContractError: Two axes of one name have different sizes.
        """
        if not self._input_axes:
            return NO_SIZES
        sizes: dict[str, AxisSize] = {}
        if problem := self._mismatch("input", self._input_axes, arrays, sizes):
            raise ContractError(problem)
        return sizes

    def input_specs(self, arrays: Mapping[str, Array]) -> Mapping[str, TensorSpec]:
        """Returns the specifications of the arrays that `decode_inputs` returned."""
        return self.inputs

    def requested_outputs(self, names: Iterable[str]) -> list[str]:
        """Checks the names of the outputs that a request asks for.

        Raises:
            ContractError: A name is not declared, or is requested twice.
        """
        requested: list[str] = []
        for name in names:
            if name not in self.outputs:
                raise self._unknown("output", name, self.outputs)
            if name in requested:
                raise ContractError(f"{self._where('output', name)}: requested twice")
            requested.append(name)
        return requested

    def encode_outputs(
        self, values: Mapping[str, Any], sizes: AxisSizes = NO_SIZES
    ) -> list[NamedArray]:
        """Checks a handler's result and casts it to the declared datatypes.

        Raises:
            ResponseError: An output is unknown or missing, or does not match its declaration.
        """
        for name in values:
            if name not in self.outputs:
                raise ResponseError(
                    f"{self._where('output', name)}: the handler returned it, "
                    f"but the definition declares {_names(self.outputs)}"
                )
        checked = []
        for name, spec in self.outputs.items():
            value = values.get(name)
            if value is None:
                if spec.optional:
                    continue
                raise ResponseError(
                    f"{self._where('output', name)}: the handler returned no value for it"
                )
            try:
                checked.append(NamedArray(spec, fit(spec, value)))
            except TensorError as error:
                raise ResponseError(f"{self._where('output', name)}: {error}") from None
        if self._output_axes:
            arrays = {named.spec.name: named.array for named in checked}
            if problem := self._mismatch("output", self._output_axes, arrays, dict(sizes)):
                raise ResponseError(problem)
        return checked

    def _mismatch(
        self,
        kind: str,
        axes: Sequence[tuple[str, int, str]],
        arrays: Mapping[str, Array],
        sizes: dict[str, AxisSize],
    ) -> str:
        """Describes the first axis that has not the size of its name. Adds new names to `sizes`."""
        for tensor, axis, name in axes:
            if tensor not in arrays:
                continue
            size = arrays[tensor].shape[axis]
            first = sizes.setdefault(name, AxisSize(size, f'{kind} "{tensor}"'))
            if first.size != size:
                return (
                    f'{self._where(kind, tensor)}: axis "{name}": '
                    f"expected {first.size} as in {first.where}, got {size}"
                )
        return ""

    def _where(self, kind: str, name: str) -> str:
        return f'{kind} "{name}" of model "{self.model_name}"'

    def _unknown(self, kind: str, name: str, known: Mapping[str, Any]) -> ContractError:
        return ContractError(f"{self._where(kind, name)}: unknown, expected {_names(known)}")


def _axes(specs: Iterable[TensorSpec], names: set[str]) -> list[tuple[str, int, str]]:
    return [
        (spec.name, axis, name)
        for spec in specs
        for axis, name in enumerate(spec.axes)
        if name in names
    ]


def decode(spec: TensorSpec, tensor: RequestInput) -> Array:
    """Checks and decodes one input tensor, to a read-only array.

    Raises:
        TensorError: The tensor does not match its declaration.
    """
    if tensor.datatype != spec.datatype.name:
        raise TensorError(f"datatype {spec.datatype.name}", str(tensor.datatype))
    shape = tensor.shape
    if not spec.admits(shape):
        note = "a size is 0 or more" if min(shape, default=0) < 0 else ""
        raise TensorError(f"shape {list(spec.shape)}", str(list(shape)), note)
    data = getattr(tensor.data, "root", tensor.data)
    if type(data) is list:
        array = tensors.from_list(spec.datatype, data, shape, is_base64=_is_base64(spec, tensor))
    elif isinstance(data, RawTensor):
        array = tensors.from_raw(spec.datatype, data, shape)
    else:
        array = tensors.from_other(spec.datatype, data, shape, is_base64=_is_base64(spec, tensor))
    if spec.text:
        array = bytes_tensors.decode_text(array)
    if spec.limits is not None:
        spec.limits.check(array)
    # A view of the request cannot be written to, so neither can any other input.
    array.setflags(write=False)
    return array


def _is_base64(spec: TensorSpec, tensor: RequestInput) -> bool:
    return (
        spec.datatype.is_bytes
        and tensor.parameters is not None
        and getattr(tensor.parameters, "content_type", None) == "base64"
    )


def fit(spec: TensorSpec, value: Any) -> Array:
    """Casts a handler's value to the datatype of a specification, and checks its shape.

    Raises:
        TensorError: The value does not match the specification.
    """
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


def _names(names: Iterable[str]) -> str:
    listed = ", ".join(f'"{name}"' for name in names)
    return listed or "none"
