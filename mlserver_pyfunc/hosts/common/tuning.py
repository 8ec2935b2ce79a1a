"""What both hosts set for the whole process, and for connections."""

from __future__ import annotations

import ctypes
import gc
import os
import platform

from mlserver_pyfunc import settings

KEEP_ALIVE = 100
"""Seconds that an idle connection stays. Go's clients keep one for 90, KServe's agent too."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_GC_THRESHOLD = 20_000


def raise_malloc_thresholds() -> str:
    """Raises glibc's mmap and trim thresholds so that freed blocks of up to 32 MiB are reused."""
    if platform.libc_ver()[0] != "glibc":
        return "the C library is not glibc"
    if chosen := settings.chosen_malloc(os.environ):
        return f"{chosen} is set"
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(_M_MMAP_THRESHOLD, settings.MALLOC_MMAP_THRESHOLD)
    mallopt(_M_TRIM_THRESHOLD, settings.MALLOC_TRIM_THRESHOLD)
    return ""


def raise_gc_threshold() -> str:
    youngest, *older = gc.get_threshold()
    if not gc.isenabled():
        return "the garbage collector is disabled"
    if youngest not in (700, _GC_THRESHOLD):
        return f"the threshold is set to {youngest}"
    gc.set_threshold(_GC_THRESHOLD, *older)
    return ""
