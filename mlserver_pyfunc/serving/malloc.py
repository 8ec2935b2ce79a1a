"""Thresholds of glibc's malloc, for the server and for workers."""

from __future__ import annotations

from collections.abc import Mapping

MMAP_THRESHOLD = 32 << 20
"""Freed blocks up to this size are reused. Older glibc refuses more: see `man 3 mallopt`."""

TRIM_THRESHOLD = 128 << 20
"""Amount of free memory from which glibc returns it to the kernel."""


def chosen_setting(environment: Mapping[str, str]) -> str:
    """Returns the variable by which somebody has tuned malloc; empty if nobody has."""
    if "glibc.malloc." in environment.get("GLIBC_TUNABLES", ""):
        return "GLIBC_TUNABLES"
    return next((name for name in environment if name.startswith("MALLOC_")), "")
