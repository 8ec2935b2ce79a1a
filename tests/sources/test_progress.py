"""Progress: rows on a terminal, log lines elsewhere, nothing for what is quick."""

from __future__ import annotations

import io
import logging
import re
import sys

import pytest

from mlserver_pyfunc.sources import progress
from mlserver_pyfunc.sources.progress import Progress, Rows


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def on_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    return terminal


def plain(terminal: Terminal) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())


def test_redraws_its_row_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    monkeypatch.setattr(progress, "_TERMINAL_SECONDS", 0)
    stdout, stderr = sys.stdout, sys.stderr
    with Progress("fetching [x]") as shown:
        shown.expect(4 * 2**20)
        shown.reach(2**20)
        shown.reach(2 * 2**20)
        assert (sys.stdout, sys.stderr) == (stdout, stderr)
    assert re.search(r"fetching \[x\] +2\.0 of 4\.0 MiB", plain(terminal))
    assert "\x1b[2K" in terminal.getvalue().split("MiB")[-1], "the row does not vanish"


def test_a_row_that_is_done_can_be_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_terminal(monkeypatch)
    rows = Rows(print)
    for text, is_done in (("waiting", False), ("ready", True), ("restarting", False)):
        rows.show("pod", text, is_done=is_done)
        rows._progress.refresh()
    rows.close()
    marks = {text: mark for mark, text in re.findall(r"(\S) pod +(\w+)", plain(terminal))}
    assert marks["ready"] == "✓"
    assert marks["restarting"] != "✓"


def test_logs_elsewhere(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("sys.stderr", io.StringIO())
    monkeypatch.setattr(progress, "_LOG_SECONDS", 0)
    with Progress("fetching x", unit="objects") as shown:
        shown.expect(10)
        shown.reach(3)
    assert caplog.messages == ["fetching x: 3 of 10 objects"]


def test_says_nothing_of_what_is_quick(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    terminal = on_terminal(monkeypatch)
    with Progress("fetching x") as shown:
        shown.reach(5)
    assert (terminal.getvalue(), caplog.messages) == ("", [])
