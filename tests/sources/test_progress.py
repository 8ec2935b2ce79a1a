"""Progress: a line on a terminal, log lines elsewhere, nothing for what is quick."""

from __future__ import annotations

import io
import logging

import pytest

from mlserver_pyfunc.sources import progress
from mlserver_pyfunc.sources.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_rewrites_its_line_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setattr(progress, "_TERMINAL_SECONDS", 0)
    with Progress("fetching x", total=4 * 2**20) as shown:
        shown.add(2**20)
        shown.add(2**20)
    assert terminal.getvalue() == (
        "\r\x1b[Kfetching x: 1.0 of 4.0 MiB\r\x1b[Kfetching x: 2.0 of 4.0 MiB\n"
    )


def test_logs_elsewhere(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("sys.stderr", io.StringIO())
    monkeypatch.setattr(progress, "_LOG_SECONDS", 0)
    with Progress("fetching x", unit="objects") as shown:
        shown.total = 10
        shown.reach(3)
    assert caplog.messages == ["fetching x: 3 of 10 objects"]


def test_says_nothing_of_what_is_quick(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    with Progress("fetching x") as shown:
        shown.add(5)
    assert (terminal.getvalue(), caplog.messages) == ("", [])
