"""The answers to beginners' mistakes: 95 in 100 are clear, 90 in 100 tell what to do next."""

from __future__ import annotations

import shlex
import socket
from pathlib import Path
from typing import Any

import git
import pytest
from click.testing import CliRunner

from mlserver_pyfunc.cli import main
from mlserver_pyfunc.deployment.server_settings import free_ports

from .mistakes import DEFINITION, MISTAKES, MODEL, Mistake

NOT_YET = {
    "nothing returned": "does not ask whether a return is missing",
}
"""Mistakes whose answer does not say what to do next."""
OF_PYDANTIC = ("nput should", "valid dictionary", "should match", "ield required", "valid string")


def test_the_list_is_long_and_nearly_all_answers_tell_the_next_step() -> None:
    names = [mistake.name for mistake in MISTAKES]
    assert len(set(names)) == len(names) >= 43
    assert set(NOT_YET) <= set(names)
    assert len(NOT_YET) <= len(names) / 10


def test_ports_come_from_the_variables_of_mlserver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        monkeypatch.setenv("MLSERVER_GRPC_PORT", str(taken))
        done = CliRunner().invoke(main, ["serve", str(tmp_path), "--port", "0"])
    assert f"port {taken} of 127.0.0.1 is taken" in done.output


@pytest.fixture
def filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Fills in the names of a text: this folder, a port that is taken, and one that is free."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as server:
        (free,) = free_ports(1)
        words = {"{here}": tmp_path, "{taken}": server.getsockname()[1], "{free}": free}

        def fill(text: str) -> str:
            for name, value in words.items():
                text = text.replace(name, str(value))
            return text

        yield fill


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_an_answer_is_clear_and_says_what_to_do(mistake: Mistake, filled: Any) -> None:
    if "git" in mistake.name:
        repository = git.Repo.init("repository", initial_branch="main")
        Path("repository/model.py").write_text(MODEL)
        repository.index.add(["model.py"])
        repository.index.commit("first")
    files = {"function.yaml": DEFINITION, "model.py": MODEL, "weights.bin": "", **mistake.files}
    for name, text in files.items():
        Path(name).write_text(filled(text))
    arguments = shlex.split(filled(mistake.command))
    done = CliRunner().invoke(main, arguments, prog_name="mlserver-pyfunc")
    assert done.exit_code == 0 or isinstance(done.exception, SystemExit), done.exception
    for said in mistake.says:
        assert filled(said) in done.output
    assert not any(words in done.output for words in OF_PYDANTIC)
    assert "Traceback" not in done.output
    assert (filled(mistake.next_step) in done.output) is (mistake.name not in NOT_YET), done.output
