"""What the project depends on is bounded, audited, and free to be used and passed on."""

from __future__ import annotations

import importlib.metadata
import json
import re
import runpy
from collections.abc import Iterator
from typing import Any

import pytest
from packaging.requirements import Requirement

from .places import ROOT

try:
    import tomllib
except ImportError:  # Python 3.10
    import tomli as tomllib  # type: ignore[no-redef]

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
REQUIREMENTS = sorted({
    *PROJECT["build-system"]["requires"],
    *PROJECT["project"]["dependencies"],
    *(line for lines in EXTRAS.values() for line in lines),
})  # fmt: skip

USED = ("client", "isolation", "remote", "testing", "deploy")
"""Extras of users. The others are for this repository's own tests and examples."""

FREE = re.compile(r"Apache|BSD|MIT|MPL|Mozilla|PSF|Python Software Foundation|ISC|ZPL")
WITHOUT_METADATA = {"py-grpc-prometheus": "Apache-2.0", "pysimdjson": "MIT AND Apache-2.0"}
"""Licences that a package has in its repository only."""

report = runpy.run_path(str(ROOT / ".ci" / "audit.py"))["report"]


@pytest.mark.parametrize("line", REQUIREMENTS)
def test_a_requirement_has_both_bounds(line: str) -> None:
    operators = {each.operator for each in Requirement(line).specifier}
    assert operators & {"<", "==", "~="}
    assert operators & {">=", "==", "~="}


def test_programs_that_are_fetched_by_npm_are_pinned() -> None:
    places = (ROOT / ".ci" / "run", ROOT / "tests/client/playground/conftest.py")
    versions = [re.findall(r"axe-core@([\w.]+)", place.read_text()) for place in places]
    assert len(versions[0]) == 1
    assert re.fullmatch(r"\d+\.\d+\.\d+", versions[0][0])
    assert versions[0] == versions[1]


def installed(name: str, extras: tuple[str, ...], seen: set[str]) -> Iterator[str]:
    """Yields a package and all that it needs, if they are installed."""
    key = re.sub(r"[-_.]+", "-", name).lower()
    if key in seen:
        return
    seen.add(key)
    try:
        lines = importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:
        return
    yield key
    for requirement in map(Requirement, lines):
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield from installed(requirement.name, tuple(requirement.extras), seen)


def licence(name: str) -> str:
    """Returns what a package says about its licence."""
    metadata = importlib.metadata.metadata(name)
    classifiers = [line for line in metadata.get_all("Classifier", []) if "License ::" in line]
    given = [metadata.get("License-Expression"), *classifiers, metadata.get("License")]
    return next(filter(None, given), "") or WITHOUT_METADATA.get(name, "")


def test_what_an_installation_brings_is_free_to_be_used_and_passed_on() -> None:
    names = list(installed("mlserver-pyfunc", USED, set()))
    assert {"mlserver", "numpy", "orjson", "tritonclient"} <= set(names)
    assert {name: licence(name) for name in names if not FREE.search(licence(name))} == {}


FOUND = {"name": "a", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}
GOOD = {"name": "b", "version": "1", "vulns": []}
SKIPPED = {"name": "c", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("packages", "code", "last"),
    [
        ([GOOD], 0, "audit: 1 of 1 packages looked up, 0 findings"),
        ([GOOD, SKIPPED], 0, "audit: 1 of 2 packages looked up, 0 findings"),
        ([GOOD, FOUND], 1, "audit: 2 of 2 packages looked up, 1 findings"),
        ([SKIPPED], 0, "audit: skipped, the service knows no package: is it behind a mirror?"),
    ],
)
def test_an_audit_says_what_it_has_looked_up(packages: list[Any], code: int, last: str) -> None:
    got, lines = report(json.dumps({"dependencies": packages}), "")
    assert (got, lines[-1]) == (code, last)
    assert ("audit: a 1: CVE-1, fixed in 2" in lines) == (FOUND in packages)


def test_an_audit_without_a_network_is_skipped() -> None:
    code, lines = report("", "Traceback ...\nConnectionError: no route\n")
    assert code == 0
    assert lines == ["audit: skipped, the service cannot be reached: ConnectionError: no route"]


def test_extras_with_kserve_bound_tritonclient_by_its_protobuf() -> None:
    # Without `tritonclient[grpc]` beside it, pip takes one that does not import with its protobuf.
    for lines in EXTRAS.values():
        names = {name for line in lines for name in re.findall(r"^[\w-]+(?:\[[\w,]+\])?", line)}
        assert "kserve" not in names or "tritonclient[grpc,http]" in names
