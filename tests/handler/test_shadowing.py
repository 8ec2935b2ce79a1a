"""Modules in folders of models do not shadow installed ones."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

import mlserver_pyfunc
from mlserver_pyfunc.handler.shadowing import pin_package, prefer_installed


def test_folders_of_models_are_last_on_the_path_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, plain = tmp_path / "model", tmp_path / "plain"
    for folder in (model, plain):
        folder.mkdir()
    (model / "model-settings.json").write_text("{}")
    path = [".", str(model), str(plain), "/nowhere"]
    monkeypatch.setattr(sys, "path", list(path))
    with prefer_installed():
        assert sys.path == [str(plain), "/nowhere", ".", str(model)]
    assert sys.path == path


def test_this_package_is_found_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    other: Any = object()
    monkeypatch.setattr(sys, "meta_path", [other])
    pin_package()
    pin_package()
    finder, last = sys.meta_path
    assert last is other
    spec = finder.find_spec("mlserver_pyfunc", None)
    assert spec is not None
    assert spec.origin == mlserver_pyfunc.__file__
    assert spec.submodule_search_locations == list(mlserver_pyfunc.__path__)
    assert finder.find_spec("numpy", None) is None
    assert finder.find_spec("mlserver_pyfunc.errors", mlserver_pyfunc.__path__) is None
