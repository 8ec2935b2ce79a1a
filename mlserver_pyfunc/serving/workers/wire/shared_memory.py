"""Shared memory for tensors: one process writes regions, the other reads them in place.

docs/design/worker-protocol.md has the design, and what does not work.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import threading
from bisect import insort
from collections import deque
from collections.abc import Iterable
from typing import Any

import numpy as np

from mlserver_pyfunc.protocol.tensors import Array

SIZE = 2**36
"""Address space of an arena in bytes. Only pages that were written use memory."""

KEPT_BYTES = 64 * 2**20
"""Memory in bytes that an arena keeps for its next tensors. Free memory beyond goes back."""

_PAGE = mmap.PAGESIZE


def create_arena() -> int:
    """Creates the memory and returns its file descriptor. Raises an OSError except on Linux."""
    descriptor = os.memfd_create("mlserver-pyfunc", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(descriptor, SIZE)
        # Sealed: if one side could shrink the memory, the other would get a SIGBUS.
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


class Writer:
    """The writing end: allocates regions, lowest address first. Safe for threads."""

    def __init__(self, descriptor: int) -> None:
        self._map = mmap.mmap(descriptor, SIZE)
        self._lock = threading.Lock()
        self._free: list[tuple[int, int]] = [(0, SIZE)]
        self._used: dict[int, int] = {}
        self.used_bytes = 0

    def allocate(self, size: int) -> int:
        rounded = max(-(-size // _PAGE), 1) * _PAGE
        with self._lock:
            for index, (start, end) in enumerate(self._free):
                if end - start < rounded:
                    continue
                if end - start == rounded:
                    del self._free[index]
                else:
                    self._free[index] = (start + rounded, end)
                self._used[start] = rounded
                self.used_bytes += rounded
                return start
        raise MemoryError(f"tensors of {size} bytes do not fit into {SIZE} bytes of shared memory")

    def view(self, offset: int, size: int) -> Array:
        return np.frombuffer(self._map, dtype=np.uint8, count=size, offset=offset)

    def release(self, offset: int) -> None:
        """Frees a region. A region that is not in use is ignored."""
        with self._lock:
            size = self._used.pop(offset, None)
            if size is None:
                return
            self.used_bytes -= size
        # While the region is neither used nor free: once it is free, another thread may write to
        # it, and removing its pages would set them to zero.
        surplus = max(offset, KEPT_BYTES)
        if offset + size > surplus:
            self._map.madvise(mmap.MADV_REMOVE, surplus, offset + size - surplus)
        with self._lock:
            insort(self._free, (offset, offset + size))
            self._join(self._free.index((offset, offset + size)))

    def _join(self, index: int) -> None:
        free = self._free
        if index + 1 < len(free) and free[index][1] == free[index + 1][0]:
            free[index : index + 2] = [(free[index][0], free[index + 1][1])]
        if index and free[index - 1][1] == free[index][0]:
            free[index - 1 : index + 1] = [(free[index - 1][0], free[index][1])]


class Reader:
    """The reading end: reads regions, and notes which ones are released."""

    def __init__(self, descriptor: int) -> None:
        self._map = mmap.mmap(descriptor, SIZE, prot=mmap.PROT_READ)
        self._address = np.frombuffer(self._map, dtype=np.uint8).ctypes.data
        self._released: deque[int] = deque()

    def read(self, offset: int, size: int) -> memoryview:
        """Returns the read-only bytes of a region. They stay the same while anything holds them."""
        if not 0 <= offset <= offset + size <= SIZE:
            raise ValueError(f"region of {size} bytes at {offset} is outside the shared memory")
        return np.asarray(_Lease(self, offset, size)).data

    def take_released(self) -> list[int]:
        return [self._released.popleft() for _ in range(len(self._released))]

    def restore_released(self, offsets: Iterable[int]) -> None:
        self._released.extend(offsets)


class _Lease:
    """Owns the memory of a region's arrays. Ends with the last array on the region."""

    __slots__ = ("__array_interface__", "_offset", "_reader")

    def __init__(self, reader: Reader, offset: int, size: int) -> None:
        self._reader = reader
        self._offset = offset
        self.__array_interface__: dict[str, Any] = {
            "shape": (size,),
            "typestr": "|u1",
            "data": (reader._address + offset, True),
            "version": 3,
        }

    def __del__(self) -> None:
        # May run on any thread and at any point of the program, also while a lock is held. So
        # it only appends to a deque, which needs no lock.
        self._reader._released.append(self._offset)
