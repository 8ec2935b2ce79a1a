"""The pages for developers name packages, files and functions that exist."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.places import ROOT

PACKAGE = ROOT / "mlserver_pyfunc"
ARCHITECTURE = ROOT / "docs" / "architecture.md"
GUIDE = ROOT / "CONTRIBUTING.md"
PAGES = [
    ARCHITECTURE,
    GUIDE,
    ROOT / "SECURITY.md",
    *sorted((ROOT / "docs" / "design").glob("*.md")),
]
# A file of this repository: with a folder, or with a suffix that no file of a user has.
FILE = re.compile(r"`((?:[\w.-]+/)*[\w.-]+\.(?:py|js|html|css|sh|md|toml|j2|jinja))`")
# "`serving/function.py`: `Function.infer`": a file and a name that it defines.
NAME = re.compile(r"`([\w./-]+\.py)`:\s+`([A-Za-z_][\w.]*)`")
OF_USERS = {"model.py", "function.py", "rules.py", "features.py", "handlers.py"}
LISTING = {
    *("__init__.py", "errors.py", "settings.py", "py.typed", "function.schema.json"),
    *("protocol", "models", "handler", "definition", "sources", "environments", "serving"),
    *("hosts", "client", "deployment", "validation", "testing", "api", "cli"),
}


def test_the_package_root_holds_the_listing_and_nothing_else() -> None:
    found = {path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"}
    assert found == LISTING


def test_every_package_is_described() -> None:
    text = ARCHITECTURE.read_text()
    folders = [path.parent.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("__init__.py")]
    assert not [folder for folder in folders if f"`{folder}/`" not in text and folder != "."]


def test_the_diagram_has_the_layers_of_import_linter() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    layers = re.search(r"^layers = \[(.*?)^\]", text, re.MULTILINE | re.DOTALL)
    assert layers
    expected = [set(line.split(" | ")) for line in re.findall(r'"(.+)"', layers[1])]
    diagram = re.search(r"```text\n(.*?)```", ARCHITECTURE.read_text(), re.DOTALL)
    assert diagram
    rows = [re.split(r"\s{3,}", row.strip())[0] for row in diagram[1].splitlines() if row.strip()]
    assert [set(row.split(" | ")) for row in rows] == expected


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    named = set(FILE.findall(page.read_text())) - OF_USERS
    assert not [name for name in sorted(named) if not any(files(name))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_name_that_a_page_gives_for_a_file_is_in_it(page: Path) -> None:
    for file, name in NAME.findall(page.read_text()):
        assert any(set(name.split(".")) <= names(path) for path in files(file)), f"{file}: {name}"


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_every_make_target_that_a_page_names_is_in_the_makefile(page: str) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    named = re.findall(r"(?:^|`)make ([a-z-]+)", (ROOT / page).read_text(), re.MULTILINE)
    assert named
    assert set(named) <= set(targets)


def test_the_guide_names_tests_that_exist() -> None:
    commands = re.findall(r"^make test ARGS='?([^'\n]+)", GUIDE.read_text(), re.MULTILINE)
    assert commands
    for arguments in commands:
        command = [sys.executable, "-m", "pytest", "--collect-only", "-q", *arguments.split()]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_the_commit_hooks_run_what_make_lint_runs() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    hooks = [hook["entry"].split()[0] for repo in config["repos"] for hook in repo["hooks"]]
    lint = re.findall(r"\$\(bin\)/(ruff|mypy|lint-imports)", (ROOT / "Makefile").read_text())
    assert {f".venv/bin/{tool}" for tool in lint} | {"git"} == set(hooks)


def files(name: str) -> Iterator[Path]:
    """Files of the repository that a path or a bare name may mean."""
    for folder in (PACKAGE, ROOT):
        if (folder / name).is_file():
            yield folder / name
    if "/" not in name:
        yield from PACKAGE.rglob(name)


def names(path: Path) -> set[str]:
    """What a module defines: functions, classes, methods and the names that it assigns."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    defined = {node.name for node in nodes if isinstance(node, kinds)}
    stored = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return defined | stored
