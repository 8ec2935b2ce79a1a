"""The objects that a context of digitalhub has."""

from __future__ import annotations

import copy
import logging
from pathlib import Path

import pytest

from mlserver_pyfunc.handler import digitalhub
from mlserver_pyfunc.handler.context import Context
from mlserver_pyfunc.handler.metrics import Metrics


def completed(project: str | None) -> Context:
    context = Context(
        logger=logging.getLogger("iris"),
        model_name="iris",
        model_version=None,
        definition={},
        source_dir=Path("/nowhere"),
        init_parameters={},
        metrics=Metrics(print),
    )
    digitalhub.complete(context, project)
    return context


@pytest.mark.parametrize(("project", "name"), [("plants", "plants"), (None, "")])
def test_a_project_and_a_run_have_names(project: str | None, name: str) -> None:
    context = completed(project)
    assert (context.project.name, context.run.name) == (name, "iris")
    with pytest.raises(AttributeError):
        _ = context.run._private
    assert copy.copy(context.project).name == name


def test_what_is_logged_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    completed("plants").run.log("x" * 2000)
    [record] = caplog.records
    cut = digitalhub._MAX_LOGGED_CHARS
    assert record.getMessage() == f"run.log({repr('x' * 2000)[:cut]})"


@pytest.mark.parametrize("level", ["debug", "info", "warn", "error"])
def test_the_logger_takes_values_by_name(level: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    log = getattr(completed(None).logger, f"{level}_with")
    log("found", count=3, name="a")
    log("nothing")
    assert [record.getMessage() for record in caplog.records] == [
        "found count=3 name='a'",
        "nothing",
    ]
    expected = "WARNING" if level == "warn" else level.upper()
    assert {record.levelname for record in caplog.records} == {expected}
