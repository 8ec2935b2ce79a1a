"""What holds for all tests: needs of the machine, and which tests are heavy."""

from __future__ import annotations

import os
import pwd
from unittest import mock

import pytest
from hypothesis import HealthCheck, settings

from mlserver_pyfunc.definition import PYTHON_VERSIONS
from mlserver_pyfunc.environments import uv


def _complete_path() -> None:
    """Adds the system's folders and the interpreters of the user's own home to PATH.

    Problem: a test, or the whole run, may have a HOME of its own, and pyenv and uv keep their
    interpreters in the home folder. Passing PYENV_ROOT and UV_PYTHON_INSTALL_DIR on does not help
    where a test clears the environment. All programs look in PATH.
    """
    with mock.patch.dict(os.environ, HOME=pwd.getpwuid(os.getuid()).pw_dir):
        folders = [*os.environ["PATH"].split(os.pathsep), "/usr/local/sbin", "/usr/sbin", "/sbin"]
        for version in PYTHON_VERSIONS:
            try:
                folders.append(str(uv.find_python(version).parent))
            except uv.UvError:
                continue
    os.environ["PATH"] = os.pathsep.join(dict.fromkeys(folders))


_complete_path()

from . import needs  # noqa: E402  finds interpreters as it is imported
from .places import ROOT  # noqa: E402

# A shared machine is slow now and then: that is no failure of what is under test.
settings.register_profile(
    "default", deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("default")


# `make test` leaves out the tests marked `heavy`, `make test-rest` runs only those, and
# `make test-all` runs all. Heavy are these files, which take minutes or need more than one Python,
# and the single tests that have the marker in their own file.
HEAVY = (
    "tests/api/test_docs.py",
    "tests/chaos/",
    "tests/cli/test_serve_log.py",
    "tests/client/playground/test_browser.py",
    "tests/client/playground/test_openapi.py",
    "tests/deployment/cluster/",
    "tests/deployment/engines/",
    "tests/deployment/platforms/",
    "tests/docs/test_benchmarks.py",
    "tests/docs/test_gallery.py",
    "tests/docs/test_guides.py",
    "tests/docs/test_site.py",
    "tests/docs/test_wheel.py",
    "tests/handler/test_forty.py",
    "tests/hosts/mlserver/test_arrival.py",
    "tests/hosts/mlserver/test_edge_table.py",
    "tests/hosts/mlserver/test_fastpath.py",
    "tests/hosts/mlserver/test_isolation.py",
    "tests/hosts/mlserver/test_lifecycle.py",
    "tests/hosts/mlserver/test_load.py",
    "tests/hosts/mlserver/test_names.py",
    "tests/hosts/mlserver/test_nulls.py",
    "tests/hosts/mlserver/test_process_tuning.py",
    "tests/hosts/mlserver/test_read_only.py",
    "tests/hosts/mlserver/test_repository.py",
    "tests/hosts/mlserver/test_stalled_readers.py",
    "tests/hosts/mlserver/test_triton.py",
    "tests/mutation/",
    "tests/sources/test_s3.py",
    "tests/sources/test_served.py",
    "tests/serving/faults/",
    "tests/serving/test_overload.py",
    "tests/serving/workers/test_protocol_model.py",
    "tests/serving/workers/test_recovery.py",
    "tests/serving/workers/test_streams.py",
    "tests/testing/test_strategies.py",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        path = item.path.relative_to(ROOT).as_posix()
        if path.startswith(HEAVY):
            item.add_marker(pytest.mark.heavy)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("needs"):
        needs.require(*mark.args)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Prints a failure at once in CI: a run that is ended before its summary would show none."""
    is_worker = "PYTEST_XDIST_WORKER" in os.environ
    if os.environ.get("CI") and not is_worker and report.outcome in ("failed", "rerun"):
        print(f"\n{report.outcome}: {report.nodeid} ({report.when}, {report.duration:.0f} s)")
        print(report.longreprtext[-4000:], flush=True)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reasons = [
        str(report.longrepr[2]).removeprefix("Skipped: ")
        for report in terminalreporter.stats.get("skipped", [])
    ]
    lines = needs.summary(reasons)
    if lines:
        terminalreporter.section("not tested on this machine")
        for line in lines:
            terminalreporter.write_line(line)
