"""What a terminal is shown of arrays: rows cut to size, and markup as it is."""

import io

import numpy as np
import pytest
from rich.console import Console

from mlserver_pyfunc.cli import output


@pytest.fixture
def terminal(monkeypatch):
    """A terminal of 60 columns with full colour."""
    console = Console(
        file=io.StringIO(), force_terminal=True, color_system="truecolor", width=60, highlight=False
    )
    monkeypatch.setattr(output, "console", console)
    return console.file


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.arange(100), "... 88 more"),
        (np.zeros((40, 2)), "... 20 more rows"),
        (np.zeros((0, 4), np.float32), "float32[0, 4]"),
        (np.array(3), "3"),
        (np.array([b"\xff", b"text"], object), "/w==  text"),
        (np.array([np.nan, 1.25]), "nan  1.25"),
        (np.array(["[red]kept as it is[/red]"], object), "[red]kept as it is[/red]"),
    ],
)
def test_rows_are_cut_to_what_can_be_read(terminal, array, says):
    output.arrays({"a": array})
    assert says in terminal.getvalue()


def test_json_has_null_for_what_it_cannot_say():
    assert output.plain(np.array([np.nan, np.inf, 1.5])) == [None, None, 1.5]
    assert output.plain(np.array([b"a", b"\xff"], object)) == ["a", "/w=="]
