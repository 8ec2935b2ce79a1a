"""Every place that runs a server has the same ports and lean settings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mlserver_pyfunc.deployment.image.dockerfile import render
from mlserver_pyfunc.deployment.manifests import pod
from mlserver_pyfunc.deployment.server_settings import CONTAINER_VARIABLES, LEAN, PORTS
from mlserver_pyfunc.hosts.mlserver import dev_server
from tests.places import ROOT

from .image.test_dockerfile import recipe

GRPC_LIMIT = "MLSERVER_GRPC_MAX_MESSAGE_LENGTH"


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dev_server.Settings:
    """The settings that `serve` starts a server with."""
    for name in LEAN:
        monkeypatch.delenv(f"MLSERVER_{name.upper()}", raising=False)
    return dev_server._settings(tmp_path, {"host": "127.0.0.1", "http_port": PORTS.http})


def test_serve_the_image_and_the_manifests_have_one_limit_of_grpc_messages(
    served: dev_server.Settings,
) -> None:
    limits = {
        "serve": str(served.grpc_max_message_length),
        "image": re.findall(rf'{GRPC_LIMIT}="(\d+)"', render(recipe()))[0],
        "manifests": pod.SETTINGS[GRPC_LIMIT],
        "Dockerfile": re.findall(rf"{GRPC_LIMIT}=(\d+)", (ROOT / "Dockerfile").read_text())[0],
        "docs": re.findall(
            r"`grpc_max_message_length` \| (\d+)", (ROOT / "docs" / "performance.md").read_text()
        )[0],
    }
    assert set(limits.values()) == {"268435456"}, limits


def test_serve_takes_every_lean_setting(served: dev_server.Settings) -> None:
    assert {name: getattr(served, name) for name in LEAN} == dict(LEAN)


def test_the_variables_of_a_container_are_the_settings_of_serve() -> None:
    variables = {name: CONTAINER_VARIABLES[f"MLSERVER_{name.upper()}"] for name in LEAN}
    assert variables == {name: str(value).lower() for name, value in LEAN.items()}
