"""Runs the command of an engine: shows its output, and keeps the part that explains a failure."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import deque
from collections.abc import Mapping, Sequence

from mlserver_pyfunc import settings
from mlserver_pyfunc.deployment.names import BuildError

LAST_LINES = 12
"""Number of lines of the engine's output that an error carries."""

_STEP = re.compile(
    r"^(?:\[[\d/]+\] )?STEP \d+(?:/\d+)?:? ?(?P<buildah>.+)$"
    r"|^Step \d+/\d+ : (?P<legacy>.+)$"
    r"|^#\d+ \[(?P<buildkit>.+\d+/\d+\] .+)$"
    r"|^ > \[(?P<failed>.+\d+/\d+\] .+):$"
)
_NO_SHELL = re.compile(r"exec.*/bin/sh\b.*(no such file|not found)", re.IGNORECASE)
_BLOCK_END = "------"


def run(command: Sequence[str], variables: Mapping[str, str] | None = None) -> str:
    """Runs an engine, shows its output on standard error, and returns its last 400 lines."""
    last: deque[str] = deque(maxlen=400)
    step = ""
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, **(variables or {})},
    ) as process:
        assert process.stdout is not None
        for raw in process.stdout:
            line = raw.decode(errors="replace").rstrip()
            print(line, file=sys.stderr, flush=True)
            last.append(line)
            if match := _STEP.match(line):
                step = next(group for group in match.groups() if group).replace("]", ":", 1)
    if process.returncode:
        raise BuildError(_explanation(command[0], step, list(last)))
    return "\n".join(last)


def _explanation(engine: str, step: str, lines: Sequence[str]) -> str:
    text = "\n".join(f"  {line}" for line in _useful(lines)[-LAST_LINES:])
    where = f' at step "{step[:200]}"' if step else ""
    hint = settings.trust_hint("\n".join(lines))
    return f"{engine} failed{where}; its last lines:\n{text}" + (f"\n{hint}" if hint else "")


def _useful(output: Sequence[str]) -> list[str]:
    """Returns the output of the failed step. BuildKit repeats it before the Dockerfile's text."""
    lines = [line for line in output if line.strip()]
    hint = ["the base image has no sh, which build steps and the server's start need"]
    hints = hint if any(_NO_SHELL.search(line) for line in lines) else []
    starts = [number for number, line in enumerate(lines) if line.startswith(" > [")]
    if starts:
        block = lines[starts[-1] + 1 :]
        lines = block[: block.index(_BLOCK_END)] if _BLOCK_END in block else block
    return lines + hints
