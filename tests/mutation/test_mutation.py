"""The runner of mutants finds what tests do not notice, and only that."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutation.__main__ import EQUAL
from tests.mutation.mutants import mutants_of
from tests.places import ROOT

CODE = """
def clamp(value, top):
    if value > top:
        return top
    return value


class Box:
    @property
    def size(self):
        return 2 if self.is_open() else 3

    def is_open(self):
        return False

    def unused(self):
        return 1 + 1
"""
WEAK = """
from small import Box, clamp


def test_clamp():
    assert clamp(5, 3) == 3
    assert clamp(1, 3) == 1


def test_size():
    assert Box().size == 3
"""
MAIN = """
import sys
from pathlib import Path
from tests.mutation.mutants import mutants_of
from tests.mutation.runner import run

root = Path(sys.argv[1])
sys.path.insert(0, str(root))
run(root, ["small.py"], mutants_of(root, "small.py"), [str(root)],
    lambda mutant, fate: print(fate, mutant.change, sep=": "))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "small.py").write_text(CODE)
    (tmp_path / "test_small.py").write_text(WEAK)
    return tmp_path


def test_finds_what_the_tests_do_not_notice(folder: Path) -> None:
    # pytest cannot run in itself.
    command = [sys.executable, "-c", MAIN, str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    fates = set(done.stdout.splitlines())
    assert {
        "killed: value > top => False",
        "killed: return top => return None",
        "killed: return value => return None",
        "survived: value > top => value >= top",
        "survived: value > top => value > top + 1",
        "killed: 2 if self.is_open() else 3 => 2 if True else 3",
        "survived: 2 if self.is_open() else 3 => 2 if False else 3",
        "survived: 2 => 3",
        "killed: 3 => 4",
        "killed: False => True",
        "untested: 1 + 1 => 1 - 1",
    } <= fates, done.stdout + done.stderr


def test_a_test_that_fails_anyway_kills_no_mutant(folder: Path) -> None:
    (folder / "test_small.py").write_text(
        WEAK + "\n\ndef test_wrong():\n    assert clamp(1, 3) == 2\n"
    )
    command = [sys.executable, "-c", MAIN, str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "left out, because it fails without a mutant:" in done.stdout
    assert "survived: value > top => value > top + 1" in done.stdout


def test_the_rows_of_equal_mutants_are_of_mutants() -> None:
    rows = [line.split(" | ") for line in EQUAL.read_text().splitlines() if line[:1] != "#"]
    assert [row for row in rows if len(row) != 4] == []
    keys = {mutant.key for path in {row[0] for row in rows} for mutant in mutants_of(ROOT, path)}
    assert [row for row in rows if " | ".join(row[:3]) not in keys] == []
