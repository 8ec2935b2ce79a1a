"""Wakes a thread that waits for work."""

from __future__ import annotations

import os
import queue
import sys
import weakref

_ONE = (1).to_bytes(8, sys.byteorder)


class WakeupSemaphore:
    """Counts rings until they are heard. Each ring ends one `wait`, of one thread.

    On Linux it is an eventfd: writing to it lets go of the GIL, so a thread that wakes can
    take it at once. A lock or queue wakes the thread while it holds the GIL, for which the
    thread then waits: two switches more, 14 us instead of 6 for a call and its return.
    """

    def __init__(self) -> None:
        self._fd = -1
        if hasattr(os, "eventfd"):
            self._fd = os.eventfd(0, os.EFD_SEMAPHORE | os.EFD_CLOEXEC)
            weakref.finalize(self, os.close, self._fd).atexit = False
        self._permits: queue.SimpleQueue[None] = queue.SimpleQueue()

    def release(self) -> None:
        """Lets one waiting thread go on, or the next to wait."""
        if self._fd >= 0:
            os.write(self._fd, _ONE)
        else:
            self._permits.put(None)

    def acquire(self) -> None:
        """Blocks until a ring."""
        if self._fd >= 0:
            # Not eventfd_read, which a signal (a SIGCONT, say) ends with an error.
            os.read(self._fd, len(_ONE))
        else:
            self._permits.get()
