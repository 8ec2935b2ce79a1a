"""The lines of the decoders that a corpus executes."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from tests.places import ROOT

from .targets import Target

_PACKAGE = ROOT / "mlserver_pyfunc"

Step = tuple[str, int, int]
"""A file, and two lines of it that were executed one after the other."""


def steps(target: Target, data: bytes) -> set[Step]:
    """Returns the steps that a target's modules take for an input."""
    files = {str(_PACKAGE / module) for module in target.modules}
    taken: set[Step] = set()

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        path = frame.f_code.co_filename
        if path not in files:
            return None
        before = 0

        def trace_lines(frame: FrameType, event: str, argument: Any) -> Any:
            nonlocal before
            if event == "line":
                taken.add((path, before, frame.f_lineno))
                before = frame.f_lineno
            return trace_lines

        return trace_lines

    sys.settrace(trace)
    try:
        target.run(data)
    finally:
        sys.settrace(None)
    return taken


def table(target: Target, inputs: Iterable[bytes]) -> Iterator[tuple[str, int, int, list[int]]]:
    """Yields name, executed lines, all lines and missed lines of each module of a target."""
    taken = {(path, line) for data in inputs for path, _, line in steps(target, data)}
    for module in target.modules:
        path = _PACKAGE / module
        lines = set(_lines(compile(path.read_text(), str(path), "exec"), is_function=False))
        missed = sorted(line for line in lines if (str(path), line) not in taken)
        yield module, len(lines) - len(missed), len(lines), missed


def _lines(code: CodeType, *, is_function: bool) -> Iterator[int]:
    """Yields the lines in functions, without their first ones. Importing executes all others."""
    if is_function:
        yield from {line for _, _, line in code.co_lines() if line} - {code.co_firstlineno}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            # The body of a class is executed when the module is imported.
            yield from _lines(constant, is_function=bool(constant.co_flags & 0x1))


def additions(target: Target, corpus: Iterable[bytes], found: Iterable[bytes]) -> list[bytes]:
    """Returns few and short inputs that take all the steps that the corpus does not take."""
    taken = {data: steps(target, data) for data in sorted(found, key=len)}
    wanted = set().union(*taken.values()).difference(*(steps(target, data) for data in corpus))
    added = []
    while wanted:
        best = max(taken, key=lambda data: (len(taken[data] & wanted), -len(data)))
        added.append(best)
        wanted -= taken[best]
    return added


def read(folder: Path) -> list[bytes]:
    """Returns the inputs in a folder."""
    return [path.read_bytes() for path in sorted(folder.iterdir())] if folder.is_dir() else []
