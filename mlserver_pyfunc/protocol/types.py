"""What all code about tensors shares. Needs only NumPy and the standard library."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from typing import Any, TypeAlias

from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Shape: TypeAlias = Sequence[int]


class TensorError(ValueError):
    """A value that is not a tensor of its datatype: what was expected and what came."""

    def __init__(self, expected: str, got: str, note: str = "") -> None:
        super().__init__(f"expected {expected}, got {got}" + (f" ({note})" if note else ""))
        self.expected, self.got = expected, got


_SHOWN_CHARS = 40

# Whatever a client sends or a handler returns can be shown: huge, deep or with a broken repr.
_REPR = reprlib.Repr()
_REPR.maxlevel = 10
_REPR.maxlist = _REPR.maxtuple = _REPR.maxdict = _REPR.maxset = _SHOWN_CHARS // 3
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 4 * _SHOWN_CHARS


def short_repr(value: Any) -> str:
    """A value as an error message has it: short, and named as JSON does."""
    try:
        text = _REPR.repr(value)
    except Exception:  # more digits than Python prints
        text = f"a value of type {type(value).__name__}"
    if value is None:
        text = "null"
    elif isinstance(value, bool):
        text = str(value).lower()
    return text if len(text) <= _SHOWN_CHARS else f"{text[: _SHOWN_CHARS - 3]}..."


def short_repr_at(element: Any, index: int) -> str:
    """Formats a tensor's element and its position for an error message."""
    return f"{short_repr(element)} at index {index}"
