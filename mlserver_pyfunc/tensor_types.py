"""What all code about tensors shares. Needs only NumPy and the standard library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Shape: TypeAlias = Sequence[int]


class TensorError(ValueError):
    """A value that is not a tensor of its datatype: what was expected and what came."""

    def __init__(self, expected: str, got: str, note: str = "") -> None:
        super().__init__(f"expected {expected}, got {got}" + (f" ({note})" if note else ""))


def shown(value: Any) -> str:
    """A value as an error message has it: short, and named as JSON does."""
    text = repr(value)
    if value is None:
        text = "null"
    elif isinstance(value, bool):
        text = str(value).lower()
    return text if len(text) <= 40 else f"{text[:37]}..."
