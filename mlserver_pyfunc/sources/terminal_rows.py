"""Draws rows on a terminal that change in place."""

from __future__ import annotations

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn


class Rows:
    """Draws what several tasks are doing on standard error, one row per task.

    The rows vanish when they are closed. Use them on a terminal only.
    """

    def __init__(self) -> None:
        self._progress = Progress(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description}", style="bold", markup=False),
            TextColumn("{task.fields[text]}", markup=False),
            console=Console(stderr=True),
            transient=True,
            # Rich would replace sys.stdout and sys.stderr of the whole process, in which a
            # function may be loading that keeps what it finds there.
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._tasks: dict[str, TaskID] = {}

    def show(self, name: str, text: str, *, is_done: bool = False) -> None:
        """Sets what one task is doing now."""
        self._progress.start()
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=1, text=text)
        # Rich never takes back that a task is finished, but an object of a cluster can be ready
        # and then not ready: reset does take it back.
        self._progress.reset(self._tasks[name], total=1, text=text)
        self._progress.update(self._tasks[name], completed=int(is_done))

    def close(self) -> None:
        """Removes the rows from the terminal."""
        self._progress.stop()
