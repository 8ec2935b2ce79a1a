"""Waking threads that wait for work."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from typing import Any

import pytest

from mlserver_pyfunc.serving.executor import WakeupSemaphore, new_semaphore


@pytest.fixture(params=["eventfd", "without eventfd"])
def wakeup(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    if request.param == "without eventfd":
        monkeypatch.delattr(os, "eventfd")
    return new_semaphore()


def test_each_release_ends_one_acquire_of_one_thread(wakeup: Any) -> None:
    woken: Counter[int] = Counter()

    def listen(number: int) -> None:
        for _ in range(50):
            wakeup.acquire()
            woken[number] += 1

    threads = [threading.Thread(target=listen, args=(number,), daemon=True) for number in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(199):
        wakeup.release()
    deadline = time.monotonic() + 60
    while woken.total() < 199:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.05)
    assert woken.total() == 199
    wakeup.release()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


def test_a_signal_does_not_end_a_wait(wakeup: Any) -> None:
    woken = threading.Event()

    def listen() -> None:
        wakeup.acquire()
        woken.set()

    thread = threading.Thread(target=listen, daemon=True)
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        thread.start()
        for _ in range(5):
            time.sleep(0.02)
            assert thread.ident is not None
            signal.pthread_kill(thread.ident, signal.SIGUSR1)
        time.sleep(0.05)
        assert thread.is_alive()
        assert not woken.is_set()
        wakeup.release()
        assert woken.wait(60)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_leaves_no_descriptor_behind() -> None:
    wakeup = WakeupSemaphore()
    descriptor = wakeup._fd
    os.fstat(descriptor)
    del wakeup
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
