"""Findings of the checks, and the rules that they belong to."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

_TEXT = (files(__package__) / "rules.md").read_text(encoding="utf-8")

EXPLANATIONS = {part[:4]: part.strip() for part in _TEXT.split("\n## ")[1:]}
"""Section of rules.md by rule id: severity, what is true if there is no finding, examples."""

RULES: dict[str, tuple[str, str]] = {
    rule: (severity, holds)
    for rule, severity, holds in re.findall(r"^## (\w+) (\w+): (.*)$", _TEXT, re.MULTILINE)
}
"""Severity (error, warning or note), and what is true if there is no finding, by rule id."""


@dataclass(frozen=True)
class Finding:
    """One fault and its place: line and columns are counted from 1.

    If `column` is 0, the fault is the text of the line. `end` is the column behind the fault, or 0
    for the end of the line. `fix` is what to replace it by, if that leaves no doubt.
    """

    rule: str
    message: str
    file: Path
    line: int
    column: int = 0
    end: int = 0
    fix: str | None = None

    @property
    def severity(self) -> str:
        """Whether it is an error, a warning or a note."""
        return RULES[self.rule][0]
