"""A function on a cluster, as an object: its state, its logs, its answers, and its end."""

from __future__ import annotations

import json
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mlserver_pyfunc import Deployment, Function
from mlserver_pyfunc.cli import main
from mlserver_pyfunc.client import CallError
from mlserver_pyfunc.deployment.cluster import waiting
from mlserver_pyfunc.deployment.cluster.errors import ClusterError
from mlserver_pyfunc.deployment.manifests import ManifestError
from tests.deployment.cluster import stories
from tests.deployment.cluster.fake_api import FakeCluster
from tests.places import FUNCTIONS

FLAKY = FUNCTIONS / "flaky"
IMAGE = "registry.example.com/flaky:1"
PLACE = ("kubernetes", FLAKY, "--image", IMAGE, "--replicas", 2)
LABELS = {"app.kubernetes.io/instance": "flaky"}


@pytest.fixture
def deployed(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> Deployment:
    monkeypatch.setattr(waiting, "SETTLE_SECONDS", 0.2)
    found: Deployment = Function.load(FLAKY).deploy("kubernetes", image=IMAGE, replicas=2)
    return found


def command(*words: Any) -> tuple[int, str]:
    done = CliRunner().invoke(main, [*map(str, words)], prog_name="mlserver-pyfunc")
    return done.exit_code, done.output


def test_a_function_without_a_definition_is_deployed_and_tells_what_it_does(
    cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "halving.py").write_text("def halved(x: float) -> float:\n    return x / 2\n")
    monkeypatch.syspath_prepend(tmp_path)
    function = Function(import_module("halving").halved)
    deployed = function.deploy("kubernetes", image=IMAGE, shape="inline")
    assert deployed.status().is_ready
    assert deployed.warnings == []
    given = cluster.objects["ConfigMap", "default", "halved-function"]["data"]
    assert json.loads(given["MLSERVER_MODEL_EXTRA"])["function"]["source"]["handler"] == "halved"
    assert deployed.addresses().rest[-1].url == "http://halved.default.svc.cluster.local"
    told: list[tuple[str, ...]] = []
    deployed.on_change = lambda one: told.append((one.target.title, one.change))
    deployed.on_progress = lambda title, text: told.append((title, text))
    assert deployed.apply(dry_run=True, replicas=3)["Deployment/halved"] == "updated"
    assert ("Deployment/halved", "updated") in told
    assert cluster.objects["Deployment", "default", "halved"]["spec"]["replicas"] == 1
    deployed.delete()
    assert ("Deployment/halved", "deleted") in told
    assert ("Deployment/halved", "gone") in told


@pytest.mark.parametrize("options", [{"replicas": -1}, {"replicas": 3, "dry_run": True}])
def test_options_that_were_not_applied_are_not_kept(
    options: dict[str, Any], deployed: Deployment, cluster: FakeCluster
) -> None:
    with suppress(ManifestError):
        deployed.apply(**options)
    deployed.apply()
    assert cluster.objects["Deployment", "default", "flaky"]["spec"]["replicas"] == 2


def test_it_tells_its_state(deployed: Deployment, cluster: FakeCluster) -> None:
    assert deployed.status().is_ready
    assert deployed.status().objects["Deployment/flaky"] == "ready"
    assert repr(deployed).startswith("Deployment(flaky on kubernetes, {'image'")
    assert command("status", *PLACE)[0] == 0
    waits = stories.waiting("ImagePullBackOff", "Back-off")
    cluster.stories["Deployment"] = stories.has_pod(waits, LABELS)
    del cluster.objects["Deployment", "default", "flaky"]["status"]
    status = deployed.status()
    assert not status.is_ready
    assert "its image cannot be pulled" in status.objects["Deployment/flaky"]
    code, shown = command("status", *PLACE)
    assert code == 1
    assert dict(line.split("\t") for line in shown.splitlines()) == status.objects


def test_it_shows_what_its_pods_have_written(deployed: Deployment, cluster: FakeCluster) -> None:
    cluster.pod("flaky-1", LABELS, {"containerStatuses": [{"name": "mlserver"}]})
    cluster.logs["flaky-1/mlserver"] = "one\ntwo\n"
    assert deployed.logs() == "==> flaky-1/mlserver <==\none\ntwo\n"
    assert deployed.logs(lines=1).endswith("<==\ntwo\n")
    code, shown = command("logs", *PLACE, "--lines", 1)
    assert (code, shown.split()[-1]) == (0, "two")


@pytest.mark.server
def test_it_is_called_by_the_proxy_of_the_cluster(
    deployed: Deployment, cluster: FakeCluster
) -> None:
    with pytest.raises(CallError, match="no endpoints"):
        deployed.infer(x=[1])
    with Function.load(FLAKY).serve() as server:
        cluster.backends["flaky:80"] = server.url
        (answer,) = deployed.infer(x=[1, 2]).values()
        assert answer.tolist() == [2, 4]
        with pytest.raises(CallError, match="seven"):
            deployed.infer(x=7)


def test_it_stops_starts_and_goes(deployed: Deployment, cluster: FakeCluster) -> None:
    deployed.stop()
    assert cluster.objects["Deployment", "default", "flaky"]["spec"]["replicas"] == 0
    assert deployed.status().objects["Deployment/flaky"] == "scaled to zero"
    assert deployed.apply(replicas=1)["Deployment/flaky"] == "updated"
    deployed.wait()
    assert deployed.delete()["Deployment/flaky"] == "deleted"
    assert deployed.status().objects["Deployment/flaky"] == "absent"
    assert set(deployed.delete().values()) == {"absent"}


def test_a_platform_that_keeps_a_replica_says_so(cluster: FakeCluster) -> None:
    with pytest.raises(ManifestError, match="expected 1 or more"):
        Function.load(FLAKY).deployment("kserve", image=IMAGE).stop()
    with pytest.raises(ManifestError, match="replica"):
        Function.load(FLAKY).deploy("kubernetes", image=IMAGE, replica=1)


def test_errors_of_the_cluster_say_what_to_do(
    cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    with pytest.raises(ClusterError, match="no kubeconfig"):
        Function.load(FLAKY).deployment("kubernetes", image=IMAGE).status()
    code, shown = command("status", *PLACE)
    assert code == 1
    assert "next: give one by --kubeconfig" in shown
