"""Which image a function has, and whether it still is the function."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mlserver_pyfunc.definition import FunctionDefinition, parse
from mlserver_pyfunc.deployment.image import record
from mlserver_pyfunc.sources import lock

DIGEST = "sha256:" + "a" * 64


def definition(**keys: object) -> FunctionDefinition:
    return parse({"source": {"source": "model.py", "handler": "predict"}, **keys})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model.py").write_text("def predict(x):\n    return x\n")
    return tmp_path


def write_record(folder: Path, digest: str | None = None) -> None:
    made = lock.ImageRecord(
        name="registry.example:5000/iris:1",
        digest=digest,
        inputs=record.inputs(definition(), folder),
    )
    lock.record_image(made, folder)


def test_a_function_without_a_build_has_no_image(folder: Path) -> None:
    assert record.recorded(definition(), folder) is None


def test_the_image_built_last_is_current_while_nothing_changes(folder: Path) -> None:
    write_record(folder)
    assert record.recorded(definition(), folder) == record.Image("registry.example:5000/iris:1")


def test_an_image_that_was_pushed_is_named_by_its_digest(folder: Path) -> None:
    write_record(folder, DIGEST)
    found = record.recorded(definition(), folder)
    assert found is not None
    assert found.reference == f"registry.example:5000/iris@{DIGEST}"


def test_the_image_that_a_definition_names_is_taken_as_it_is(folder: Path) -> None:
    write_record(folder)
    assert record.recorded(definition(image="iris:2"), folder) == record.Image("iris:2")


@pytest.mark.parametrize(
    ("keys", "changed"),
    [
        ({"requirements": ["numpy>=1"]}, "definition"),
        ({"python_version": "3.12"}, "definition"),
        ({"base_image": "debian:12"}, "definition"),
        ({"build": {"env": {"A": "b"}}}, "definition"),
        ({"build": {"instructions": ["true"]}}, "definition"),
    ],
)
def test_a_changed_definition_makes_it_stale(
    folder: Path, keys: dict[str, object], changed: str
) -> None:
    write_record(folder)
    found = record.recorded(definition(**keys), folder)
    assert found is not None
    assert found.why == f"{changed} changed since it was built"


@pytest.mark.parametrize(
    ("name", "changed"),
    [("model.py", "source"), ("settings.json", "settings"), ("weights.bin", "source")],
)
def test_a_changed_file_makes_it_stale(folder: Path, name: str, changed: str) -> None:
    write_record(folder)
    (folder / name).write_text("{}")
    found = record.recorded(definition(), folder)
    assert found is not None
    assert found.why == f"{changed} changed since it was built"


def test_a_record_without_a_pinned_source_binds_nothing(folder: Path) -> None:
    write_record(folder)
    (folder / "model.py").write_text("y = 1")
    assert lock.fetch_locked(definition(), folder).module == "model"


def test_a_renewed_lock_keeps_the_record(folder: Path) -> None:
    write_record(folder)
    path = lock.write(definition(), folder)
    held = yaml.safe_load(path.read_text())
    assert held["source"] == "model.py"
    assert held["image"]["name"] == "registry.example:5000/iris:1"


def test_it_is_known_without_mlserver() -> None:
    code = (
        "import sys, mlserver_pyfunc.deployment.image.record; sys.exit('mlserver' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
