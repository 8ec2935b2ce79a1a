"""Prices a coffee. Every field of its form is a control of its own."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Le


def price(
    kind: Literal["espresso", "filter", "mocha"],
    to_go: bool,
    sugar: Annotated[float, Ge(0), Le(2)],
    cups: Annotated[int, Ge(1), Le(12)],
    tip: Annotated[int, Ge(0), Le(5)] = 0,
) -> float:
    """Prices a coffee, <b>without</b> tax."""
    base = {"espresso": 2.0, "filter": 2.5, "mocha": 3.5}[kind]
    return cups * (base + sugar / 10) + (0.25 if to_go else 0) + tip
