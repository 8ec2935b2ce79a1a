"""Types and error texts that all code about tensors shares."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Shape: TypeAlias = Sequence[int]


class TensorError(ValueError):
    """A value does not fit a tensor. The message says what was expected and what was given."""

    def __init__(self, expected: str, got: str, note: str = "") -> None:
        super().__init__(f"expected {expected}, got {got}" + (f" ({note})" if note else ""))
        self.expected, self.got = expected, got


_MAX_REPR_CHARS = 40
_MAX_NAMES = 20
ADMITS_NULL = "nullable: true, or | None in an annotation, admits null"

# `repr` is not safe for values that clients send or handlers return: they may be huge, nested
# a thousand levels deep, or have a `__repr__` that raises. reprlib bounds all three.
_REPR = reprlib.Repr()
_REPR.maxlevel = 10
_REPR.maxlist = _REPR.maxtuple = _REPR.maxdict = _REPR.maxset = _MAX_REPR_CHARS // 3
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 4 * _MAX_REPR_CHARS


def short_repr(value: Any) -> str:
    """Formats a value for an error message: short, with JSON's names for null and booleans."""
    try:
        text = _REPR.repr(value)
    except Exception:
        # An integer may have more digits than Python converts (sys.set_int_max_str_digits).
        text = f"a value of type {type(value).__name__}"
    if value is None:
        text = "null"
    elif isinstance(value, bool):
        text = str(value).lower()
    return text if len(text) <= _MAX_REPR_CHARS else f"{text[: _MAX_REPR_CHARS - 3]}..."


def misfit(expected: str, element: Any, index: int, null: str = ADMITS_NULL) -> TensorError:
    """Returns the error of an element and its position. `null` is its note if that is null."""
    note = null if element is None else ""
    return TensorError(expected, f"{short_repr(element)} at index {index}", note)


def listed(names: Iterable[str]) -> str:
    """Returns names in quotes, the first 20 of them, or `none`."""
    quoted = [f'"{name}"' for name in names]
    more = [f"{len(quoted) - _MAX_NAMES} more"] if len(quoted) > _MAX_NAMES else []
    return ", ".join(quoted[:_MAX_NAMES] + more) or "none"
