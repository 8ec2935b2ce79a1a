"""The types of a single value, and how an element of an array becomes one."""

from __future__ import annotations

import datetime
import enum
import io
import re
import sys
from collections import abc
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any, Literal, get_args, get_origin

import numpy as np

from mlserver_pyfunc.protocol.datatypes import BY_DTYPE, DATATYPES
from mlserver_pyfunc.protocol.types import TensorError, short_repr


@dataclass(frozen=True)
class Element:
    """A type of a single value: its datatype, and how an element of an array becomes it."""

    datatype: str
    kinds: str
    make: Callable[[Any], Any] | None = None
    keys: Mapping[str, Any] = field(default_factory=dict)


def _as_str(value: Any) -> str:
    return value if isinstance(value, str) else str(value.decode())


def _as_bytes(value: Any) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value)


TEXT = {"content_type": "str"}


def _as_decimal(value: Any) -> Decimal:
    try:
        return Decimal(_as_str(value))
    except InvalidOperation:
        raise TensorError("a decimal number", short_repr(value)) from None


_SCALARS = {
    bool: Element("BOOL", "b"),
    int: Element("INT64", "iu"),
    float: Element("FP64", "f"),
    str: Element("BYTES", "O", _as_str, TEXT),
    bytes: Element("BYTES", "O", _as_bytes),
    Decimal: Element("BYTES", "O", _as_decimal, {**TEXT, "example": ["12.50"]}),
}


def element_of(base: Any) -> Element | None:
    """Returns the element that a type is; None if it is none."""
    if isinstance(base, abc.Hashable) and base in _SCALARS:
        return _SCALARS[base]
    if get_origin(base) is Literal:
        return _one_of(list(get_args(base)), None)
    if not isinstance(base, type):
        return None
    if issubclass(base, enum.Enum):
        return _one_of([member.value for member in base], base)
    if issubclass(base, datetime.date):
        example = "2025-01-31T12:00:00" if base is datetime.datetime else "2025-01-31"
        return Element("BYTES", "O", _date(base), {**TEXT, "example": [example]})
    if issubclass(base, np.generic) and (name := datatype_name(base)):
        dtype = DATATYPES[name].dtype
        return Element(name, dtype.kind, dtype.type if name != "BYTES" else None)
    if (base.__module__, base.__name__) == ("PIL.Image", "Image"):
        return Element("BYTES", "O", _image)
    return None


def _one_of(values: list[Any], make: Callable[[Any], Any] | None) -> Element | None:
    kinds = set(map(type, values))
    if len(kinds) != 1 or (kind := kinds.pop()) not in (str, int, float):
        return None
    plain = _SCALARS[kind]
    base = plain.make or (lambda value: value)
    both = base if make is None else lambda value: make(base(value))
    return Element(plain.datatype, plain.kinds, both, {**plain.keys, "enum": values})


def _date(kind: Any) -> Callable[[Any], Any]:
    def make(value: Any) -> Any:
        text = _as_str(value)
        if kind is datetime.date:  # Midnight is that date.
            text = re.sub(r"[T ]00:00(:00(\.0+)?)?$", "", text)
        try:
            # Before Python 3.11, fromisoformat does not take Z for UTC.
            return kind.fromisoformat(f"{text[:-1]}+00:00" if text[-1:] in "Zz" else text)
        except ValueError:
            raise TensorError(f"a {kind.__name__} in ISO 8601", short_repr(text)) from None

    return make


def _image(value: Any) -> Any:
    try:
        image = sys.modules["PIL.Image"].open(io.BytesIO(_as_bytes(value)))
        image.load()
    except (OSError, ValueError, SyntaxError) as error:
        raise TensorError("an encoded picture", str(error)[:100]) from None
    return image


def datatype_name(dtype: Any) -> str | None:
    """Returns the datatype of a NumPy dtype; None if it has none."""
    try:
        found = np.dtype(dtype)
    except TypeError:
        return None
    if dtype is None or found.kind in "SU":
        return None if dtype is None else "BYTES"
    return getattr(BY_DTYPE.get(found.newbyteorder("<")), "name", None)
