"""A missing program skips tests on a user's machine, and fails them in CI."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from . import needs
from .places import ROOT

STRICT = ("CI", "MLSERVER_PYFUNC_TESTS_REQUIRE_ALL")


@pytest.fixture(autouse=True)
def lacks_curl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needs, "is_there", lambda name: name != "curl")
    for name in (*STRICT, "MLSERVER_PYFUNC_TESTS_WITHOUT"):
        monkeypatch.delenv(name, raising=False)


def test_a_missing_thing_skips_the_test() -> None:
    needs.require("openssl")
    with pytest.raises(pytest.skip.Exception, match=r"^needs curl$"):
        needs.require("openssl", "curl")


@pytest.mark.parametrize("name", STRICT)
def test_a_missing_thing_fails_the_test_in_ci(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "true")
    with pytest.raises(pytest.fail.Exception, match="curl: apt-get install curl"):
        needs.require("openssl", "curl")


def test_ci_may_do_without_a_thing_that_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    monkeypatch.setenv("MLSERVER_PYFUNC_TESTS_WITHOUT", "axe-core,curl")
    with pytest.raises(pytest.skip.Exception):
        needs.require("curl")


def test_the_summary_has_a_line_for_each_missing_thing() -> None:
    reasons = ["needs curl", "needs curl, openssl", "not for this engine"]
    assert needs.summary(reasons) == [
        "    2 skipped, need curl: apt-get install curl",
        "    1 skipped, need openssl: apt-get install openssl",
    ]


def test_finds_interpreters_with_any_home(tmp_path: Path) -> None:
    """Those in the user's own home are in PATH before a test looks for them."""
    code = "import tests.conftest, tests.needs as n; print([v for v in n.PYTHON_VERSIONS if "
    code += "n.is_there(f'Python {v}')])"
    path = os.pathsep.join(["/usr/bin", "/bin"])
    found = [
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={**os.environ, "PATH": path, "HOME": home},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for home in (os.environ["HOME"], str(tmp_path))
    ]
    assert found[0] == found[1]
    assert needs.HERE in found[0]
