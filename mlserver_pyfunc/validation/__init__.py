"""All that can be known of a function without running its code or having its dependencies."""

from __future__ import annotations

from .checks import validate
from .findings import RULES, Finding

__all__ = ["RULES", "Finding", "validate"]
