"""Writes findings as text with excerpts, JSON or annotations of GitHub; applies fixes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from mlserver_pyfunc.models import is_model

from .findings import Finding

_COLORS = {"error": "red", "warning": "yellow", "note": "cyan"}
_WIDTH = 100
"""Most characters of a line that an excerpt shows."""


def text(findings: Sequence[Finding]) -> str:
    """Writes each finding with the line that it is about, and a summary."""
    kinds = [finding.severity for finding in findings]
    counts = [f"{kind}s: {kinds.count(kind)}" for kind in _COLORS if kind in kinds]
    fixes = sum(finding.fix is not None for finding in findings)
    if fixes:
        counts.append(f"--fix mends {fixes}")
    return "\n".join([*map(_excerpt, findings), ", ".join(counts)])


def _excerpt(finding: Finding) -> str:
    path = _near(finding.file)
    is_text = path.is_file() and not is_model(path)
    lines = path.read_text(errors="replace").splitlines() if is_text else []
    line = lines[finding.line - 1].rstrip().expandtabs(1) if finding.line <= len(lines) else ""
    start = (finding.column or len(line) - len(line.lstrip()) + 1) - 1
    count = max((finding.end or len(line) + 1) - 1 - start, 1)
    color = _COLORS[finding.severity]
    severity = click.style(finding.severity, fg=color, bold=True)
    head = f"{path}:{finding.line}:{start + 1}: {severity} {finding.rule}: {finding.message}"
    if not line.strip():
        return head
    # A long line is shown from a little before the fault.
    left = max(start - _WIDTH // 2, 0) if len(line) > _WIDTH else 0
    shown = line[left : left + _WIDTH]
    start -= left
    margin = " " * len(str(finding.line))
    mark = click.style("^" * min(count, max(len(shown) - start, 1)), fg=color)
    fix = "" if finding.fix is None else f" {finding.fix}"
    return f"{head}\n{finding.line} | {shown}\n{margin} | {' ' * start}{mark}{fix}"


def as_json(findings: Sequence[Finding]) -> str:
    """Writes a list of objects."""
    plain = [{**asdict(f), "file": str(f.file), "severity": f.severity} for f in findings]
    return json.dumps(plain, indent=2)


def github(findings: Sequence[Finding]) -> str:
    """Writes workflow commands, which GitHub shows beside the lines of a change."""
    lines = []
    for finding in findings:
        kind = "notice" if finding.severity == "note" else finding.severity
        file = _escaped(str(_near(finding.file))).replace(",", "%2C").replace(":", "%3A")
        place = f"file={file},line={finding.line},col={finding.column or 1}"
        lines.append(f"::{kind} {place},title={finding.rule}::{_escaped(finding.message)}")
    return "\n".join(lines)


def _escaped(value: str) -> str:
    return value.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def fix(findings: Sequence[Finding]) -> int:
    """Replaces each fault whose fix leaves no doubt, and returns their number."""
    sure = {(f.file, f.line, f.column): f for f in findings if f.fix is not None}
    # From the end, so that the columns of those before stay.
    for _, fault in sorted(sure.items(), reverse=True):
        lines = fault.file.read_bytes().decode().splitlines(keepends=True)
        line = lines[fault.line - 1]
        end = fault.end - 1 if fault.end else len(line.rstrip())
        lines[fault.line - 1] = f"{line[: fault.column - 1]}{fault.fix}{line[end:]}"
        fault.file.write_bytes("".join(lines).encode())
    return len(sure)


def _near(file: Path) -> Path:
    """Returns a path from the working directory, if the file is below it."""
    path, here = file.absolute(), Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else file
