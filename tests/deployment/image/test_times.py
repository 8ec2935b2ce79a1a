"""The times of a context's files: by them BuildKit tells what changed since a build before."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlserver_pyfunc.deployment.image.build_context import Options
from mlserver_pyfunc.deployment.image.builder import write_context

from .conftest import WriteFunction

pytestmark = pytest.mark.usefixtures("packages")


def times(write_function: WriteFunction, target: Path, code: str) -> dict[str, float]:
    write_context(write_function({"model.py": code, "other.py": ""}), target, Options())
    files = (path for path in target.rglob("*") if path.is_file())
    return {str(path.relative_to(target)): path.stat().st_mtime for path in files}


def test_a_change_of_equal_size_changes_the_time(
    write_function: WriteFunction, tmp_path: Path
) -> None:
    before = times(write_function, tmp_path / "a", "def predict(x): return x * 2\n")
    after = times(write_function, tmp_path / "b", "def predict(x): return x * 9\n")
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"function/source/model.py", "function/function.lock", "Dockerfile"}


def test_equal_files_have_equal_times(write_function: WriteFunction, tmp_path: Path) -> None:
    code = "def predict(x): return x\n"
    first, again = (times(write_function, tmp_path / name, code) for name in "ab")
    assert first == again
