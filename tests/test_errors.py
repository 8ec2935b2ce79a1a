from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mlserver_pyfunc
from mlserver_pyfunc import errors
from mlserver_pyfunc.errors import (
    MAX_MESSAGE_CHARS,
    ContractError,
    HandlerError,
    InferenceError,
    LoadError,
    OverloadedError,
    PyFuncError,
    RequestError,
    ResponseError,
    TimeLimitError,
    describe,
)
from tests.places import DOCS

ABSENT = 'raise ModuleNotFoundError("No module named \'simdjson\'", name="simdjson")\n'


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ContractError("x"), 400),
        (InferenceError("x"), 400),
        (InferenceError("x", 429), 429),
        (ResponseError("x"), 500),
        (HandlerError("x"), 500),
        (RequestError("x"), 500),
        (OverloadedError("x"), 503),
        (TimeLimitError("x"), 504),
    ],
)
def test_every_request_error_has_its_status(error: RequestError, status: int) -> None:
    assert error.status == status
    assert isinstance(error, PyFuncError)


@pytest.mark.parametrize("status", [200, 302, 399, 600, -1])
def test_an_inference_error_takes_error_statuses_only(status: int) -> None:
    with pytest.raises(ValueError, match=f"from 400 to 599, got {status}"):
        InferenceError("x", status)


def test_a_load_error_names_function_phase_and_cause() -> None:
    error = LoadError("iris", "init", "ValueError: no weights")
    assert str(error) == 'function "iris" failed to load: init: ValueError: no weights'
    assert (error.model_name, error.phase) == ("iris", "init")


@pytest.mark.parametrize("length", [0, MAX_MESSAGE_CHARS, MAX_MESSAGE_CHARS + 1, 100_000])
def test_messages_are_bounded(length: int) -> None:
    message = str(InferenceError("x" * length))
    assert len(message) == min(length, MAX_MESSAGE_CHARS)
    assert message.endswith("...") == (length > MAX_MESSAGE_CHARS)


def test_a_message_may_be_anything_and_is_text_that_every_route_can_send() -> None:
    assert str(InferenceError(ValueError("bad"))) == "bad"  # type: ignore[arg-type]
    assert str(InferenceError({"a": 1})) == "{'a': 1}"  # type: ignore[arg-type]
    assert str(InferenceError("caf\udce9")) == "caf\\udce9"
    assert str(InferenceError("café")) == "café"


class _UnsayableError(Exception):
    def __str__(self) -> str:
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("bad input"), "ValueError: bad input"),
        (KeyError("a"), "KeyError: 'a'"),
        (SystemExit(3), "SystemExit: 3"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (_UnsayableError(), "_UnsayableError: (its message cannot be shown)"),
    ],
)
def test_an_exception_is_described_as_python_does(error: BaseException, text: str) -> None:
    assert describe(error) == text


def test_the_tree_in_the_page_has_every_error_and_its_status() -> None:
    page = (DOCS / "architecture.md").read_text()
    drawn = dict(re.findall(r"^ +\+ (\w+) +(\d{3})? ", page, re.MULTILINE))
    classes = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type)}
    del classes["PyFuncError"]
    assert drawn == {name: str(getattr(kind, "status", "")) for name, kind in classes.items()}


def test_the_public_names_are_there() -> None:
    for name in mlserver_pyfunc.__all__:
        assert getattr(mlserver_pyfunc, name)
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        mlserver_pyfunc.nonsense  # noqa: B018


def test_a_dependency_that_is_missing_is_named_to_whoever_imports_the_runtime(
    tmp_path: Path,
) -> None:
    (tmp_path / "simdjson.py").write_text(ABSENT)
    code = (
        "import mlserver_pyfunc as package\n"
        "try: package.PyFuncRuntime\n"
        "except package.errors.DependencyError as error: print(error)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert ran.stdout.strip() == (
        "mlserver-pyfunc lacks a dependency: No module named 'simdjson'; "
        f"run pip install mlserver-pyfunc, in the environment of {sys.executable}"
    )
