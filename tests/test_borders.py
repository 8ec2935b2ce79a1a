"""The border around what runs in a function's own interpreter, which needs only NumPy."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from importlib import metadata
from typing import Any

import grimp
import pytest
from packaging.requirements import Requirement

from tests.places import ROOT

CONTRACT = "What runs in the user's interpreter needs only NumPy"

# Imports all modules of the packages in argv, and prints them and what else came with them.
IMPORT_ALL = """
import importlib, json, pkgutil, sys
at_start = set(sys.modules)
modules = []
for name in sys.argv[1:]:
    package = importlib.import_module(name)
    below = pkgutil.walk_packages(getattr(package, "__path__", ()), f"{name}.")
    modules += [name, *(module.name for module in below)]
for name in modules:
    importlib.import_module(name)
# Modules that compiled code makes up have no file.
new = {n.partition(".")[0] for n, m in sys.modules.items() if getattr(m, "__file__", None)}
others = new - {n.partition(".")[0] for n in at_start} - sys.stdlib_module_names
print(json.dumps([modules, sorted(others)]))
"""


@pytest.fixture(scope="module")
def pyproject() -> Any:
    tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def contract(pyproject: Any) -> Any:
    contracts = pyproject["tool"]["importlinter"]["contracts"]
    [found] = [each for each in contracts if each["name"] == CONTRACT]
    return found


def test_what_a_worker_imports_needs_neither_mlserver_nor_pydantic(contract: Any) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, *contract["source_modules"]],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    modules, others = json.loads(ran.stdout)
    assert set(contract["source_modules"]) < set(modules)
    assert set(others) == {"mlserver_pyfunc", "numpy"}


def test_the_contract_forbids_every_package_that_is_imported_anywhere(contract: Any) -> None:
    graph = grimp.build_graph("mlserver_pyfunc", include_external_packages=True, cache_dir=None)
    external = {name for name in graph.modules if graph.is_module_squashed(name)}
    assert "pydantic" in external
    allowed = {"numpy", *sys.stdlib_module_names}
    assert external - allowed - set(contract["forbidden_modules"]) == set()


def test_the_contract_forbids_every_package_that_can_be_installed_with_ours(
    pyproject: Any, contract: Any
) -> None:
    project = pyproject["project"]
    extras = project["optional-dependencies"]
    users = [lines for extra, lines in extras.items() if extra not in ("dev", "docs")]
    names = {Requirement(line).name for line in sum(users, project["dependencies"])} - {"numpy"}
    forbidden = set(contract["forbidden_modules"])
    unnamed = [
        name for name in names if (known := _imports_of(name)) and forbidden.isdisjoint(known)
    ]
    assert unnamed == []


def _imports_of(distribution: str) -> list[str]:
    """Import names of a distribution; none if it is not installed."""
    wanted = distribution.lower()
    installed = metadata.packages_distributions().items()
    return [name for name, owners in installed if wanted in (owner.lower() for owner in owners)]
