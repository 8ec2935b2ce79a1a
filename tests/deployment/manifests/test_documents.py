"""What the documents and examples show is what is printed, and what answers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from mlserver_pyfunc.cli import main
from tests.docs.markdown import blocks
from tests.docs.session import Step, assert_printed, run, steps
from tests.hosts.mlserver.process import ServerProcess, serving
from tests.places import EXAMPLES, ROOT

from . import schemas

sys.path.insert(0, str(ROOT / "docs"))
from generate import MANIFESTS, manifest_commands

sys.path.pop(0)

DOCUMENTS = [ROOT / "docs" / "kserve.md", ROOT / "docs" / "seldon.md"]
COMMANDS = [
    (path, arguments) for path in [*DOCUMENTS, MANIFESTS] for arguments in manifest_commands(path)
]
STEPS = [(path, step) for path in DOCUMENTS for step in steps(path)]
# What wants a cluster: the tests beside these, of cluster and platforms, have stand-ins for one.
CLUSTER = ("kubectl apply -f ", "kubectl wait ", "kubectl port-forward ")


def command_of(case: tuple[Path, list[str]]) -> str:
    path, arguments = case
    return f"{path.parent.name}/{path.stem}: {' '.join(arguments[1:])}"


@pytest.mark.parametrize("case", COMMANDS, ids=command_of)
def test_the_commands_print_what_platforms_take(
    case: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, arguments = case
    monkeypatch.chdir(ROOT)
    output = tmp_path / "out.yaml"
    at = arguments.index("-o") if "-o" in arguments else len(arguments)
    done = CliRunner().invoke(main, [*arguments[:at], "-o", str(output)])
    assert done.exit_code == 0, done.output
    for found in yaml.safe_load_all(output.read_text()):
        if schemas.knows(found):
            schemas.check(found)
    if path == MANIFESTS:
        written = ROOT / arguments[at + 1]
        assert written.read_text() == output.read_text(), f"{written.name}: run `make docs`"


def test_every_example_is_written_by_a_command() -> None:
    outputs = [arguments[arguments.index("-o") + 1] for arguments in manifest_commands(MANIFESTS)]
    assert len(outputs) == len(set(outputs))
    there = {str(path.relative_to(ROOT)) for path in MANIFESTS.parent.glob("*.yaml")}
    assert set(outputs) == there


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_every_block_is_run_or_wants_a_cluster(path: Path) -> None:
    of_steps = {block.line for step in steps(path) for block in (step.block, step.expected)}
    count = 0
    for block in blocks(path):
        if block.line in of_steps:
            continue
        assert block.language == "sh", f"line {block.line}: not run by any test"
        for line in block.text.replace("\\\n", " ").splitlines():
            if line.startswith("mlserver-pyfunc manifest "):
                count += 1
                continue
            assert line.startswith(CLUSTER), f"line {block.line}: not run by any test: {line}"
    assert count == len(manifest_commands(path))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    work = tmp_path_factory.mktemp("work")
    with serving(EXAMPLES / "iris", work, "iris") as running:
        yield running


@pytest.mark.server
@pytest.mark.parametrize(
    ("path", "step"), STEPS, ids=[f"{path.stem}: {step.name}" for path, step in STEPS]
)
def test_the_calls_are_answered_as_shown(
    path: Path, step: Step, server: ServerProcess, tmp_path: Path
) -> None:
    assert_printed(step.expected, run(step, server.rest_address, server.grpc_address, tmp_path))


def test_make_docs_writes_the_examples(tmp_path: Path) -> None:
    """The generator itself, in a copy: it writes into the tree that it stands in."""
    for name in ("docs", "examples", "mlserver_pyfunc"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (tmp_path / "examples" / "kubernetes").glob("*.yaml"):
        path.unlink()
    done = subprocess.run(
        [sys.executable, "docs/generate.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for path in MANIFESTS.parent.glob("*.yaml"):
        assert (tmp_path / path.relative_to(ROOT)).read_text() == path.read_text()
