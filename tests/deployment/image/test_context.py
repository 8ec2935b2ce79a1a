"""What is in a build context, and what is not."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlserver_pyfunc.definition.locate import open_folder
from mlserver_pyfunc.deployment.image import build_context
from mlserver_pyfunc.deployment.image.build_context import Options
from mlserver_pyfunc.deployment.names import BuildError
from mlserver_pyfunc.sources import lock
from mlserver_pyfunc.sources.tree import DigestError
from tests.sources.servers import Repository

from .conftest import CODE, CONTRACT, WriteFunction

pytestmark = pytest.mark.usefixtures("packages")

PRIVATE = {
    ".env": "TOKEN=secret",
    ".git/config": "secret",
    ".netrc": "secret",
    ".ssh/id_ed25519": "secret",
    "server.key": "secret",
    "__pycache__/model.cpython-311.pyc": "x",
    ".pytest_cache/x": "x",
    ".venv/bin/python": "x",
    "tests/test_model.py": "x",
    "test_model.py": "x",
    "conftest.py": "x",
}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLSERVER_PYFUNC_CACHE", str(tmp_path / "cache"))


def made(folder: Path, target: Path, **options: Any) -> Path:
    build_context.write(open_folder(folder), target, Options(**options))
    return target


def in_image(made: Path, folder: Path) -> Path:
    """The function's folder as the image has it."""
    shutil.copytree(made / "function", folder, symlinks=True)
    return folder


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("base", [None, "registry.example/python:1"])
@pytest.mark.parametrize("python", ["3.10", "3.12", "3.13"])
@pytest.mark.parametrize("kind", ["code", "base64", "folder", "file", "zip", "git"])
def test_holds_a_function_of_every_source_pinned(
    kind: str, python: str, base: str | None, write_function: WriteFunction, tmp_path: Path
) -> None:
    source = write_source(kind, tmp_path)
    keys = {"python_version": python, "build": {"instructions": ["true"]}, "source": source}
    folder = write_function(**keys, **({"base_image": base} if base else {}))
    target = made(folder, tmp_path / "context")

    inside = open_folder(in_image(target, tmp_path / "image"))
    tree = lock.fetch_locked(inside.definition, inside.folder)
    module, _, name = inside.definition.source.handler.partition(":")
    assert (tree.root / f"{module}.py").read_text() == CODE
    assert name == "predict"
    assert "sha256" in str(tree.provenance)

    text = (target / "Dockerfile").read_text()
    assert f"FROM {base or f'python:{python}-slim'} AS base\n" in text
    assert ("FROM python:3.12-slim AS python\n" in text) == (python == "3.13")
    (tree.root / f"{module}.py").write_text("changed")
    with pytest.raises(DigestError, match="tree_sha256"):
        lock.fetch_locked(inside.definition, inside.folder)


def write_source(kind: str, folder: Path) -> dict[str, str]:
    if kind in ("code", "base64"):
        encoded = "ZGVmIHByZWRpY3QoeCk6CiAgICByZXR1cm4geAo="
        return {kind: CODE if kind == "code" else encoded, "handler": "predict"}
    if kind == "file":
        return {"source": "model.py", "handler": "predict"}
    if kind == "folder":
        return {"source": ".", "handler": "model:predict"}
    if kind == "zip":
        with zipfile.ZipFile(folder / "bundle.zip", "w") as archive:
            archive.writestr("model.py", CODE)
        return {"source": str(folder / "bundle.zip"), "handler": "model:predict"}
    repository = Repository(folder / "repository")
    repository.commit({"model.py": CODE, "tests/test_it.py": "x"})
    return {"source": f"git+file://{repository.folder}#main", "handler": "model:predict"}


def test_leaves_out_secrets_tests_and_caches(write_function: WriteFunction, tmp_path: Path) -> None:
    folder = write_function({**PRIVATE, "weights.bin": "w", "lib/a.py": "a"})
    target = made(folder, tmp_path / "context")
    assert names(target / "function" / "source") == ["lib/a.py", "model.py", "weights.bin"]


def test_dockerignore_leaves_out_more_and_takes_in_what_it_names(
    write_function: WriteFunction, tmp_path: Path
) -> None:
    ignored = "# comment\n*.md\ndata/raw\n!tests\n!ca.pem\n!function.yaml\n"
    files = {"a.md": "", "lib/a.md": "", "data/raw/x": "", "data/kept": "", "ca.pem": ""}
    folder = write_function({".dockerignore": ignored, "tests/x.txt": "", **files})
    target = made(folder, tmp_path / "context")
    expected = ["ca.pem", "data/kept", "lib/a.md", "model.py", "tests/x.txt"]
    assert names(target / "function" / "source") == expected


def test_large_files_have_a_layer_before_the_code(
    write_function: WriteFunction, tmp_path: Path
) -> None:
    folder = write_function({"model/weights.bin": "w" * 2**20, "model/small.bin": "w"})
    target = made(folder, tmp_path / "context")
    assert names(target / "weights") == ["model/weights.bin"]
    assert names(target / "function" / "source") == ["model.py", "model/small.bin"]
    text = (target / "Dockerfile").read_text()
    assert text.index("COPY weights /opt/function/source") < text.index("COPY function")


def test_warns_of_files_that_look_like_credentials(
    write_function: WriteFunction, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = "-----BEGIN " + "PRIVATE KEY-----\n"
    files = {"lib/client-secrets.json": "{}", "deploy.txt": f"x\n{key}", "a.py": "key = 'AKIA'\n"}
    files |= {"aws.cfg": "id = AKIA" + "A" * 16, "tokenizer.json": "{}", "secret_santa.py": ""}
    made(write_function(files), tmp_path / "context")
    said = capsys.readouterr().err
    assert re.findall(r'warning: "(.*?)" looks like a credential', said) == [
        "aws.cfg",
        "deploy.txt",
        "lib/client-secrets.json",
    ]


def test_labels_name_the_base_and_those_of_the_definition_come_over_ours(
    write_function: WriteFunction, tmp_path: Path
) -> None:
    base = "python:3.12-slim@sha256:" + "a" * 64
    labels = {"org.opencontainers.image.licenses": "MIT", "org.opencontainers.image.title": "mine"}
    folder = write_function(base_image=base, build={"labels": labels})
    text = (made(folder, tmp_path / "context") / "Dockerfile").read_text()
    assert 'org.opencontainers.image.base.name="python:3.12-slim"' in text
    assert f'org.opencontainers.image.base.digest="sha256:{"a" * 64}"' in text
    assert 'org.opencontainers.image.licenses="MIT"' in text
    assert text.count("org.opencontainers.image.title") == 1


def test_takes_the_samples_of_a_warm_up(write_function: WriteFunction, tmp_path: Path) -> None:
    elsewhere = tmp_path / "model.py"
    elsewhere.write_text(CODE)
    folder = write_function(
        {"samples/one.json": "{}"},
        source={"source": str(elsewhere), "handler": "predict"},
        serving={"warmup": {"samples": ["samples/one.json"]}},
    )
    target = made(folder, tmp_path / "context")
    assert "samples/one.json" in names(target / "function")


def test_takes_no_neighbours_of_a_file_elsewhere(
    write_function: WriteFunction, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "model.py").write_text(CODE)
    (elsewhere / "letter.txt").write_text("private")
    source = {"source": str(elsewhere / "model.py"), "handler": "predict"}
    target = made(write_function(source=source), tmp_path / "context")
    assert names(target / "function" / "source") == ["model.py"]


def test_refuses_a_link_out_of_the_source(write_function: WriteFunction, tmp_path: Path) -> None:
    folder = write_function()
    (folder / "data").symlink_to("/etc")
    with pytest.raises(BuildError, match=r'"data" links to "/etc", outside of the source'):
        made(folder, tmp_path / "context")


@pytest.mark.parametrize("kind", ["file", "zip", "git"])
@pytest.mark.usefixtures("cache")
def test_names_no_path_of_this_machine(
    kind: str, write_function: WriteFunction, tmp_path: Path
) -> None:
    folder = write_function(source=write_source(kind, tmp_path), requirements=["extra"])
    target = made(folder, tmp_path / "context")
    for name in names(target):
        assert str(tmp_path).encode() not in (target / name).read_bytes(), name


def test_equal_functions_make_equal_contexts(write_function: WriteFunction, tmp_path: Path) -> None:
    folder = write_function({"run.sh": "#!/bin/sh"}, requirements=["extra"])
    (folder / "run.sh").chmod(0o700)
    one, two = (made(folder, tmp_path / name) for name in ("one", "two"))
    assert names(one) == names(two)
    for name in names(one):
        assert (one / name).read_bytes() == (two / name).read_bytes(), name
    assert oct((one / "function/source/run.sh").stat().st_mode) == oct(0o100755)
    assert oct((one / "function/source/model.py").stat().st_mode) == oct(0o100644)


def test_a_platform_may_name_the_model(write_function: WriteFunction, tmp_path: Path) -> None:
    """A name in model-settings.json would come before the one that a platform sets."""
    settings = {
        "name": "echo",
        "implementation": "mlserver_pyfunc.PyFuncRuntime",
        "parameters": {"uri": "/home/me", "version": "2", "extra": {"function": ".", "a": 1}},
    }
    folder = write_function({"model-settings.json": json.dumps(settings)})
    target = made(folder, tmp_path / "context")
    assert json.loads((target / "function" / "model-settings.json").read_text()) == {
        "implementation": "mlserver_pyfunc.PyFuncRuntime",
        "parameters": {"extra": {"a": 1}, "version": "2"},
    }
    assert 'MLSERVER_MODEL_NAME="echo"' in (target / "Dockerfile").read_text()


def test_settings_go_in_without_ports(write_function: WriteFunction, tmp_path: Path) -> None:
    """Ports in a settings.json would come before those that a platform sets."""
    folder = write_function({"settings.json": '{"http_port": 1, "debug": true, "host": "::1"}'})
    target = made(folder, tmp_path / "context")
    assert json.loads((target / "function" / "settings.json").read_text()) == {"debug": True}


def test_a_definition_in_model_settings_becomes_a_file(
    write_function: WriteFunction, tmp_path: Path
) -> None:
    function = {"source": {"source": "model.py", "handler": "predict"}, **CONTRACT}
    settings = {
        "name": "other",
        "implementation": "mlserver_pyfunc.PyFuncRuntime",
        "parameters": {"extra": {"function": function}},
    }
    folder = write_function({"model-settings.json": json.dumps(settings)})
    (folder / "function.yaml").unlink()
    target = made(folder, tmp_path / "context")
    inside = open_folder(in_image(target, tmp_path / "image"))
    assert inside.definition.outputs[0].name == "y"
    assert "extra" not in (target / "function" / "model-settings.json").read_text()


def test_a_source_that_differs_from_its_lock_is_not_built(
    write_function: WriteFunction, tmp_path: Path
) -> None:
    folder = write_function()
    opened = open_folder(folder)
    lock.write(opened.definition, folder)
    (folder / "model.py").write_text("changed = 1")
    with pytest.raises(DigestError, match=r"renew function\.lock"):
        made(folder, tmp_path / "context")


def test_an_environment_of_its_own_says_what_it_was_made_for(
    write_function: WriteFunction, tmp_path: Path
) -> None:
    folder = write_function(requirements=["shared>=2"])
    target = made(folder, tmp_path / "context")
    assert json.loads((target / "environment.json").read_text()) == {
        "python_version": "3.12",
        "requirements": ["shared>=2", "numpy"],
    }


def test_the_wheel_is_this_package(write_function: WriteFunction, tmp_path: Path) -> None:
    target = made(write_function(), tmp_path / "context")
    (wheel,) = target.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert archive.testzip() is None
        found = archive.namelist()
        entry_points = next(name for name in found if name.endswith("entry_points.txt"))
        assert "mlserver-pyfunc = mlserver_pyfunc.cli:main" in archive.read(entry_points).decode()
    assert "mlserver_pyfunc/function.schema.json" in found
    image = "mlserver_pyfunc/deployment/image"
    assert {f"{image}/{name}" for name in ("Dockerfile.jinja", "python.sh", "tools.sh")} <= {*found}
    assert not [name for name in found if "__pycache__" in name]


def test_the_lock_in_the_image_remembers_where_the_source_came_from(
    write_function: WriteFunction, tmp_path: Path
) -> None:
    repository = Repository(tmp_path / "repository")
    commit = repository.commit({"model.py": CODE, "tests/test_it.py": "x"})
    source = {"source": f"git+file://{repository.folder}#main", "handler": "model:predict"}
    target = made(write_function(source=source), tmp_path / "context")
    held = yaml.safe_load((target / "function" / "function.lock").read_text())
    assert held["origin"]["commit"] == commit
    assert held["origin"]["tree_sha256"] != held["tree_sha256"], "the tests are left out"
    text = (target / "Dockerfile").read_text()
    assert f'org.opencontainers.image.revision="{commit}"' in text
