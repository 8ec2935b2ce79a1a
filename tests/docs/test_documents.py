"""Every block and command that a document shows is run, and gives what the document says."""

from __future__ import annotations

import json
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest
import yaml
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from mlserver_pyfunc import definition
from mlserver_pyfunc.definition import FunctionDefinition
from tests.hosts.mlserver.process import ServerProcess, serving
from tests.places import ROOT, SCHEMA

from .markdown import blocks, tables
from .session import Step, assert_printed, run, steps, write_models

SERVED = [
    ROOT / "README.md",
    *(ROOT / "docs" / f"{name}.md" for name in ("definition", "handlers", "migrating")),
]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
DOCUMENTS += [
    ROOT / "model-settings" / "README.md",
    *sorted((ROOT / "examples").glob("*/README.md")),
]
STEPS = [(path, step) for path in SERVED for step in steps(path)]
TYPED_ELSEWHERE = {
    "git clone https://github.com/mlserver-pyfunc/mlserver-pyfunc": "the tests' own clone",
    "cd mlserver-pyfunc": "the same",
    "make demo": "test_demo.py",
    "make test": "the run of these tests",
    "pip install mlserver-pyfunc": "test_wheel.py",
    "mlserver-pyfunc serve tall": "the server of this file's tests",
    "mlserver-pyfunc serve shout.py:shout": "tests/cli/test_functions.py, with another function",
}


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Path, ServerProcess]]:
    """One server for each document, with a model for each of its sections."""
    running: dict[Path, Any] = {}
    try:
        found: dict[Path, ServerProcess] = {}
        for path in SERVED:
            repository = tmp_path_factory.mktemp("repository")
            models = write_models(path, repository)
            running[path] = serving(repository, tmp_path_factory.mktemp("work"), *models)
            found[path] = running[path].__enter__()
        yield found
    finally:
        for server in running.values():
            server.__exit__(None, None, None)


@pytest.mark.server
@pytest.mark.parametrize(
    ("path", "step"), STEPS, ids=[f"{path.stem}: {step.name}" for path, step in STEPS]
)
def test_prints_what_the_document_shows(
    path: Path, step: Step, servers: dict[Path, ServerProcess], tmp_path: Path
) -> None:
    server = servers[path]
    assert_printed(step.expected, run(step, server.rest_address, server.grpc_address, tmp_path))


@pytest.mark.parametrize("path", SERVED, ids=lambda path: path.stem)
def test_runs_every_block_of_a_document(path: Path) -> None:
    run_here = {block.line for step in steps(path) for block in (step.block, step.expected)}
    for block in blocks(path):
        if block.title or block.line in run_here:
            continue
        if block.language == "yaml":
            check_fragment(block.text)
            continue
        untested = set(block.text.splitlines()) - set(TYPED_ELSEWHERE)
        assert block.language == "sh", f"{path.name}, line {block.line}: not run by any test"
        assert not untested, f"{path.name}, line {block.line}: not run by any test: {untested}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", path.read_text()):
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.exists(), f"{link}: no such file"
        if anchor:
            assert anchor in anchors(target), f"{link}: no such heading"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_names_of_the_package_can_be_imported(path: Path) -> None:
    text = path.read_text()
    names = re.findall(r"\bmlserver_pyfunc(?:\.[a-zA-Z]\w*)+", text)
    for module, imported in re.findall(r"from (mlserver_pyfunc[\w.]*) import ([\w, ]+)", text):
        names += [f"{module}.{name.strip()}" for name in imported.split(",")]
    for name in names:
        pkgutil.resolve_name(name)


def test_definition_lists_every_key_with_its_default() -> None:
    document = ROOT / "docs" / "definition.md"
    sections = ("Keys", "source", "inputs and outputs", "serving", "build")
    rows = [row for section in sections for row in tables(document, section)]
    documented = {row[0].strip("`"): row[2].strip("`") for row in rows}
    assert documented == dict(keys(FunctionDefinition, ""))


def check_fragment(text: str) -> None:
    """A part of a definition is right beside what every definition has."""
    outputs = [{"name": "y", "datatype": "FP32", "shape": [-1]}]
    source = {"source": "model.py", "handler": "predict"}
    fragment = yaml.safe_load(text)
    whole = fragment if "spec" in fragment else {"source": source, "outputs": outputs, **fragment}
    definition.parse(whole)
    jsonschema.validate(whole, json.loads(SCHEMA.read_text()))


def keys(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str]]:
    """Each key's path and its default, as the tables write it."""
    for name, field in model.model_fields.items():
        if name == "outputs":
            yield name, "[]"
            continue
        if name == "columns":  # In place of two others that are required.
            yield f"{prefix}{name}", ""
            continue
        # A union of a plain value and a mapping is documented as one key.
        inner = [*models_in(field.annotation)] if name == "inputs" else model_in(field.annotation)
        if not inner or not prefix or name == "inputs":
            yield f"{prefix}{name}", shown(field.default)
        for each in inner:
            yield from keys(each, f"{prefix}{name}[]." if name == "inputs" else f"{prefix}{name}.")


def model_in(annotation: Any) -> list[type[BaseModel]]:
    given = (annotation, *get_args(annotation))
    return [each for each in given if isinstance(each, type) and issubclass(each, BaseModel)]


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from models_in(argument)


def shown(default: Any) -> str:
    if default is PydanticUndefined:
        return "required"
    if default is None or isinstance(default, BaseModel):
        return ""
    return str(default).lower() if isinstance(default, bool) else str(default)


def anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
