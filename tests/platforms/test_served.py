"""Each platform runs what the command prints for it: served, probed, drained, or not ready."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import kubernetes
from .cluster import StoredImage
from .conftest import Images, Run
from .deployments import SHAPES, deploy
from .functions import BROKEN, check_answers, check_drains, check_never_ready


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


def test_the_service_leads_to_the_servers_ports(tmp_path: Path, stock_image: StoredImage) -> None:
    found = deploy("kubernetes", "inline", tmp_path, stock_image)
    ports = kubernetes.service_ports(found.cluster, found.pod)
    assert ports == {"http": found.rest, "grpc": found.grpc}
