"""Shared memory for tensors: one process writes regions, the other reads them in place.

A region is the writer's again once the reader holds no array on it. The memory has no
name in any file system: it is gone with the last process that maps it.
Needs only NumPy and the standard library.
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
"""Address space of an arena. Only pages that were written take memory."""

KEPT_BYTES = 64 * 2**20
"""Memory that an arena keeps for its next tensors; what is beyond goes back when free."""

_PAGE = mmap.PAGESIZE


def create_arena() -> int:
    """Makes the memory and returns its file descriptor.

    Raises:
        OSError: The system has no such memory; there is none but on Linux.
    """
    descriptor = os.memfd_create("mlserver-pyfunc", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(descriptor, SIZE)
        # Nobody can make it smaller under the other's feet, which would be a SIGBUS.
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


class Writer:
    """The writing end: gives out regions, lowest address first. Safe for threads.

    Attributes:
        used_bytes: Size of the regions in use.
    """

    def __init__(self, descriptor: int) -> None:
        self._map = mmap.mmap(descriptor, SIZE)
        self._lock = threading.Lock()
        self._free: list[tuple[int, int]] = [(0, SIZE)]
        self._used: dict[int, int] = {}
        self.used_bytes = 0

    @property
    def used_regions(self) -> int:
        return len(self._used)

    def allocate(self, size: int) -> int:
        """Takes a region and returns its offset.

        Raises:
            MemoryError: There is no room for it.
        """
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
        """The bytes of a region, to be written."""
        return np.frombuffer(self._map, dtype=np.uint8, count=size, offset=offset)

    def release(self, offset: int) -> None:
        """Gives a region back. One that is not in use is ignored."""
        with self._lock:
            size = self._used.pop(offset, None)
            if size is None:
                return
            self.used_bytes -= size
            insort(self._free, (offset, offset + size))
            self._join(self._free.index((offset, offset + size)))
        surplus = max(offset, KEPT_BYTES)
        if offset + size > surplus:
            self._map.madvise(mmap.MADV_REMOVE, surplus, offset + size - surplus)

    def _join(self, index: int) -> None:
        free = self._free
        if index + 1 < len(free) and free[index][1] == free[index + 1][0]:
            free[index : index + 2] = [(free[index][0], free[index + 1][1])]
        if index and free[index - 1][1] == free[index][0]:
            free[index - 1 : index + 1] = [(free[index - 1][0], free[index][1])]


class Reader:
    """The reading end: arrays on regions, and which of them are no longer read."""

    def __init__(self, descriptor: int) -> None:
        self._map = mmap.mmap(descriptor, SIZE, prot=mmap.PROT_READ)
        self._address = np.frombuffer(self._map, dtype=np.uint8).ctypes.data
        self._released: deque[int] = deque()

    def read(self, offset: int, size: int) -> memoryview:
        """The bytes of a region, read-only. It stays as it is while anything holds them.

        Raises:
            ValueError: The region is not inside the memory.
        """
        if not 0 <= offset <= offset + size <= SIZE:
            raise ValueError(f"region of {size} bytes at {offset} is outside the shared memory")
        return np.asarray(_Lease(self, offset, size)).data

    def take_released(self) -> list[int]:
        """Offsets of the regions that nobody reads any more, each one once."""
        released = self._released
        taken = []
        while released:
            taken.append(released.popleft())
        return taken

    def restore_released(self, offsets: Iterable[int]) -> None:
        """Has offsets taken again, after they could not be sent."""
        self._released.extend(offsets)


class _Lease:
    """Owns an array's memory: gone when the last array on the region is."""

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
        # May run in any thread, at any time: it only notes the offset.
        self._reader._released.append(self._offset)
