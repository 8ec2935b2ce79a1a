"""Create, update and delete, by the real command line against a fake API server."""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from mlserver_pyfunc.deployment.cluster.api import FIELD_MANAGER
from tests.docs.console import on_a_terminal
from tests.places import IRIS

from . import stories
from .conftest import IMAGE, PROGRAM, Cli
from .fake_api import FakeCluster, Object
from .fake_server import Served, kubeconfig

PLATFORMS = {
    "kserve": ["InferenceService/iris"],
    "seldon-v1": ["SeldonDeployment/iris"],
    "seldon-v2": ["Server/mlserver-pyfunc", "Model/iris"],
    "kubernetes": ["Service/iris", "Deployment/iris"],
}


@pytest.fixture
def healthy(cluster: FakeCluster) -> FakeCluster:
    """A cluster whose controllers do their work within half a second."""
    cluster.stories = {
        "Deployment": stories.rolls_out(0.5),
        "InferenceService": stories.serves(seconds=0.5),
        "SeldonDeployment": stories.is_available(0.5),
        "Server": stories.has_condition(),
        "Model": stories.has_condition(),
    }
    return cluster


def options(platform: str) -> list[str]:
    return ["--storage-uri", "gs://models/iris"] if platform == "seldon-v2" else []


@pytest.mark.parametrize("platform", PLATFORMS)
def test_puts_a_function_on_each_platform_and_tells_where_it_is(
    platform: str, cli: Cli, healthy: FakeCluster
) -> None:
    said = cli.run(platform, *options(platform))
    assert said.code == 0, said.err
    for title in PLATFORMS[platform]:
        kind, name = title.split("/")
        assert f"{title} in default: created" in said.out
        assert healthy.find(kind, name)
        assert f"{title}: ready" in said.err
    assert "iris is ready" in said.out
    assert re.search(r"REST, in the cluster: http://\S+/v2/models/iris", said.out)
    assert "/v2/models/iris/infer" in said.out


def test_a_function_of_one_file_is_deployed_without_a_definition(
    cli: Cli, healthy: FakeCluster, tmp_path: Path
) -> None:
    code = "def double(x: float) -> float:\n    return 2 * x\n"
    (tmp_path / "model.py").write_text(code)
    said = cli.run("kubernetes", "--shape", "inline", folder=tmp_path / "model.py:double")
    assert said.code == 0, said.err
    assert "ConfigMap/double-function in default: created" in said.out
    assert "Deployment/double: ready" in said.err
    assert "double is ready" in said.out
    assert "mlserver-pyfunc infer http://localhost:8080 -m double --random" in said.out
    live = healthy.find("Deployment", "double")
    (container,) = live["spec"]["template"]["spec"]["containers"]
    assert container["image"] == IMAGE
    assert container["envFrom"] == [{"configMapRef": {"name": "double-function"}}]
    given = healthy.find("ConfigMap", "double-function")["data"]["MLSERVER_MODEL_EXTRA"]
    source = json.loads(given)["function"]["source"]
    assert source["handler"] == "double"
    assert base64.b64decode(source["base64"]).decode() == code
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kubeconfig", "model.py"]


def test_progress_tells_what_is_being_waited_for(cli: Cli, healthy: FakeCluster) -> None:
    healthy.stories["InferenceService"] = stories.serves_after(5)
    said = cli.call("kserve")
    assert "InferenceService/iris: PredictorReady: MinimumReplicasUnavailable" in said.err


def test_progress_on_a_terminal_is_drawn_and_taken_away(cli: Cli, healthy: FakeCluster) -> None:
    healthy.stories["InferenceService"] = stories.serves_after(5)
    command = shlex.join([PROGRAM, "deploy", "kserve", str(IRIS), "--image", IMAGE])
    environment = {**os.environ, "KUBECONFIG": str(cli.kubeconfig), "TERM": "xterm"}
    shown = on_a_terminal(command, IRIS, environment)
    assert "InferenceService/iris PredictorReady: MinimumReplicasUnavailable" in shown
    assert "InferenceService/iris: ready" not in shown
    assert "iris is ready" in shown


def test_what_is_applied_again_is_unchanged(cli: Cli, healthy: FakeCluster) -> None:
    cli.call("kubernetes")
    said = cli.call("kubernetes")
    assert "Deployment/iris in default: unchanged" in said.out
    assert "Service/iris in default: unchanged" in said.out


def test_an_update_changes_fields_and_removes_those_that_are_gone(
    cli: Cli, healthy: FakeCluster
) -> None:
    cli.call("kubernetes", "--env", "MODE=fast", "--label", "team=a")
    said = cli.call("kubernetes", "--memory", "3Gi")
    assert "Deployment/iris in default: updated" in said.out
    live = healthy.find("Deployment", "iris")
    container = live["spec"]["template"]["spec"]["containers"][0]
    assert container["resources"]["requests"]["memory"] == "3Gi"
    assert "MODE" not in {entry["name"] for entry in container["env"]}
    assert "team" not in live["metadata"]["labels"]


def test_an_update_removes_the_autoscaler_that_is_no_longer_asked_for(
    cli: Cli, healthy: FakeCluster
) -> None:
    cli.call("kubernetes", "--max-replicas", 3)
    assert healthy.find("HorizontalPodAutoscaler", "iris")
    healthy.put({
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {
            "name": "somebody-elses",
            "labels": healthy.find("HorizontalPodAutoscaler", "iris")["metadata"]["labels"],
        },
    })  # fmt: skip
    said = cli.call("kubernetes")
    assert "HorizontalPodAutoscaler/iris in default: deleted" in said.out
    assert not healthy.find("HorizontalPodAutoscaler", "iris")
    assert not healthy.find("PodDisruptionBudget", "iris")
    assert healthy.find("HorizontalPodAutoscaler", "somebody-elses")


def test_no_wait_returns_when_all_is_applied(cli: Cli, cluster: FakeCluster) -> None:
    said = cli.call("kserve", "--no-wait")
    assert said.code == 0
    assert said.out == "InferenceService/iris in default: created\n"


def test_a_dry_run_changes_nothing(cli: Cli, cluster: FakeCluster) -> None:
    said = cli.run("kubernetes", "--max-replicas", 3, "--dry-run")
    assert said.code == 0, said.err
    assert "HorizontalPodAutoscaler/iris in default: would be created" in said.out
    assert not cluster.objects
    assert all("dryRun=All" in path for method, path in cluster.requests if method == "PATCH")


def test_nothing_is_applied_where_the_cluster_refuses_any_object(
    cli: Cli, cluster: FakeCluster
) -> None:
    cluster.forbidden = {("patch", "poddisruptionbudgets")}
    said = cli.call("kubernetes", "--max-replicas", 3)
    assert said.code == 1
    assert 'User "dev" cannot patch resource "poddisruptionbudgets"' in said.err
    assert not cluster.objects


def test_the_namespace_is_that_of_the_option_else_of_the_context(
    cli: Cli, served: Served, healthy: FakeCluster
) -> None:
    cli.kubeconfig.write_text(json.dumps(kubeconfig(served.url, "models")))
    cli.call("kubernetes", "--no-wait")
    assert healthy.find("Deployment", "iris", "models")
    cli.call("kubernetes", "--no-wait", "-n", "default")
    assert healthy.find("Deployment", "iris", "default")


def test_another_context_can_be_chosen(cli: Cli, healthy: FakeCluster) -> None:
    value = json.loads(cli.kubeconfig.read_text())
    value["contexts"].append({"name": "other", "context": {**value["contexts"][0]["context"]}})
    value["current-context"] = "gone"
    cli.kubeconfig.write_text(json.dumps(value))
    assert cli.call("kubernetes", "--context", "other").code == 0
    said = cli.call("kubernetes")
    assert 'no context "gone"' in said.err
    assert "--context: fake, other" in said.err


def test_delete_removes_what_was_deployed(cli: Cli, healthy: FakeCluster) -> None:
    cli.call("kubernetes", "--max-replicas", 3)
    said = cli.run("kubernetes", "--max-replicas", 3, "--delete")
    assert said.code == 0, said.err
    assert "Deployment/iris in default: deleted" in said.out
    assert "Deployment/iris: gone" in said.err
    assert not healthy.objects
    again = cli.call("kubernetes", "--delete")
    assert again.code == 0
    assert "Deployment/iris in default: was not there" in again.out


def test_delete_needs_no_options_to_find_what_belongs_to_a_function(
    cli: Cli, healthy: FakeCluster
) -> None:
    cli.call("kubernetes", "--max-replicas", 3)
    assert cli.call("kubernetes", "--delete").code == 0
    assert not healthy.objects


def test_delete_tells_what_holds_an_object_that_stays(cli: Cli, healthy: FakeCluster) -> None:
    cli.call("kserve", "--no-wait")
    healthy.find("InferenceService", "iris")["metadata"]["finalizers"] = ["kserve.io/finalizer"]
    said = cli.call("kserve", "--delete", "--timeout", 0.5)
    assert said.code == 1
    assert "still there after 0.5 s, held by kserve.io/finalizer" in said.err


def test_delete_leaves_what_was_made_by_others_unless_told_otherwise(
    cli: Cli, healthy: FakeCluster
) -> None:
    healthy.put({
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "iris"},
        "spec": {"predictor": {}},
    })  # fmt: skip
    said = cli.call("kserve", "--delete")
    assert said.code == 1
    assert 'InferenceService "iris" was not made by this command' in said.err
    assert healthy.find("InferenceService", "iris")
    assert cli.call("kserve", "--delete", "--force-conflicts").code == 0
    assert not healthy.find("InferenceService", "iris")


@pytest.mark.parametrize(
    ("platform", "kind", "others"),
    [
        (
            "kserve",
            "ServingRuntime",
            {
                "apiVersion": "serving.kserve.io/v1beta1",
                "kind": "InferenceService",
                "spec": {"predictor": {"model": {"runtime": "mlserver-pyfunc"}}},
            },
        ),
        (
            "seldon-v2",
            "Server",
            {
                "apiVersion": "mlops.seldon.io/v1alpha1",
                "kind": "Model",
                "spec": {"requirements": ["pyfunc"]},
            },
        ),
    ],
)
def test_delete_keeps_a_runtime_that_others_use(
    platform: str, kind: str, others: dict[str, object], cli: Cli, healthy: FakeCluster
) -> None:
    uri = ("--storage-uri", "gs://models/iris")
    assert cli.call(platform, *uri, "--no-wait").code == 0
    healthy.put({**others, "metadata": {"name": "other"}})
    said = cli.call(platform, *uri, "--delete")
    assert "warning" not in said.err
    assert f"{kind}/mlserver-pyfunc in default: kept, others use it" in said.out
    assert healthy.find(kind, "mlserver-pyfunc")
    assert not healthy.find(str(others["kind"]), "iris")
    del healthy.objects[str(others["kind"]), "default", "other"]
    cli.call(platform, *uri, "--delete")
    assert not healthy.find(kind, "mlserver-pyfunc")


def test_the_objects_are_those_that_manifest_prints(cli: Cli, healthy: FakeCluster) -> None:
    import yaml

    printed = subprocess.run(
        [PROGRAM, "manifest", "kubernetes", IRIS, "--image", IMAGE],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    cli.call("kubernetes", "--no-wait")
    for wanted in yaml.safe_load_all(printed):
        live = healthy.find(wanted["kind"], "iris")
        assert live["spec"] == wanted["spec"]
        assert live["metadata"]["managedFields"][0]["manager"] == FIELD_MANAGER


@pytest.mark.server
def test_the_curl_that_is_printed_gets_an_answer(
    cli: Cli, cluster: FakeCluster, tmp_path: Path
) -> None:
    from tests.hosts.mlserver.process import serving

    with serving(IRIS, tmp_path, "iris") as server:
        cluster.stories["InferenceService"] = stories.serves(server.url)
        said = cli.call("kserve")
        words = shlex.split(said.out.partition("call it:\n")[2].partition("\n")[0])
        assert words[0] == "curl"
        answer = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert json.loads(answer)["outputs"][0]["name"] == "species"


def test_deploying_never_imports_mlserver(cli: Cli, healthy: FakeCluster) -> None:
    program = (
        "import sys, mlserver_pyfunc.cli as c;"
        f"c.main(['deploy', 'kserve', {str(IRIS)!r}, '--image', 'r/x:1', '--kubeconfig',"
        f"{str(cli.kubeconfig)!r}], standalone_mode=False);"
        "print({'mlserver', 'kserve', 'tritonclient'} & set(sys.modules))"
    )
    out = subprocess.check_output([sys.executable, "-c", program], text=True)
    assert out.endswith("set()\n")


def test_a_service_keeps_its_replicas_when_an_autoscaler_takes_over(
    cli: Cli, cluster: FakeCluster
) -> None:
    def replicas(*options: object) -> int:
        assert cli.call("kubernetes", "--no-wait", *options).code == 0
        return int(cluster.find("Deployment", "iris")["spec"].get("replicas", 1))

    scaled = ("--min-replicas", 5, "--max-replicas", 9)
    assert replicas("--replicas", 5) == 5
    assert replicas(*scaled) == 5
    # Again, before the autoscaler has acted.
    assert replicas(*scaled, "--memory", "2Gi") == 5
    assert replicas("--replicas", 3) == 3


def test_an_object_without_pods_is_explained_by_its_own_event(
    cli: Cli, cluster: FakeCluster
) -> None:
    def controller(cluster: FakeCluster, live: Object, age: float) -> None:
        cluster.event("iris", 'pods "iris-1" is forbidden: exceeded quota', "InferenceService")
        cluster.event("iris", "an event of a Deployment of that name", "Deployment")

    cluster.stories["InferenceService"] = controller
    said = cli.call("kserve", "--timeout", 1)
    assert said.code == 1
    assert "exceeded quota" in said.err
    assert "of a Deployment" not in said.err


@pytest.mark.parametrize("options", [(), ("--storage-uri", "gs://m/i")])
def test_a_budget_and_a_monitor_go_and_those_of_another_platform_stay(
    cli: Cli, cluster: FakeCluster, options: tuple[str, ...]
) -> None:
    def names() -> set[str]:
        both = {name for kind, _, name in cluster.objects if kind == "PodDisruptionBudget"}
        assert both == {name for kind, _, name in cluster.objects if kind == "PodMonitor"}
        return both

    more = ("--no-wait", "--replicas", 2, "--monitor")
    assert cli.call("kubernetes", *more).code == 0
    assert cli.call("kserve", *more, *options).code == 0
    assert names() == {"iris", "iris-predictor"}
    assert cli.call("kserve", "--no-wait", *options).code == 0
    assert names() == {"iris"}
    assert cli.call("kubernetes", "--no-wait").code == 0
    assert names() == set()
