"""Behind KServe's webhooks: what they fill in fits, and they refuse nothing that is printed.

The same, with all options and a real API server, is in test_rollouts.py.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest

from tests.deployment.manifests.cases import CASES, made, one
from tests.deployment.platforms import kserve
from tests.deployment.platforms.cluster import Cluster
from tests.deployment.platforms.validation import PodInvalidError, check

from . import kserve_webhook, stories
from .conftest import Cli
from .fake_api import FakeCluster
from .kserve_webhook import CURRENT, HARDENED, MODE, OLD, admit

INSTALLATIONS = {"current": CURRENT, "hardened": HARDENED, "old": OLD}
KSERVE = [(shape, case) for platform, shape, case in CASES if platform == "kserve"]


@pytest.mark.parametrize("installation", INSTALLATIONS)
@pytest.mark.parametrize(("shape", "case"), KSERVE)
def test_the_pod_of_an_admitted_service_is_one_that_kubernetes_takes(
    shape: str, case: str, installation: str
) -> None:
    found = made("kserve", shape, case)
    service = one(found, "InferenceService")
    admitted = admit(service, by=INSTALLATIONS[installation])
    if "model" in service["spec"]["predictor"] and case == "runtime that is there":
        found = [*found, one(made("kserve", shape), "ServingRuntime")]
    others = [each for each in found if each is not service]
    storage = defaultdict(lambda: Path("/tmp"))
    check(kserve.pod(Cluster([admitted, *others], {}, storage=storage)))


def test_a_request_above_the_limit_that_the_webhook_sets_is_refused() -> None:
    service = one(made("kserve", "image"), "InferenceService")
    (container,) = service["spec"]["predictor"]["containers"]
    container["resources"] = {"requests": {"cpu": "2"}}
    with pytest.raises(PodInvalidError, match="cpu"):
        check(kserve.pod(Cluster([admit(service)], {})))
    no_defaults = replace(CURRENT, resources={})
    check(kserve.pod(Cluster([admit(service, by=no_defaults)], {})))


@pytest.mark.parametrize("shape", ["image", "storage", "inline"])
def test_what_the_webhook_fills_in_is_no_change(shape: str, cli: Cli, cluster: FakeCluster) -> None:
    cluster.admit = kserve_webhook.admit
    cluster.stories = {"InferenceService": stories.serves()}
    options = ("--shape", shape, *(("--storage-uri", "gs://m") if shape == "storage" else ()))
    assert cli.call("kserve", *options, "--cpu", 2).code == 0
    live = cluster.find("InferenceService", "iris")
    assert live["metadata"]["annotations"][MODE] == "Standard"
    again = cli.call("kserve", *options, "--cpu", 2)
    assert "InferenceService/iris in default: unchanged" in again.out
    changed = cli.call("kserve", *options, "--cpu", 2, "--memory", "2Gi")
    assert "InferenceService/iris in default: updated" in changed.out


def test_what_a_webhook_refuses_is_told(cli: Cli, cluster: FakeCluster) -> None:
    cluster.admit = kserve_webhook.admit
    assert cli.call("kserve", "--no-wait").code == 0
    cluster.find("InferenceService", "iris")["status"] = {"deploymentMode": "Standard"}
    said = cli.call("kserve", "--mode", "knative", "--no-wait")
    assert said.code == 1
    assert "deploymentMode cannot be changed from 'Standard' to 'Knative'" in said.err
