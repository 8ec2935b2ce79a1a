"""Limits of the values of a tensor, beyond those of its datatype."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from .types import Array, misfit


@dataclass(frozen=True)
class Limits:
    """What each element of a tensor must be. The attributes are keys of a definition."""

    enum: tuple[Any, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    exclusive_minimum: float | None = None
    exclusive_maximum: float | None = None

    @classmethod
    def of(cls, tensor: Mapping[str, Any]) -> Limits | None:
        """Returns the limits among the keys of a tensor's definition; None without any."""
        given = {key: tensor[key] for key in LIMITS if tensor.get(key) is not None}
        if "enum" in given:
            given["enum"] = tuple(given["enum"])
        return cls(**given) if given else None

    def check(self, array: Array) -> None:
        """Checks the elements of an array that are not masked, or raises a TensorError."""
        if self.enum:
            # A float of fewer bits is compared with what the datatype makes of 0.1.
            is_float = array.dtype.kind == "f"
            values = array.dtype.type(self.enum).tolist() if is_float else self.enum
            for index, element in enumerate(array.ravel().tolist()):
                if element is not None and _text(element) not in values:
                    allowed = ", ".join(json.dumps(value) for value in self.enum)
                    raise misfit(f"one of {allowed}", _text(element), index)
        for bound, breaks, words in (
            (self.minimum, np.less, "{} or more"),
            (self.maximum, np.greater, "{} or less"),
            (self.exclusive_minimum, np.less_equal, "more than {}"),
            (self.exclusive_maximum, np.greater_equal, "less than {}"),
        ):
            if bound is not None and (wrong := breaks(array, bound).ravel()).any():
                index = int(wrong.argmax())
                expected = f"values of {words.format(bound)}"
                raise misfit(expected, array.ravel()[index].item(), index)

    def nearest(self, value: Any) -> Any:
        """Returns the value if it is within the limits, else one that is, as far as can be."""
        if self.enum:
            return value if value in self.enum else self.enum[0]
        step = 1 if isinstance(value, int) else 0.5
        lows = [self.minimum, _plus(self.exclusive_minimum, step)]
        highs = [self.maximum, _plus(self.exclusive_maximum, -step)]
        low = max((low for low in lows if low is not None), default=value)
        high = min((high for high in highs if high is not None), default=value)
        return type(value)(min(max(value, low), max(high, low)))


LIMITS = tuple(field.name for field in fields(Limits))


def _text(element: Any) -> Any:
    return element.decode(errors="replace") if isinstance(element, bytes) else element


def _plus(bound: float | None, step: float) -> float | None:
    return None if bound is None else bound + step
