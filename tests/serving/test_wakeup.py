"""Waking threads that wait for work."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter

import pytest

from mlserver_pyfunc.serving.wakeup import Doorbell


@pytest.fixture(params=["eventfd", "queue"])
def doorbell(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Doorbell:
    if request.param == "queue":
        monkeypatch.delattr(os, "eventfd")
    return Doorbell()


def test_each_ring_ends_one_wait_of_one_thread(doorbell: Doorbell) -> None:
    heard: Counter[int] = Counter()

    def listen(number: int) -> None:
        for _ in range(50):
            doorbell.wait()
            heard[number] += 1

    threads = [threading.Thread(target=listen, args=(number,), daemon=True) for number in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(199):
        doorbell.ring()
    deadline = time.monotonic() + 10
    while heard.total() < 199:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.05)
    assert heard.total() == 199
    doorbell.ring()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


def test_a_signal_does_not_end_a_wait(doorbell: Doorbell) -> None:
    heard = threading.Event()

    def listen() -> None:
        doorbell.wait()
        heard.set()

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
        assert not heard.is_set()
        doorbell.ring()
        assert heard.wait(10)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_leaves_no_descriptor_behind() -> None:
    doorbell = Doorbell()
    descriptor = doorbell._fd
    os.fstat(descriptor)
    del doorbell
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
