"""Behind a proxy that inspects TLS: one option lets its authority in."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from . import bases
from .build import PROGRAM
from .engines import Engine
from .functions import NUMBERS, write_file
from .index import Authority, InspectedIndex, authority

TAG = "localhost/pyfunc-tests/inspected:1"
_TRUST = ("SSL_CERT_FILE", "SSL_CERT_DIR", "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def index(signer: Authority) -> Iterator[InspectedIndex]:
    server = InspectedIndex(signer.server)
    yield server
    server.close()


@pytest.fixture
def behind(index: InspectedIndex, tmp_path: Path) -> dict[str, str]:
    """The environment of a user whose only index is behind the proxy, and who trusts nothing."""
    kept = {name: value for name, value in os.environ.items() if name not in _TRUST}
    return {
        **kept,
        "UV_DEFAULT_INDEX": index.index,
        "PIP_INDEX_URL": index.index,
        "PIP_CONFIG_FILE": os.devnull,
        "MLSERVER_PYFUNC_CACHE": str(tmp_path / "cache"),
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A function with a requirement that no other test fetches, so that the index is asked."""
    folder = tmp_path / "function"
    write_file(folder)
    return folder


def test_an_environment_is_made_only_with_the_option(
    behind: dict[str, str], index: InspectedIndex, signer: Authority, folder: Path
) -> None:
    refused = _run(["env", folder], behind)
    assert refused.returncode != 0
    assert "certificate" in refused.stderr
    assert "MLSERVER_PYFUNC_CA_BUNDLE" in refused.stderr
    assert "Traceback" not in refused.stderr
    made = _run(["env", folder], {**behind, "MLSERVER_PYFUNC_CA_BUNDLE": str(signer.bundle)})
    assert made.returncode == 0, made.stderr
    assert "tabulate==0.9.0" in made.stdout
    assert any(path.startswith("/simple/tabulate") for _, path, _ in index.requests)


def test_an_image_is_built_only_with_the_option(
    builder: Engine, behind: dict[str, str], index: InspectedIndex, signer: Authority, folder: Path
) -> None:
    definition = yaml.safe_load((folder / "function.yaml").read_text())
    definition["base_image"] = bases.make_plain_python(builder.storage, "3.12")
    (folder / "function.yaml").write_text(yaml.safe_dump(definition))
    builder.have(definition["base_image"])
    env = {**builder.env, **behind}
    for name in _TRUST:
        env.pop(name, None)
    command: list[str | Path] = [
        "build", folder, "--tag", TAG, "--engine", builder.name, "--engine-arg=--network=host",
        "--no-cache",
    ]  # fmt: skip
    # Here, and where only this machine trusts the authority, in the build's first step.
    for more in ({}, {"SSL_CERT_FILE": str(signer.bundle)}):
        refused = _run(command, env | more)
        assert refused.returncode != 0
        assert "certificate" in refused.stderr
        assert "--ca-bundle" in refused.stderr
    made = _run([*command, f"--ca-bundle={signer.bundle}"], env)
    assert made.returncode == 0, made.stderr
    assert any(path.startswith("/packages/") for _, path, _ in index.requests)
    with builder.running(TAG, "--network=none", "--read-only", "--tmpfs=/tmp") as container:
        container.wait_until_ready("file")
        assert container.infer("file", [NUMBERS])["rest"]["y"] == [2.0, -5.0, 8.0]
    # The authority was for the build: it is no part of what was built.
    assert "CERTIFICATE" not in str(builder.inspect(TAG)) + builder.history(TAG)
    assert "SSL_CERT_FILE" not in str(builder.inspect(TAG)["Config"]["Env"])


def _run(command: list[str | Path], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([PROGRAM, *command], env=env, capture_output=True, text=True, check=False)
