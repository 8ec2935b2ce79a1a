from __future__ import annotations

import pytest

from .load import Tally

_tally = pytest.StashKey[Tally]()


@pytest.fixture
def total(request: pytest.FixtureRequest) -> Tally:
    """Sums up all faults of the run."""
    return request.config.stash.setdefault(_tally, Tally())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    tally = terminalreporter.config.stash.get(_tally, None)
    if tally is not None:
        terminalreporter.write_line(f"fault harness: {tally}")
