"""Siblings by bare name for pickle and importlib."""

from __future__ import annotations

import importlib
import pickle
import sys
from pathlib import Path

import pytest

from mlserver_pyfunc.handler.function_package import FunctionPackage

MODEL = """
import importlib
import pickle


def load(data):
    return pickle.loads(data)


def load_in_python(data):
    import io
    return pickle._Unpickler(io.BytesIO(data)).load()


def by_name():
    return importlib.import_module("parts.deep").where
"""


def _tree(folder: Path, where: str) -> Path:
    (folder / "parts").mkdir(parents=True)
    (folder / "parts" / "__init__.py").write_text("")
    (folder / "parts" / "deep.py").write_text(f"where = {where!r}\n")
    (folder / "features_of_a_model.py").write_text(
        f"class Scaler:\n    where = {where!r}\n    def __init__(self):\n        self.factor = 2\n"
    )
    (folder / "model.py").write_text(MODEL)
    return folder


@pytest.fixture
def pickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A model as a training script beside features_of_a_model.py would have pickled it."""
    monkeypatch.syspath_prepend(str(_tree(tmp_path / "training", "training")))
    module = importlib.import_module("features_of_a_model")
    data = pickle.dumps(module.Scaler())
    del sys.modules["features_of_a_model"]
    monkeypatch.undo()
    importlib.invalidate_caches()
    return data


@pytest.mark.parametrize("how", ["load", "load_in_python"])
def test_unpickles_classes_of_each_functions_own_siblings(
    how: str, pickled: bytes, tmp_path: Path
) -> None:
    packages = [
        FunctionPackage(name, _tree(tmp_path / name, name), {}) for name in ("first", "second")
    ]
    try:
        for _ in range(2):
            found = [getattr(package.load("model"), how)(pickled) for package in packages]
            assert [model.where for model in found] == ["first", "second"]
            assert [model.factor for model in found] == [2, 2]
    finally:
        for package in packages:
            package.close()


def test_finds_siblings_by_import_module(tmp_path: Path) -> None:
    packages = [
        FunctionPackage(name, _tree(tmp_path / name, name), {}) for name in ("first", "second")
    ]
    try:
        assert [package.load("model").by_name() for package in packages] == ["first", "second"]
    finally:
        for package in packages:
            package.close()


def test_code_of_no_function_finds_nothing_and_nothing_is_left(
    pickled: bytes, tmp_path: Path
) -> None:
    modules, finders = set(sys.modules), list(sys.meta_path)
    package = FunctionPackage("only", _tree(tmp_path / "only", "only"), {})
    try:
        assert package.load("model").load(pickled).where == "only"
        with pytest.raises(AttributeError):
            pickle.loads(pickled)
        with pytest.raises(AttributeError, match="belongs to a function, not to the caller"):
            _ = sys.modules["features_of_a_model"].Scaler
    finally:
        package.close()
    assert list(sys.meta_path) == finders
    assert set(sys.modules) == modules
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("features_of_a_model")
