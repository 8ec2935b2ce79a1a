"""Runs the examples in docstrings."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest

import mlserver_pyfunc

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def _modules_with_examples() -> list[str]:
    found = []
    for package in pkgutil.walk_packages(mlserver_pyfunc.__path__, "mlserver_pyfunc."):
        spec = package.module_finder.find_spec(package.name, None)
        assert spec is not None
        assert spec.origin is not None
        if ">>> " in Path(spec.origin).read_text(encoding="utf-8"):
            found.append(package.name)
    return found


@pytest.mark.parametrize("module", _modules_with_examples())
def test_the_examples_in_docstrings_give_what_they_show(module: str) -> None:
    tested = doctest.testmod(importlib.import_module(module), optionflags=FLAGS)
    assert tested.attempted > 0
    assert tested.failed == 0


def test_the_types_that_users_meet_first_have_examples() -> None:
    assert {
        "mlserver_pyfunc.errors",
        "mlserver_pyfunc.protocol.contract",
    } <= set(_modules_with_examples())
