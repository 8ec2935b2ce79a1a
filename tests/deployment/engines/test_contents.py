"""What is in a built image, layer by layer, and what is not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.places import ROOT
from tests.sources.servers import git

from .build import Built, build
from .engines import Engine
from .functions import CASES, Case, write_file

SECRET = "s3cr3t-0f-th3-build"
PASSWORD = "p4ssw0rd-b3side-the-code"

pytestmark = pytest.mark.timeout(600)


@dataclass(frozen=True)
class Unpacked:
    built: Built
    layers: list[Path]

    def files(self) -> Iterator[tuple[str, Path]]:
        """Each file of each layer above the base's, by its path in the image."""
        for layer in self.layers:
            for folder, _, names in os.walk(layer):
                for name in names:
                    path = Path(folder, name)
                    yield str(path.relative_to(layer)), path


@pytest.fixture(scope="module")
def unpacked(builder: Engine, tmp_path_factory: pytest.TempPathFactory) -> Unpacked:
    """A function whose folder is as untidy as folders are, built with a secret."""
    folder = tmp_path_factory.mktemp("untidy") / "function"
    write_file(folder, instructions=["test -s /run/secrets/token && echo used > /etc/used"])
    git_folder = folder / ".git"
    git(folder, "init", "--quiet")
    assert git_folder.is_dir()
    for name in (".env", ".netrc", "__pycache__/model.pyc", "tests/test_model.py", ".venv/bin/x",
                 ".pytest_cache/CACHEDIR.TAG", "data/__pycache__/x.pyc"):  # fmt: skip
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(PASSWORD)
    (folder / "data" / "weights.txt").write_text("weights")
    token = tmp_path_factory.mktemp("secret") / "token"
    token.write_text(SECRET)
    case = Case("file", ("3.12",), write_file, "3.12", 2, "")
    built = build(builder, case, folder, "--secret", f"id=token,src={token}", name="untidy")
    target = tmp_path_factory.mktemp("layers")
    return Unpacked(built, builder.unpack_layers(built.tag, builder.base("3.12"), target))


def test_the_secret_was_there_for_the_build(unpacked: Unpacked) -> None:
    (used,) = [path for name, path in unpacked.files() if name == "etc/used"]
    assert used.read_text() == "used\n"


def test_the_secret_is_in_no_layer_nor_history_nor_setting(
    builder: Engine, unpacked: Unpacked
) -> None:
    assert _files_with(unpacked, SECRET) == []
    assert SECRET not in builder.history(unpacked.built.tag)
    assert SECRET not in str(builder.inspect(unpacked.built.tag))
    assert SECRET not in unpacked.built.said


def test_only_what_the_function_needs_is_beside_it(unpacked: Unpacked) -> None:
    inside = {name for name, _ in unpacked.files() if name.startswith("opt/function/")}
    assert inside == {
        "opt/function/function.yaml",
        "opt/function/function.lock",
        "opt/function/model-settings.json",
        "opt/function/source/model.py",
        "opt/function/source/data/weights.txt",
    }
    assert _files_with(unpacked, PASSWORD) == []


def test_no_path_of_the_machine_that_built_it_is_in_it(unpacked: Unpacked) -> None:
    assert _files_with(unpacked, str(unpacked.built.folder)) == []
    assert _files_with(unpacked, str(ROOT)) == []


def test_no_tool_nor_cache_of_the_build_is_in_it(unpacked: Unpacked) -> None:
    parts = [Path(name).parts for name, _ in unpacked.files()]
    assert not [p for p in parts if p[0] in ("build", "root", "run") and len(p) > 1]
    assert not [p for p in parts if p[-1] in ("uv", "uvx", "tools.sh") and "bin" in p]
    assert not [p for p in parts if p[-1].endswith(".whl")]


def test_the_output_folder_is_a_context_that_any_engine_builds(
    builder: Engine, tmp_path: Path
) -> None:
    folder, context = tmp_path / "function", tmp_path / "context"
    case = CASES[0]
    case.write(folder)
    builder.base("3.12")
    build(builder, case, folder, "--output", str(context))
    tag = f"localhost/pyfunc-tests/context:{builder.name}"
    builder.build(context, tag)
    with builder.running(tag, "--network=none", "--read-only", "--tmpfs=/tmp") as container:
        container.wait_until_ready(case.name)


def _files_with(unpacked: Unpacked, text: str) -> list[str]:
    found = []
    for name, path in unpacked.files():
        content = os.readlink(path).encode() if path.is_symlink() else path.read_bytes()
        if text in name or text.encode() in content:
            found.append(name)
    return found
