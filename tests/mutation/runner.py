"""Runs the tests on mutants: each in a fork of a process that has collected the tests once.

Problem: to start pytest for each of a thousand mutants takes an hour, and to write mutants to
files disturbs whoever works on them. A fork has all modules imported and all tests collected. It
gets the mutant's code object in place of the function's own, so that all who have imported the
function run the mutant, and runs the tests that execute the changed line until one fails.

Code that runs in other processes, such as workers, is not changed.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import pickle
import resource
import select
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings

from .mutants import Mutant

_MEMORY_BYTES = 4 << 30
_FREE_SECONDS = 10
_TIMES_AS_LONG = 10

settings.register_profile(
    "mutation",
    deadline=None,
    derandomize=True,
    max_examples=25,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@dataclass
class Baseline:
    """What one test does without any mutant.

    Attributes:
        lines: File and number of each line that it executed.
        seconds: Its duration.
        passed: Whether it passed.
    """

    lines: set[tuple[str, int]] = field(default_factory=set)
    seconds: float = 0
    passed: bool = True


_OPTIONS = (
    "-q", "-s", "--disable-warnings", "-p", "no:cacheprovider", "-p", "no:xdist",
    "-o", "timeout=0", "-m", "not heavy",
)  # fmt: skip

OnResult = Callable[[Mutant, str], None]


def run(
    root: Path,
    paths: Iterable[str],
    mutants: Iterable[Mutant],
    tests: Sequence[str],
    on_result: OnResult,
) -> bool:
    """Runs tests on mutants.

    Args:
        root: Folder of the repository.
        paths: Files that the mutants are of, relative to the folder.
        mutants: The mutants.
        tests: Files and folders of tests.
        on_result: Called with each mutant and its fate: `killed`, `survived`, or `untested` if no
            test executes the line.

    Returns:
        Whether the tests could be collected. Those that fail without a mutant are left out.
    """
    files = {str(root / path): path for path in paths}
    os.environ["MLSERVER_PYFUNC_TESTS_WAIT"] = "5"
    code = pytest.main([*_OPTIONS, *tests], plugins=[_Runner(files, mutants, on_result)])
    return code == pytest.ExitCode.OK


@dataclass
class _Runner:
    """A pytest plugin that runs mutants instead of the collected tests."""

    files: dict[str, str]
    mutants: Iterable[Mutant]
    on_result: OnResult
    _failed: bool = False

    def pytest_configure(self) -> None:
        settings.load_profile("mutation")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._failed = self._failed or report.failed

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if session.testsfailed:
            raise session.Interrupted("tests could not be collected")
        runs = self._traced(session.items)
        for item, run in zip(session.items, runs, strict=True):
            if not run.passed:
                print("left out, because it fails without a mutant:", item.nodeid)
        for mutant in self.mutants:
            first, last = mutant.lines
            lines = {(mutant.path, line) for line in range(first, last + 1)}
            chosen = [
                index
                for index, run in enumerate(runs)
                if run.passed and not lines.isdisjoint(run.lines)
            ]
            chosen.sort(key=lambda index: runs[index].seconds)
            self.on_result(mutant, self._fate(mutant, session.items, chosen, runs))
        return True

    def _fate(
        self, mutant: Mutant, items: list[pytest.Item], chosen: list[int], runs: list[Baseline]
    ) -> str:
        if not chosen:
            return "untested"

        def run() -> int:
            _apply(mutant)
            for index in chosen:
                if not self._run(items[index]):
                    return 1
            return 0

        limit = _FREE_SECONDS + _TIMES_AS_LONG * sum(runs[index].seconds for index in chosen)
        return "killed" if _forked(run, limit) else "survived"

    def _run(self, item: pytest.Item) -> bool:
        self._failed = False
        item.ihook.pytest_runtest_protocol(item=item, nextitem=None)
        return not self._failed

    def _traced(self, items: list[pytest.Item]) -> list[Baseline]:
        """Runs all tests without a mutant."""
        with tempfile.TemporaryFile() as file:

            def run() -> int:
                runs = []
                for item in items:
                    runs.append(Baseline())
                    started = time.perf_counter()
                    trace = _tracer(self.files, runs[-1].lines)
                    threading.settrace(trace)
                    sys.settrace(trace)
                    runs[-1].passed = self._run(item)
                    sys.settrace(None)
                    runs[-1].seconds = time.perf_counter() - started
                pickle.dump(runs, file)
                file.flush()
                return 0

            _forked(run, 3600)
            file.seek(0)
            runs: list[Baseline] = pickle.load(file)
        return runs


def _tracer(files: dict[str, str], lines: set[tuple[str, int]]) -> Any:
    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        path = files.get(frame.f_code.co_filename)
        if path is None:
            return None

        def trace_lines(frame: FrameType, event: str, argument: Any) -> Any:
            lines.add((path, frame.f_lineno))
            return trace_lines

        return trace_lines

    return trace


def _forked(run: Callable[[], int], seconds: float) -> int:
    """Runs a function in a fork, and returns its result; 1 if it does not end in time."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setsid()
            nothing = os.open(os.devnull, os.O_RDWR)
            for descriptor in (0, 1, 2):
                os.dup2(nothing, descriptor)
            # A mutant of a loop may not only never end, but take memory all the time.
            resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY_BYTES, _MEMORY_BYTES))
            code = run()
        finally:
            os._exit(code)
    handle = os.pidfd_open(child)
    ended = select.select([handle], [], [], seconds)[0]
    os.close(handle)
    if not ended:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    return 0 if status == 0 else 1


def _apply(mutant: Mutant) -> None:
    """Replaces the code of a function, in this process."""
    module = importlib.import_module(mutant.path.removesuffix(".py").replace("/", "."))
    owner: Any = module
    *classes, name = mutant.function.split(".")
    for each in classes:
        owner = vars(owner)[each]
    function = _function(vars(owner)[name], mutant.code)
    function.__code__ = mutant.code


def _function(found: Any, code: CodeType) -> FunctionType:
    """Returns the function that decorators have wrapped."""
    waiting = [found]
    while waiting:
        each = waiting.pop()
        if isinstance(each, FunctionType) and (
            each.__code__.co_firstlineno == code.co_firstlineno
            and each.__code__.co_name == code.co_name
        ):
            return each
        if isinstance(each, property):
            waiting += [each.fget, each.fset]
        if isinstance(each, functools.cached_property):
            waiting.append(each.func)
        waiting += [
            inner
            for inner in (getattr(each, "__func__", None), getattr(each, "__wrapped__", None))
            if inner is not None
        ]
    raise LookupError(f"cannot find the function {code.co_name} below its decorators")
