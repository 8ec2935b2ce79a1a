"""Every way a cluster says no is one clear message with what to do next."""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from mlserver_pyfunc.deployment.cluster.errors import ClusterError, refused
from mlserver_pyfunc.deployment.cluster.kubeconfig import connect
from mlserver_pyfunc.deployment.server_settings import free_ports
from tests.places import IRIS
from tests.sources.servers import certificate

from . import stories
from .conftest import IMAGE, Cli
from .fake_api import FakeCluster
from .fake_server import Served, kubeconfig


def test_no_kubeconfig(cli: Cli) -> None:
    cli.kubeconfig.unlink()
    said = cli.run("kserve")
    assert said.code == 1
    assert f"no kubeconfig: expected one at {cli.kubeconfig}" in said.err
    assert "--kubeconfig" in said.err


@pytest.mark.parametrize("text", ["}{", "[]", "{}", '{"contexts": [{"name": 1}]}'])
def test_a_kubeconfig_that_is_none(text: str, cli: Cli) -> None:
    cli.kubeconfig.write_text(text)
    said = cli.call("kserve")
    assert said.code == 1
    assert "kubeconfig" in said.err
    assert "Traceback" not in said.err


def test_a_machine_without_the_kubernetes_client() -> None:
    code = (
        "import sys; sys.modules['kubernetes'] = None; from mlserver_pyfunc.cli import main; main()"
    )
    command = [sys.executable, "-c", code, "status", "kserve", str(IRIS), "--image", IMAGE]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "error: the Kubernetes client is not installed" in done.stderr
    assert 'next: pip install "mlserver-pyfunc[deploy]"' in done.stderr


def test_all_names_of_the_package_can_be_imported_without_the_kubernetes_client() -> None:
    code = "import sys; sys.modules['kubernetes'] = None; from mlserver_pyfunc import *"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_cluster_that_does_not_answer(cli: Cli) -> None:
    (port,) = free_ports(1)
    cli.kubeconfig.write_text(json.dumps(kubeconfig(f"http://127.0.0.1:{port}")))
    said = cli.run("kserve")
    assert said.code == 4
    expected = f"the cluster at http://127.0.0.1:{port} does not answer: Failed to establish"
    assert expected in said.err
    assert "Connection refused" in said.err


def test_a_cluster_whose_name_has_no_address(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("no_proxy", "*")
    cli.kubeconfig.write_text(json.dumps(kubeconfig("http://cluster.invalid:6443")))
    said = cli.call("kserve")
    assert said.code == 4
    assert "http://cluster.invalid:6443 does not answer" in said.err


def test_credentials_that_are_not_accepted(cli: Cli, cluster: FakeCluster) -> None:
    cluster.is_unauthorized = True
    said = cli.call("kserve")
    assert said.code == 1
    assert "does not accept these credentials (401)" in said.err
    assert "t0ken" not in said.err + said.out


@pytest.mark.parametrize("verb", ["get", "patch"])
def test_a_right_that_is_missing(verb: str, cli: Cli, cluster: FakeCluster) -> None:
    cluster.forbidden = {(verb, "inferenceservices")}
    said = cli.call("kserve")
    assert said.code == 1
    assert f'User "dev" cannot {verb} resource "inferenceservices"' in said.err
    assert "kubectl auth can-i" in said.err


def test_a_right_to_delete_that_is_missing(cli: Cli, cluster: FakeCluster) -> None:
    cli.call("kserve", "--no-wait")
    cluster.forbidden = {("delete", "inferenceservices")}
    said = cli.call("kserve", "--delete")
    assert 'User "dev" cannot delete resource "inferenceservices"' in said.err


@pytest.mark.parametrize(
    ("platform", "args", "kind", "hint"),
    [
        ("kserve", (), "InferenceService", "install KServe"),
        ("seldon-v1", (), "SeldonDeployment", "install Seldon Core 1"),
        ("seldon-v2", ("--storage-uri", "gs://m/i"), "Server", "install Seldon Core 2"),
        ("kubernetes", ("--max-replicas", 3), "HorizontalPodAutoscaler", "Kubernetes 1.23"),
    ],
)
def test_a_kind_that_the_cluster_does_not_have(
    platform: str, args: tuple[object, ...], kind: str, hint: str, cli: Cli, cluster: FakeCluster
) -> None:
    cluster.absent = {kind}
    said = cli.call(platform, *args)
    assert said.code == 1
    assert f"the cluster has no {kind} of" in said.err
    assert hint in said.err
    assert not cluster.objects


def test_a_namespace_that_is_not_there(cli: Cli) -> None:
    said = cli.call("kserve", "-n", "nowhere")
    assert said.code == 1
    assert 'the cluster has no namespace "nowhere"' in said.err
    assert "kubectl create namespace nowhere" in said.err


def test_a_conflict_names_the_manager_and_the_field(cli: Cli, cluster: FakeCluster) -> None:
    cli.call("kubernetes", "--no-wait")
    live = cluster.find("Deployment", "iris")
    live["spec"]["replicas"] = 5
    entry = {"manager": "kubectl-scale", "operation": "Apply", "fields": ["spec\0replicas"]}
    live["metadata"]["managedFields"].append(entry)
    said = cli.run("kubernetes", "--replicas", 2, "--no-wait")
    assert said.code == 1
    assert "Deployment/iris: the cluster refused it (409): Apply failed" in said.err
    assert 'conflict with "kubectl-scale" using apps/v1: .spec.replicas' in said.err
    assert "--force-conflicts" in said.err
    assert live["spec"]["replicas"] == 5
    forced = cli.call("kubernetes", "--replicas", 2, "--no-wait", "--force-conflicts")
    assert forced.code == 0
    assert cluster.find("Deployment", "iris")["spec"]["replicas"] == 2


def test_an_object_that_is_not_valid_names_the_field(cli: Cli) -> None:
    from mlserver_pyfunc.deployment.cluster.apply import apply, targets

    cluster = connect(cli.kubeconfig)
    broken = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "iris"},
        "spec": {"predictor": {"minReplicas": "two", "containers": [{"image": 3}]}},
    }
    try:
        wanted = targets(cluster, [broken])
        with pytest.raises(ClusterError) as caught:
            list(apply(cluster, wanted, force=False, dry_run=False))
    finally:
        cluster.close()
    assert "InferenceService/iris: the cluster refused it (422)" in str(caught.value)
    assert "spec.predictor.minReplicas: 'two' is not of type 'integer'" in str(caught.value)
    assert "spec.predictor.containers[0].image" in str(caught.value)


def test_an_object_that_is_being_deleted(cli: Cli, cluster: FakeCluster) -> None:
    cli.call("kserve", "--no-wait")
    live = cluster.find("InferenceService", "iris")
    live["metadata"]["deletionTimestamp"] = "2026-11-22T10:00:00Z"
    said = cli.call("kserve", "--memory", "2Gi")
    assert said.code == 1
    assert 'InferenceService "iris" is being deleted' in said.err


@pytest.mark.parametrize("hiccup", [429, 503, 504, 0])
def test_a_failure_that_passes_is_tried_again(hiccup: int, cli: Cli, cluster: FakeCluster) -> None:
    cluster.stories["InferenceService"] = stories.serves()
    cluster.hiccups = [hiccup, hiccup]
    said = cli.call("kserve")
    assert said.code == 0, said.err


def test_a_failure_that_stays_is_told(cli: Cli, cluster: FakeCluster) -> None:
    cluster.hiccups = [503] * 20
    said = cli.call("kserve")
    assert said.code == 1
    assert "the cluster cannot answer now (503): the server is shutting down" in said.err
    assert len(cluster.requests) == 4


def test_discovery_that_fails_is_not_taken_for_a_kind_that_is_missing(
    cli: Cli, cluster: FakeCluster
) -> None:
    """The dynamic client itself takes an answer of 503 for an API group with no kinds."""
    connection = connect(cli.kubeconfig)
    try:
        cluster.hiccups = [503] * 4
        with pytest.raises(ClusterError, match=r"cannot answer now \(503\)"):
            connection.resource("apps/v1", "Deployment")
        assert connection.resource("apps/v1", "Deployment").name == "deployments"
    finally:
        connection.close()


def test_connecting_leaves_no_file_behind(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The dynamic client keeps what it discovers in the folder of temporary files by default."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    connection = connect(cli.kubeconfig)
    connection.resource("apps/v1", "Deployment")
    connection.close()
    assert not list(folder.iterdir())


def test_the_client_that_is_not_installed_is_named(cli: Cli) -> None:
    program = (
        "import sys; sys.modules['kubernetes'] = None; import mlserver_pyfunc.cli as c;"
        "c.main(['deploy', 'kserve', 'examples/iris', '--image', 'r/x:1'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert 'pip install "mlserver-pyfunc[deploy]"' in done.stderr
    assert "Traceback" not in done.stderr


def test_a_cluster_whose_certificate_is_not_trusted(cli: Cli, tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate(tmp_path))
    with Served(FakeCluster(), context) as served:
        cli.kubeconfig.write_text(json.dumps(kubeconfig(served.url)))
        said = cli.call("kserve")
        assert said.code == 4
        assert f"the cluster at {served.url} does not answer: " in said.err
        assert "certificate verify failed" in said.err
        assert len(said.err.splitlines()) == 2


def test_a_refusal_without_a_reason_says_so() -> None:
    refusal = refused(500, "", 'Deployment "iris"', "https://cluster")
    assert str(refusal).endswith("the cluster refused it (500): it gives no reason")
