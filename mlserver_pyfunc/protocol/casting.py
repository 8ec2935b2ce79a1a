"""Conversion of a handler's values to arrays of the declared datatype."""

from __future__ import annotations

import datetime
import enum
import io
import math
import sys
from decimal import Decimal
from typing import Any

import numpy as np

from . import bytes_tensors
from .tensors import Datatype, from_list
from .types import Array, TensorError


def from_value(datatype: Datatype, value: Any) -> Array:
    """Converts a handler's value to an array of a datatype.

    NumPy values are cast if NumPy calls the cast safe or same-kind (`numpy.can_cast`) and each
    value fits. Python values follow the rules of JSON data. Raises a TensorError.
    """
    if type(value) is np.ndarray and value.dtype == datatype.dtype and not datatype.is_bytes:
        return value
    if type(value).__module__ not in _PLAIN:
        value = _plain(value, is_bytes=datatype.is_bytes)
    elif isinstance(value, list) and value and _is_special(value[0]):
        value = [_plain(each, is_bytes=datatype.is_bytes) for each in value]
    # Importing numpy.ma takes time. A value can be masked only if the handler imported it.
    masked = sys.modules.get("numpy.ma")
    if masked is not None and masked.is_masked(value):
        if not datatype.nullable:
            note = "give it a value in the handler, or declare the output nullable: true"
            index = int(np.ravel(masked.getmaskarray(value)).argmax())
            raise TensorError("an array without null", f"null at index {index}", note)
        if datatype.dtype.kind == "f":
            return from_value(datatype, (value * 1.0).filled(math.nan))
        array = from_value(datatype, value.filled("" if datatype.is_bytes else 0))
        return np.ma.MaskedArray(array, value.mask)
    if datatype.is_bytes and datatype.nullable:
        return _from_python(datatype, bytes_tensors.as_objects(value))
    if datatype.is_bytes:
        return bytes_tensors.from_value(value)
    array = _as_array(value)
    if array.dtype == datatype.dtype:
        return array
    has_nan = datatype.nullable and array.dtype.kind == "f" != datatype.dtype.kind
    if array.dtype.kind in "OUSV" or has_nan:  # pandas makes floats of integers with nulls
        return _from_python(datatype, array)
    if not isinstance(value, np.ndarray | np.generic) and not hasattr(value, "__array__"):
        return _from_python(datatype, array)
    return _cast(datatype, array)


_PLAIN = ("builtins", "numpy")
_MISSING = ("NoneType", "NAType", "NaTType")
"""Types of the values that pandas takes for missing ones, beside NaN."""


def _is_special(element: Any) -> bool:
    return element is None or type(element).__module__ not in _PLAIN


def _null_or(element: Any) -> Any:
    is_nan = isinstance(element, float) and math.isnan(element)
    return None if is_nan or type(element).__name__ in _MISSING else element


def _plain(value: Any, *, is_bytes: bool) -> Any:
    """Returns an Enum's member, a PyTorch tensor, a date, a decimal or a picture for a tensor."""
    if isinstance(value, enum.Enum):
        return value.value
    if hasattr(value, "detach"):
        try:
            return value.detach().cpu().numpy()
        except (TypeError, RuntimeError) as error:
            text = str(error)
            lacks_type = "ScalarType" in text  # of bfloat16, which NumPy does not have
            note = "convert it in the handler: .float()" if lacks_type else text
            raise TensorError("a tensor that NumPy takes", f"one of {value.dtype}", note) from None
    if is_bytes and isinstance(value, datetime.date):
        return value.isoformat()
    if is_bytes and isinstance(value, Decimal):
        return str(value)
    if is_bytes and hasattr(value, "save") and hasattr(value, "tobytes"):
        encoded = io.BytesIO()
        value.save(encoded, "PNG")
        return encoded.getvalue()
    return value


def _cast(datatype: Datatype, array: Array) -> Array:
    if not np.can_cast(array.dtype, datatype.dtype, "same_kind"):
        raise TensorError(
            datatype.name,
            f"an array of {array.dtype}",
            f"cast it in the handler: .astype(np.{datatype.dtype.name})",
        )
    with np.errstate(over="ignore"):
        cast = array.astype(datatype.dtype)
    if datatype.dtype.kind in "iu":
        if not datatype.holds(array):
            info = np.iinfo(datatype.dtype)
            misfit = array[(array < info.min) | (array > info.max)].ravel()[0]
            raise TensorError(datatype.elements, str(misfit.item()))
    elif (lost := np.isinf(cast) & np.isfinite(array)).any():
        raise TensorError(datatype.elements, str(array[lost].ravel()[0].item()))
    return cast


def _from_python(datatype: Datatype, array: Array) -> Array:
    elements = array.ravel().tolist()
    if datatype.nullable and datatype.dtype.kind != "f":
        elements = [_null_or(element) for element in elements]
    try:
        return from_list(datatype, elements, array.shape)
    except TensorError as error:
        if not error.got.startswith("null"):
            raise
        got = error.got.replace("null", "None")
        is_float = datatype.dtype.kind == "f"
        note = "return nan for no number" if is_float else "nullable: true admits None"
        raise TensorError(error.expected, got, note) from None


def _as_array(value: Any) -> Array:
    try:
        return np.asarray(value)
    except OverflowError:
        return np.asarray(value, dtype=object)
    except Exception as error:
        raise TensorError("an array", f"{type(value).__name__} ({error})") from None
