"""A push to a registry, and what the lock has of it."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from mlserver_pyfunc import definition
from mlserver_pyfunc.deployment.image import record

from .build import run
from .engines import Engine
from .functions import CASES
from .registry import registry

pytestmark = pytest.mark.timeout(600)


def test_the_lock_has_the_digest_by_which_the_registry_knows_the_image(
    engine: Engine, tmp_path: Path
) -> None:
    case = CASES[0]
    folder = tmp_path / case.name
    case.write(folder)
    engine.base("3.12")
    with registry(tmp_path) as host:
        engine.storage.admit_insecure(host)
        done = run(engine, folder, "--tag", f"{host}/team/inline:1.0", "--push")
        assert done.returncode == 0, done.stderr
        manifest = httpx.head(
            f"http://{host}/v2/team/inline/manifests/1.0",
            headers={"Accept": "application/vnd.docker.distribution.manifest.v2+json"},
        )
        digest = manifest.headers["Docker-Content-Digest"]
    found = record.recorded(definition.read(folder / "function.yaml"), folder)
    assert found is not None
    assert found.reference == f"{host}/team/inline@{digest}"
    assert not found.why
