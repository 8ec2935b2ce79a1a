"""The lines of the decoders that a corpus executes."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
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


@dataclass
class Function:
    """What a corpus executes of a function.

    Attributes:
        name: Qualified name.
        lines: All its lines, without those of functions in it.
        missed: Those that no input executes.
    """

    name: str
    lines: set[int]
    missed: list[int]


def functions(taken: Iterable[Step], module: str) -> list[Function]:
    """Returns the functions of a module, and the lines of them that are in no step."""
    path = _PACKAGE / module
    executed = {line for file, _, line in taken if file == str(path)}
    code = compile(path.read_text(encoding="utf-8"), str(path), "exec")
    return [
        Function(name, lines, sorted(lines - executed))
        for name, lines in _functions(code, "")
        if lines
    ]


def _functions(code: CodeType, prefix: str) -> Iterator[tuple[str, set[int]]]:
    for inner in code.co_consts:
        if not isinstance(inner, CodeType):
            continue
        name = prefix + inner.co_name
        # The body of a class is executed when the module is imported.
        if inner.co_flags & inspect.CO_OPTIMIZED:
            yield name, {line for *_, line in inner.co_lines() if line} - {inner.co_firstlineno}
        yield from _functions(inner, f"{name}.")


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
