"""Waiting ends when the function serves, or as soon as it is clear that it will not."""

from __future__ import annotations

import time

import pytest

from . import stories
from .conftest import Cli
from .fake_api import FakeCluster, Object, Story

KSERVE = {"serving.kserve.io/inferenceservice": "iris"}
SELDON_V1 = {"seldon-deployment-id": "iris"}
SELDON_V2 = {"seldon-server-name": "mlserver-pyfunc"}
KUBERNETES = {"app.kubernetes.io/instance": "iris"}
URI = ("--storage-uri", "gs://models/iris")

PLATFORMS: dict[str, tuple[str, dict[str, str], tuple[str, ...]]] = {
    "kserve": ("InferenceService", KSERVE, ()),
    "seldon-v1": ("SeldonDeployment", SELDON_V1, ()),
    "seldon-v2": ("Server", SELDON_V2, URI),
    "kubernetes": ("Deployment", KUBERNETES, ()),
}


@pytest.mark.parametrize("platform", PLATFORMS)
def test_an_image_that_cannot_be_pulled_ends_the_wait_with_the_registrys_words(
    platform: str, cli: Cli, cluster: FakeCluster
) -> None:
    kind, labels, args = PLATFORMS[platform]
    status = stories.waiting("ImagePullBackOff", 'Back-off pulling image "x"')
    cluster.stories[kind] = stories.has_pod(status, labels)
    cluster.event(stories.POD, 'Failed to pull image "x": not found: manifest unknown')
    cluster.event(stories.POD, "Error: ImagePullBackOff")
    # Longer than a test may take: it has to give up before.
    said = cli.call(platform, *args, "--timeout", 3600)
    assert said.code == 1
    assert "not ready after" not in said.err
    assert f'container "mlserver" of pod "{stories.POD}"' in said.err
    assert "its image cannot be pulled (ImagePullBackOff)" in said.err
    assert 'Failed to pull image "x": not found: manifest unknown' in said.err
    assert "--image-pull-secret" in said.err


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_function_that_does_not_load_is_told_in_its_own_words(
    platform: str, cli: Cli, cluster: FakeCluster
) -> None:
    kind, labels, args = PLATFORMS[platform]
    cluster.stories[kind] = stories.has_pod(stories.crashing(), labels)
    cluster.logs[f"{stories.POD}/mlserver/previous"] = stories.LOG
    said = cli.call(platform, *args, "--timeout", 60)
    assert said.code == 1
    assert stories.LOAD_FAILURE in said.err.partition("error:")[2]
    assert '  |   File "/srv/model.py", line 3' in said.err
    assert "mlserver-pyfunc validate" in said.err


def test_a_model_that_cannot_be_fetched_shows_the_init_containers_log(
    cli: Cli, cluster: FakeCluster
) -> None:
    status = stories.initialising("no such bucket")
    cluster.stories["InferenceService"] = stories.has_pod(status, KSERVE)
    cluster.logs[f"{stories.POD}/storage-initializer/previous"] = "fetching gs://models/iris\n403\n"
    said = cli.call("kserve", *URI, "--timeout", 60)
    assert 'container "storage-initializer"' in said.err
    assert "ended with exit code 1: no such bucket" in said.err
    assert "  | fetching gs://models/iris" in said.err


def test_a_container_that_ran_out_of_memory_says_so(cli: Cli, cluster: FakeCluster) -> None:
    status = stories.crashing(137, "OOMKilled")
    cluster.stories["Deployment"] = stories.has_pod(status, KUBERNETES)
    said = cli.call("kubernetes", "--timeout", 60)
    assert "ran out of memory with exit code 137" in said.err
    assert "raise --memory" in said.err


@pytest.mark.parametrize("reason", ["InvalidImageName", "CreateContainerConfigError"])
def test_settings_that_cannot_work_end_the_wait(
    reason: str, cli: Cli, cluster: FakeCluster
) -> None:
    status = stories.waiting(reason, 'secret "s3" not found')
    cluster.stories["Deployment"] = stories.has_pod(status, KUBERNETES)
    said = cli.call("kubernetes", "--timeout", 60)
    assert f'({reason}): secret "s3" not found' in said.err


def test_a_first_failure_to_pull_is_waited_for_and_told(cli: Cli, cluster: FakeCluster) -> None:
    status = stories.waiting("ErrImagePull", "manifest unknown")
    cluster.stories["Deployment"] = stories.has_pod(status, KUBERNETES)
    said = cli.call("kubernetes", "--timeout", 1.5)
    assert "not ready after 1.5 s" in said.err
    assert "its image cannot be pulled (ErrImagePull): manifest unknown" in said.err


def test_a_pod_without_a_node_is_waited_for_and_told(cli: Cli, cluster: FakeCluster) -> None:
    status = stories.unschedulable("0/3 nodes are available: 3 Insufficient nvidia.com/gpu.")
    cluster.stories["Deployment"] = stories.has_pod(status, KUBERNETES)
    said = cli.call("kubernetes", "--timeout", 1.5)
    assert said.code == 1
    assert "not ready after 1.5 s: waiting for its controller" in said.err
    assert "has no node: 0/3 nodes are available: 3 Insufficient nvidia.com/gpu." in said.err


def test_a_probe_that_fails_is_told_when_the_time_is_over(cli: Cli, cluster: FakeCluster) -> None:
    running = {"name": "mlserver", "ready": False, "state": {"running": {}}}
    status = {"phase": "Running", "containerStatuses": [running]}
    cluster.stories["Deployment"] = stories.has_pod(status, KUBERNETES)
    cluster.event(stories.POD, "Readiness probe failed: HTTP probe failed with statuscode: 400")
    said = cli.call("kubernetes", "--timeout", 1.5)
    assert (
        "is not ready: Readiness probe failed: HTTP probe failed with statuscode: 400" in said.err
    )


def test_pods_that_the_update_replaces_are_not_held_against_it(
    cli: Cli, cluster: FakeCluster
) -> None:
    cluster.stories["Deployment"] = stories.rolls_out()
    assert cli.call("kubernetes").code == 0
    cluster.pod("iris-old", KUBERNETES, stories.crashing(), age=3600)
    cluster.stories["Deployment"] = stories.rolls_out(1)
    said = cli.call("kubernetes", "--memory", "2Gi")
    assert said.code == 0, said.err


def test_a_status_of_before_the_update_does_not_count(cli: Cli, cluster: FakeCluster) -> None:
    """KServe calls a service ready until its controller has seen the change."""
    cluster.stories["InferenceService"] = stories.serves()
    assert cli.call("kserve").code == 0
    cluster.stories = {}
    cluster.find("InferenceService", "iris")["status"]["conditions"][2]["status"] = "True"
    started = time.monotonic()

    def sees_it(cluster: FakeCluster, live: Object, age: float) -> None:
        if age > 0.4:
            stories.serves(seconds=2)(cluster, live, age)

    cluster.stories["InferenceService"] = sees_it
    said = cli.call("kserve", "--memory", "2Gi")
    assert said.code == 0, said.err
    assert time.monotonic() - started > 2


def test_a_service_is_not_ready_while_the_deployment_beneath_it_is_rolling(
    cli: Cli, cluster: FakeCluster
) -> None:
    beneath: Object = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "iris-predictor", "labels": KSERVE},
        "spec": {"replicas": 2},
    }
    cluster.put(beneath)
    live = cluster.find("Deployment", "iris-predictor")
    live["status"] = {**stories.rolled_out(live), "updatedReplicas": 1}
    cluster.stories["InferenceService"] = stories.serves()
    said = cli.call("kserve", "--timeout", 1)
    assert said.code == 1
    assert "1 of 2 pods updated" in said.err
    live["status"] = stories.rolled_out(live)
    assert cli.call("kserve").code == 0


@pytest.mark.parametrize(
    ("platform", "args", "kind", "status", "expected"),
    [
        (
            "kserve",
            (),
            "InferenceService",
            {
                "modelStatus": {
                    "transitionStatus": "InvalidSpec",
                    "lastFailureInfo": {
                        "reason": "RuntimeNotRecognized",
                        "message": "Waiting for runtime to become available",
                    },
                }
            },
            "RuntimeNotRecognized: Waiting for runtime",
        ),
        (
            "seldon-v1",
            (),
            "SeldonDeployment",
            {"state": "Failed", "description": "container names must be unique"},
            "container names must be unique",
        ),
        (
            "kubernetes",
            (),
            "Deployment",
            {
                "observedGeneration": 1,
                "conditions": [
                    {
                        "type": "ReplicaFailure",
                        "status": "True",
                        "reason": "FailedCreate",
                        "message": "exceeded quota: pods=0",
                    }
                ],
            },
            "FailedCreate: exceeded quota",
        ),
    ],
)
def test_a_failure_that_the_controller_reports_ends_the_wait(
    platform: str,
    args: tuple[str, ...],
    kind: str,
    status: Object,
    expected: str,
    cli: Cli,
    cluster: FakeCluster,
) -> None:
    def fails(cluster: FakeCluster, live: Object, age: float) -> None:
        live["status"] = status

    cluster.stories[kind] = fails
    said = cli.call(platform, *args, "--timeout", 60)
    assert said.code == 1
    assert expected in said.err.partition("error:")[2]


def test_a_model_that_seldon_could_not_load_ends_the_wait(cli: Cli, cluster: FakeCluster) -> None:
    cluster.stories["Server"] = stories.has_condition()
    said_by_agent = f"rpc error: {stories.LOAD_FAILURE}"
    cluster.stories["Model"] = stories.has_condition("False", "ModelFailed", said_by_agent)
    said = cli.call("seldon-v2", *URI, "--timeout", 60)
    assert said.code == 1
    assert stories.LOAD_FAILURE in said.err


def test_a_model_that_waits_for_its_server_is_waited_for(cli: Cli, cluster: FakeCluster) -> None:
    def scheduled(cluster: FakeCluster, live: Object, age: float) -> None:
        story: Story = stories.has_condition("False", "ScheduleFailed", "no matching servers")
        if age > 1.5:
            story = stories.has_condition()
        story(cluster, live, age)

    cluster.stories = {"Server": stories.has_condition(), "Model": scheduled}
    said = cli.call("seldon-v2", *URI)
    assert said.code == 0, said.err
    assert "ModelReady: ScheduleFailed: no matching servers" in said.err


@pytest.mark.parametrize("hiccup", [0, 503])
def test_an_api_server_that_goes_away_for_a_while_is_waited_for(
    hiccup: int, cli: Cli, cluster: FakeCluster
) -> None:
    def story(cluster: FakeCluster, live: Object, age: float) -> None:
        if age < 0.5 and not cluster.hiccups:
            cluster.hiccups = [hiccup] * 6
        stories.serves(seconds=1)(cluster, live, age)

    cluster.stories["InferenceService"] = story
    said = cli.call("kserve", "--timeout", 60)
    assert said.code == 0, said.err


def test_waiting_does_without_the_right_to_see_pods(cli: Cli, cluster: FakeCluster) -> None:
    cluster.forbidden = {("list", "pods"), ("list", "deployments"), ("list", "events")}
    cluster.stories["InferenceService"] = stories.serves(seconds=0.5)
    assert cli.call("kserve").code == 0


def test_an_object_that_somebody_deletes_ends_the_wait(cli: Cli, cluster: FakeCluster) -> None:
    def story(cluster: FakeCluster, live: Object, age: float) -> None:
        if age > 0.3:
            del cluster.objects["InferenceService", "default", "iris"]

    cluster.stories["InferenceService"] = story
    said = cli.call("kserve", "--timeout", 60)
    assert "InferenceService/iris was deleted by somebody else" in said.err
