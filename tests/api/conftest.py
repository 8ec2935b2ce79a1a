"""A fake cluster, which kubeconfig files lead to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deployment.cluster import stories
from tests.deployment.cluster.fake_api import FakeCluster
from tests.deployment.cluster.fake_server import Served, kubeconfig
from tests.needs import require


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCluster]:
    """A cluster whose Deployments roll out at once; $KUBECONFIG leads to it."""
    require("CRD schemas")
    cluster = FakeCluster(stories={"Deployment": stories.rolls_out()})
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    file = tmp_path / "kubeconfig"
    monkeypatch.setenv("KUBECONFIG", str(file))
    with Served(cluster) as served:
        file.write_text(json.dumps(kubeconfig(served.url)))
        yield cluster
