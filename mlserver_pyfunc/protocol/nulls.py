"""Elements without a value.

A nullable tensor `age` has a companion `age.nulls`: a BOOL tensor of the same shape, true for each
element without a value. The element itself is 0, false or empty then. A companion exists only if
an element has no value. Floats have NaN instead.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .types import Array

NULLS = ".nulls"
"""End of the name of a companion."""


def masked(arrays: Mapping[str, Array], name: str) -> Array:
    """Returns an array by its name: a masked array if some elements have no value."""
    nulls = arrays.get(name + NULLS)
    return arrays[name] if nulls is None else np.ma.MaskedArray(arrays[name], nulls)
