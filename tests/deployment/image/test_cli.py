"""`build` and what `serve` does with what was built."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from mlserver_pyfunc.cli import main

from .conftest import WriteFunction
from .fakes import DIGEST, ID, Put

CA = "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"


def ran(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def commands(calls: Path, word: str) -> list[list[str]]:
    lines = [json.loads(line) for line in calls.read_text().splitlines()]
    return [line for line in lines if word in line]


@pytest.fixture
def folder(write_function: WriteFunction, packages: Path) -> Path:
    return write_function()


def test_builds_and_records_the_image(folder: Path, put: Put) -> None:
    put("podman")
    done = ran("build", folder, "-t", "localhost/echo:1")
    assert done.exit_code == 0, done.output
    assert f"built localhost/echo:1 by podman: {ID}" in done.output
    held = yaml.safe_load((folder / "function.lock").read_text())
    assert held["image"]["name"] == "localhost/echo:1"
    assert held["image"]["id"] == ID
    assert "source" not in held, "a build pins nothing that its author did not"


def test_records_the_digest_of_what_was_pushed(folder: Path, put: Put) -> None:
    put("buildah")
    done = ran("build", folder, "-t", "localhost/echo:1", "--push")
    assert done.exit_code == 0, done.output
    held = yaml.safe_load((folder / "function.lock").read_text())
    assert held["image"]["digest"] == DIGEST


def test_passes_on_the_engines_own_options(folder: Path, put: Put, calls: Path) -> None:
    put("buildah")
    done = ran("build", folder, "-t", "echo", "--engine-arg=--isolation=chroot")
    assert done.exit_code == 0, done.output
    (command,) = commands(calls, "build")
    assert "--isolation=chroot" in command


def test_hands_on_the_ca_bundle_and_the_indexes_as_secrets(
    folder: Path, put: Put, calls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put("podman")
    (tmp_path / "ca.pem").write_text(CA)
    monkeypatch.setenv("UV_INDEX", "https://user:secret@127.0.0.1:1/simple")
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("MLSERVER_PYFUNC_CA_BUNDLE", str(tmp_path / "ca.pem"))
    done = ran("build", folder, "-t", "echo")
    assert done.exit_code == 0, done.output
    (command,) = commands(calls, "build")
    names = [word.split(",")[0] for word in command if str(word).startswith("--secret=")]
    assert names == [
        f"--secret=id={name}" for name in ("ca-bundle", "apt-ca", "uv.toml", "pip.conf")
    ]
    assert "secret@" not in " ".join(map(str, command))


def test_writes_a_context_for_another_builder(folder: Path, put: Put, tmp_path: Path) -> None:
    done = ran("build", folder, "--output", tmp_path / "context")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "context" / "Dockerfile").is_file()
    again = ran("build", folder, "--output", tmp_path / "context")
    assert again.exit_code == 1
    assert "expected an empty folder" in again.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "no name for the image"),
        (["-t", "Echo"], 'expected "registry/name:tag", in lower case, got "Echo"'),
        (["-t", "echo", "--secret", "x"], 'expected "id=NAME,src=FILE", got "x"'),
        (["-t", "echo", "--build-arg", "1=2"], 'expected "NAME=VALUE", got "1=2"'),
        (["-t", "echo", "--server-image", "a b"], 'base image: expected "registry/name:tag"'),
    ],
)
def test_says_what_is_wrong_with_an_option(
    folder: Path, put: Put, options: list[str], message: str
) -> None:
    put("podman")
    # Only a Python that the server does not run on needs the server's image.
    text = (folder / "function.yaml").read_text()
    (folder / "function.yaml").write_text(f'{text}python_version: "3.13"\n')
    done = ran("build", folder, *options)
    assert done.exit_code == 1
    assert message in done.output
    assert "Traceback" not in done.output


def test_a_failed_build_is_not_recorded(folder: Path, put: Put) -> None:
    put("podman", {"build": (1, "STEP 1/2: RUN false\nno")})
    done = ran("build", folder, "-t", "echo")
    assert done.exit_code == 1
    assert 'podman failed at step "RUN false"' in done.output
    assert not (folder / "function.lock").exists()


def test_serve_runs_the_image_that_was_built(folder: Path, put: Put, calls: Path) -> None:
    put("podman")
    assert ran("build", folder, "-t", "echo").exit_code == 0
    done = ran("serve", folder, "--port", "18080", "--grpc-port", "18081", "--metrics-port", "0")
    assert done.exit_code == 0, done.output
    assert f"running image {ID} by podman" in done.output
    assert "try http://127.0.0.1:18080/v2/models/echo/playground" in done.output
    (command,) = commands(calls, "run")
    assert command[1:4] == ["run", "--rm", "--init"]
    assert "--publish=127.0.0.1:18080:8080" in command
    assert "--publish=127.0.0.1:18081:8081" in command


def test_serve_says_that_an_image_is_stale_or_elsewhere(
    folder: Path, put: Put, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlserver_pyfunc.hosts.mlserver import dev_server

    monkeypatch.setattr(dev_server, "run", lambda *_, **__: None)
    put("podman")
    assert ran("build", folder, "-t", "echo").exit_code == 0
    serve = ("serve", folder, "--port", "0", "--grpc-port", "0", "--metrics-port", "0")
    assert f"running image {ID} by podman\n" in ran(*serve).output
    put("podman", {"image inspect": (1, "")})
    assert ran(*serve).output == "image echo:latest is not on this machine: serving from source\n"
    (folder / "model.py").write_text("changed = 1")
    assert ran(*serve).output == (
        "image echo:latest is stale (source changed since it was built): serving from source; "
        "mlserver-pyfunc build renews it\n"
    )


def test_building_needs_no_mlserver() -> None:
    code = (
        "import sys, mlserver_pyfunc.deployment.image.builder; sys.exit('mlserver' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
