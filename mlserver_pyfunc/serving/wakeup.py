"""Wakes threads that wait for work."""

from __future__ import annotations

import os
import queue
import sys
import weakref

_ONE = (1).to_bytes(8, sys.byteorder)


class WakeupSemaphore:
    """A counting semaphore that hands work to threads: each `release` ends one `acquire`.

    The problem: the event loop's thread hands a call to a handler's thread, which must start at
    once. `threading.Semaphore`, `threading.Lock` and `queue.SimpleQueue` do not work well for
    this. They wake the waiting thread while the event loop's thread holds the GIL. The woken
    thread blocks on the GIL at once and has to be woken again. That is two context switches
    more: 14 us instead of 6 us for a call and its return.

    The solution is an eventfd in semaphore mode. `os.write` releases the GIL around the system
    call, so the woken thread can take the GIL straight away. See `man 2 eventfd`, EFD_SEMAPHORE.
    Systems without eventfd use a queue.
    """

    def __init__(self) -> None:
        self._fd = -1
        if hasattr(os, "eventfd"):
            self._fd = os.eventfd(0, os.EFD_SEMAPHORE | os.EFD_CLOEXEC)
            weakref.finalize(self, os.close, self._fd).atexit = False
        self._permits: queue.SimpleQueue[None] = queue.SimpleQueue()

    def release(self) -> None:
        """Lets one waiting thread continue, or the next thread that waits."""
        if self._fd >= 0:
            os.write(self._fd, _ONE)
        else:
            self._permits.put(None)

    def acquire(self) -> None:
        """Blocks until `release` is called."""
        if self._fd >= 0:
            # os.eventfd_read does not work: a signal (SIGCONT, for example) ends it with an
            # error. os.read tries again, by PEP 475.
            os.read(self._fd, len(_ONE))
        else:
            self._permits.get()
