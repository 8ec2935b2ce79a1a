"""Each platform runs what the command prints for it: served, probed, drained, or not ready."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from . import kubernetes
from .cluster import Cluster, StoredImage
from .conftest import Images, Run
from .deployments import IMAGE, SHAPES, deploy, printed
from .functions import (
    BROKEN,
    CODE,
    OUTPUTS,
    ask_by_rest,
    check_answers,
    check_drains,
    check_never_ready,
    inline,
    write_definition,
)
from .kubelet import Pod


@pytest.mark.parametrize(("platform", "shape"), SHAPES)
def test_is_served_and_called(
    platform: str, shape: str, run_pod: Run, tmp_path: Path, image_for: Images
) -> None:
    found = deploy(platform, shape, tmp_path, image_for(shape))
    pod = run_pod(found.cluster, found.pod)
    pod.wait_until_ready()
    assert {probe.kind for probe in pod.probes} == {"livenessProbe", "readinessProbe"}
    check_answers(pod, found.rest, found.grpc, found.model)
    assert not pod.ends
    if shape == "storage":
        check_drains(pod, found.rest, found.grpc, found.model)


@pytest.mark.parametrize("platform", ["kserve", "seldon-v1", "kubernetes"])
def test_is_not_ready_when_the_function_is_broken(
    platform: str, run_pod: Run, tmp_path: Path, stock_image: StoredImage
) -> None:
    found = deploy(platform, "inline", tmp_path, stock_image, BROKEN)
    check_never_ready(run_pod(found.cluster, found.pod))


def test_is_not_ready_while_init_runs_and_not_restarted_for_it(
    run_pod: Run, tmp_path: Path, stock_image: StoredImage
) -> None:
    slow = CODE.replace("context.factor = factor", "context.factor = factor; time.sleep(4)")
    found = deploy("kubernetes", "inline", tmp_path, stock_image, slow)
    pod = run_pod(found.cluster, found.pod)
    startup = next(probe for probe in pod.probes if probe.kind == "startupProbe")
    pod.wait_until(lambda: pod.network.run(_is_live, pod, found.rest), "live")
    assert not pod.was_ready
    pod.wait_until_ready()
    # While the function loads, the server answers for itself and says no for the model.
    assert any(answer and answer[:3] == "503" for answer in startup.answers), startup.answers
    assert startup.answers[-1] is None
    assert not pod.ends
    assert pod.network.run(ask_by_rest, pod, found.rest, found.model) == OUTPUTS


def test_any_user_of_the_group_root_may_run_it(
    run_pod: Run, tmp_path: Path, stock_image: StoredImage
) -> None:
    found = deploy("kubernetes", "inline", tmp_path, stock_image, CODE, "--run-as-user", "any")
    # OpenShift fills in what the manifest leaves open.
    found.pod["spec"]["securityContext"] |= {"runAsUser": 1000680000, "fsGroup": 1000680000}
    pod = run_pod(found.cluster, found.pod)
    pod.wait_until_ready()
    assert pod.container.run(["id", "-u"], 5).stdout == "1000680000\n"
    check_answers(pod, found.rest, found.grpc, found.model)


def test_workers_run_where_only_tmp_can_be_written_to(
    run_pod: Run, tmp_path: Path, stock_image: StoredImage
) -> None:
    isolated = {"serving": {"isolation": "process", "workers": 2, "concurrency": 2}}
    folder = write_definition(tmp_path / "artifacts" / "iris", inline(**isolated))
    objects = printed("kubernetes", folder, "--shape", "inline")
    cluster = Cluster(objects, {IMAGE: stock_image})
    pod = run_pod(cluster, kubernetes.pod(cluster))
    pod.wait_until_ready()
    check_answers(pod, 8080, 8081, "iris")
    check_drains(pod, 8080, 8081, "iris")


def test_the_service_leads_to_the_servers_ports(tmp_path: Path, stock_image: StoredImage) -> None:
    found = deploy("kubernetes", "inline", tmp_path, stock_image)
    ports = kubernetes.service_ports(found.cluster, found.pod)
    assert ports == {"http": found.rest, "grpc": found.grpc}


def _is_live(pod: Pod, port: int) -> bool:
    try:
        return httpx.get(f"http://{pod.network.ip}:{port}/v2/health/live").status_code == 200
    except httpx.TransportError:
        return False
