"""How several things are getting on: a table that redraws itself on a terminal, lines elsewhere."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

DONE = frozenset({"ready", "gone"})


class Progress:
    """Shows what each of several named things is doing, on standard error."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._texts: dict[str, str] = {}
        self._spinner = Spinner("dots")
        self._live = Live(get_renderable=self._drawn, console=self._console, transient=True)

    def __enter__(self) -> Progress:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def show(self, name: str, text: str) -> None:
        """Sets what one of them is doing now."""
        if self._texts.get(name) == text:
            return
        self._texts[name] = text
        if not self._console.is_terminal:
            self._console.print(Text(f"{name}: {text}"), soft_wrap=True)

    def _drawn(self) -> Table:
        table = Table.grid(padding=(0, 1))
        for name, text in self._texts.items():
            mark = Text("✓", style="green") if text in DONE else self._spinner
            table.add_row(mark, Text(name, style="bold"), Text(text))
        return table
