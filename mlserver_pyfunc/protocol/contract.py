"""What a request and a response must look like, and every error about it.

The same checks serve REST and gRPC: they see names, shapes and wire values only.
Needs only NumPy and the standard library.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlserver_pyfunc.errors import ContractError, ResponseError

from . import bytes_tensors, casting, tensors
from .tensors import Array, Datatype, RawTensor, TensorError

if TYPE_CHECKING:
    from .request import RequestInput


@dataclass(frozen=True)
class TensorSpec:
    """A declared tensor.

    Attributes:
        name: As in requests and responses.
        datatype: Its row of `DATATYPES`.
        shape: One size per axis; -1 admits any.
        optional: A request may leave it out.
        text: BYTES elements are `str` for the handler.
    """

    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    optional: bool = False
    text: bool = False

    def admits(self, shape: Sequence[int]) -> bool:
        """Whether an array of `shape` keeps rank and fixed axes."""
        if len(shape) != len(self.shape):
            return False
        for size, declared in zip(shape, self.shape, strict=True):
            if size < 0 or declared not in (-1, size):
                return False
        return True


@dataclass(slots=True)
class NamedArray:
    """An output tensor, checked: `array` has the datatype and shape that `spec` declares."""

    spec: TensorSpec
    array: Array


class Contract:
    """The tensors a function takes and gives.

    Args:
        model_name: Named in every error.
        inputs: Declared input tensors.
        outputs: Declared output tensors, in the order responses list them.
    """

    def __init__(
        self, model_name: str, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
    ) -> None:
        self.model_name = model_name
        self.inputs = {spec.name: spec for spec in inputs}
        self.outputs = {spec.name: spec for spec in outputs}
        self._required = [spec.name for spec in inputs if not spec.optional]

    def decode_inputs(self, request_inputs: Iterable[RequestInput]) -> dict[str, Array]:
        """Checks a request's tensors and decodes them.

        Returns:
            Arrays of the declared datatypes and the request's shapes, by input name.

        Raises:
            ContractError: A tensor is unknown, missing, duplicate or breaks its declaration.
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
                arrays[tensor.name] = _decode(spec, tensor)
            except TensorError as error:
                raise ContractError(f"{self._where('input', tensor.name)}: {error}") from None
        for name in self._required:
            if name not in arrays:
                raise ContractError(
                    f"{self._where('input', name)}: missing from the request, "
                    f"which has {_names(arrays)}"
                )
        return arrays

    def requested_outputs(self, names: Iterable[str]) -> list[str]:
        """Checks the outputs a request asks for.

        Returns:
            Their names, in the order asked for.

        Raises:
            ContractError: A name is not a declared output, or asked for twice.
        """
        requested: list[str] = []
        for name in names:
            if name not in self.outputs:
                raise self._unknown("output", name, self.outputs)
            if name in requested:
                raise ContractError(f"{self._where('output', name)}: requested twice")
            requested.append(name)
        return requested

    def encode_outputs(self, values: Mapping[str, Any]) -> list[NamedArray]:
        """Checks a handler's result and casts it to the declared datatypes.

        Args:
            values: Anything array-like, by output name.

        Raises:
            ResponseError: An output is unknown, missing or breaks its declaration.
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
                checked.append(NamedArray(spec, _fit(spec, value)))
            except TensorError as error:
                raise ResponseError(f"{self._where('output', name)}: {error}") from None
        return checked

    def _where(self, kind: str, name: str) -> str:
        return f'{kind} "{name}" of model "{self.model_name}"'

    def _unknown(self, kind: str, name: str, known: Mapping[str, Any]) -> ContractError:
        return ContractError(f"{self._where(kind, name)}: unknown, expected {_names(known)}")


def _decode(spec: TensorSpec, tensor: RequestInput) -> Array:
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
    return bytes_tensors.decode_text(array) if spec.text else array


def _is_base64(spec: TensorSpec, tensor: RequestInput) -> bool:
    return (
        spec.datatype.is_bytes
        and tensor.parameters is not None
        and getattr(tensor.parameters, "content_type", None) == "base64"
    )


def _fit(spec: TensorSpec, value: Any) -> Array:
    array = casting.from_value(spec.datatype, value)
    if array.ndim == 0 and len(spec.shape) == 1:
        array = array.reshape(1)
    elif array.shape == (1,) and not spec.shape:
        array = array.reshape(())
    if not spec.admits(array.shape):
        raise TensorError(f"shape {list(spec.shape)}", str(list(array.shape)))
    return array


def _names(names: Iterable[str]) -> str:
    listed = ", ".join(f'"{name}"' for name in names)
    return listed or "none"
