"""Shows what a server or a function logs: lines for people, or JSON."""

from __future__ import annotations

import json
import logging
import re
import sysconfig
import traceback
from datetime import datetime
from pathlib import Path
from typing import Any

import click

_HEAD = "\nTraceback (most recent call last):\n"
_FRAME = re.compile(r'^  File "([^"\n]+)", line .*\n(?:    .*\n)*', re.MULTILINE)
_HIDDEN = (str(Path(__file__).resolve().parents[1]), sysconfig.get_path("stdlib"), "<frozen ")


class Terminal(logging.Handler):
    """Writes the log, in the place of the handlers of MLServer and uvicorn.

    As long as `keeps` is true, `traceback` gets the user's frames of what fails, for its error.
    """

    def __init__(self) -> None:
        super().__init__()
        # MLServer adds no handler if there is one of this name.
        self.set_name("stdout_stream_handler")
        self.traceback = ""
        self.keeps = self.is_text = self.to_stderr = True
        self.least = logging.INFO
        for name in ("mlserver", "uvicorn"):
            logging.getLogger(name).handlers = [self]

    def emit(self, record: logging.LogRecord) -> None:
        """Writes a record of a logger."""
        text, _, trace = record.getMessage().partition(_HEAD)
        if record.exc_info and (error := record.exc_info[1]):
            trace = "".join(traceback.format_exception(error)).removeprefix(_HEAD.lstrip())
        if self.least > logging.DEBUG:
            trace = user_frames(trace)
        if self.keeps and record.levelno >= logging.ERROR:
            self.traceback = self.traceback or trace
            return
        # The banner says what `patches` and `runtime` say.
        is_ours = record.name == "mlserver.pyfunc" and record.module not in ("patches", "runtime")
        if record.levelno >= logging.WARNING or is_ours or self.least == logging.DEBUG:
            self.write("log", text, record.levelname.lower(), traceback=trace)

    def write(self, event: str, text: str, level: str = "info", **fields: Any) -> None:
        """Writes a line, with the fields only in JSON."""
        self.keeps = self.keeps and event in ("loading", "log")
        if level == "info" and self.least > logging.INFO:
            return
        now = datetime.now().astimezone()
        about = {"time": now.isoformat(timespec="milliseconds"), "level": level, "event": event}
        if self.is_text:
            label = f"{click.style(level, fg='yellow', bold=True)}: " if level != "info" else ""
            time = "" if self.to_stderr else click.style(f"{now:%H:%M:%S} ", dim=True)
            text = f"{time}{label}{text}\n{highlighted(fields.get('traceback', ''))}".rstrip()
        else:
            text = json.dumps({**about, "message": text, **fields})
        click.echo(text, err=self.to_stderr)


def user_frames(trace: str) -> str:
    """Leaves the frames of installed packages and of Python's library out of a traceback."""

    def kept(frame: re.Match[str]) -> str:
        return "" if frame[1].startswith(_HIDDEN) or "-packages/" in frame[1] else frame[0]

    return _FRAME.sub(kept, trace)


def highlighted(trace: str) -> str:
    """Colours the places in a traceback."""
    lines = trace.rstrip().splitlines()
    return "\n".join(click.style(x, fg="cyan") if x.startswith("  File ") else x for x in lines)
