"""Shows what several objects are doing: rows on a terminal, a line for each change elsewhere."""

from __future__ import annotations

import sys

import click

from mlserver_pyfunc.sources.progress import Rows

DONE = frozenset({"ready", "gone"})
"""Texts of an object that nothing is waited for any more."""


class Progress:
    """Shows what each of several named objects is doing, on standard error."""

    def __init__(self) -> None:
        self._rows = Rows() if sys.stderr.isatty() else None
        self._texts: dict[str, str] = {}

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        if self._rows:
            self._rows.close()

    def show(self, name: str, text: str) -> None:
        """Sets what one object is doing now; the same text again shows nothing."""
        if self._texts.get(name) == text:
            return
        self._texts[name] = text
        if self._rows:
            self._rows.show(name, text, is_done=text in DONE)
        else:
            click.echo(f"{name}: {text}", err=True)
