"""The environment that an image brings along: taken where it is the one that is asked for."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from mlserver_pyfunc.definition import FunctionDefinition, parse
from mlserver_pyfunc.environments import environment, uv
from mlserver_pyfunc.errors import PyFuncError

SOURCE = {"source": "model.py", "handler": "predict"}


def needing(*requirements: str, python: str = "3.13") -> FunctionDefinition:
    fields = {"source": SOURCE, "python_version": python, "requirements": list(requirements)}
    return parse(fields)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    facts = {"python_version": "3.13", "requirements": ["six==1.0", "numpy"]}
    (tmp_path / "pyfunc.json").write_text(json.dumps(facts))
    monkeypatch.setenv("MLSERVER_PYFUNC_ENVIRONMENT", str(tmp_path))

    def no_uv() -> str:
        raise uv.UvError("uv is not installed")

    monkeypatch.setattr(uv, "find_uv", no_uv)
    monkeypatch.setattr(uv, "_candidates", lambda version: [])
    return tmp_path


def test_is_taken_without_uv_where_it_was_made_for_the_definition(place: Path) -> None:
    got = environment.provide(needing("six==1.0"), "f")
    assert got.python == place / "bin" / "python"


@pytest.mark.parametrize("definition", [needing("six==2.0"), needing("six==1.0", python="3.10")])
def test_is_not_taken_for_another_definition(
    place: Path, definition: FunctionDefinition, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), pytest.raises(PyFuncError):
        environment.provide(definition, "f")
    assert "the image has an environment of Python 3.13 with six==1.0, numpy" in caplog.text


def test_one_that_is_broken_is_told(place: Path) -> None:
    (place / "pyfunc.json").unlink()
    with pytest.raises(PyFuncError, match=r"MLSERVER_PYFUNC_ENVIRONMENT: .*pyfunc\.json"):
        environment.provide(needing("six==1.0"), "f")
