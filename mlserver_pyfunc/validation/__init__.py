"""Checks of a function that need neither a run of its code nor its dependencies."""

from __future__ import annotations

from .checks import validate
from .findings import RULES, Finding

__all__ = ["RULES", "Finding", "validate"]
