"""Every command that docs/build.md shows is one that works."""

from __future__ import annotations

import os
import shlex
import shutil
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from mlserver_pyfunc.cli import main
from mlserver_pyfunc.definition import parse
from tests.docs.markdown import Block, blocks
from tests.places import ROOT

from .conftest import write_wheel
from .fakes import Put

DOCUMENT = ROOT / "docs" / "build.md"
SHOWN = [block for block in blocks(DOCUMENT) if block.language == "sh"]
# The images that these run, and their options, are tried in tests/deployment/engines.
ENGINES = ("docker run", "docker buildx build")


@pytest.mark.parametrize("block", SHOWN, ids=lambda block: f"line {block.line}")
def test_runs_what_the_document_shows(
    block: Block, packages: Path, put: Put, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_wheel(packages, "scikit_learn", "1.5")
    put("docker")
    put("podman")
    put("buildah")
    shutil.copytree(ROOT / "examples" / "iris", tmp_path / "examples" / "iris")
    (tmp_path / ".netrc").touch()
    (tmp_path / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for line in block.text.splitlines():
        if line.startswith(ENGINES):
            continue
        run(line.replace("/etc/ssl/certs/ca-certificates.crt", "ca.pem"), monkeypatch)


def run(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = shlex.split(line.replace("$(git log -1 --pretty=%ct)", "1600000000"))
    if words[0] == "export":
        name, _, value = words[1].partition("=")
        monkeypatch.setenv(name, value)
        return
    assert words[0] == "mlserver-pyfunc", f"not run by any test: {line}"
    done = CliRunner().invoke(main, [os.path.expandvars(word) for word in words[1:]])
    assert done.exit_code == 0, f"{line}\n{done.output}"


def test_shows_definitions_that_are_right() -> None:
    shown = [block for block in blocks(DOCUMENT) if block.language == "yaml"]
    assert shown
    for block in shown:
        parse({"source": {"source": "a.py", "handler": "f"}, **yaml.safe_load(block.text)})
