from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from .load import Tally


@pytest.fixture
def total(record_property: Callable[[str, object], None]) -> Iterator[Tally]:
    """Sums up the faults of a test; the run's end shows those of all tests."""
    tally = Tally()
    yield tally
    # Reports come from the process that ran the test.
    record_property("tally", {**vars(tally), "failed": dict(tally.failed)})


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    total = Tally()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", "") == "teardown":
                for name, value in report.user_properties:
                    if name == "tally":
                        total.add(Tally(**value))
    if total.faults:
        terminalreporter.write_line(f"fault harness: {total}")
