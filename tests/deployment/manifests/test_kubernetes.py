"""Plain Kubernetes: objects that find each other."""

from __future__ import annotations

from typing import Any

import kubernetes_validate
import pytest

from mlserver_pyfunc.definition import parse
from mlserver_pyfunc.deployment import manifests
from mlserver_pyfunc.deployment.manifests import ManifestError
from tests.places import IRIS

from .cases import containers, env, made, objects, of, one

CODE = "def f(x):\n    return x\n"

SHAPES = ["image", "storage", "inline"]


@pytest.mark.parametrize("shape", SHAPES)
def test_all_select_the_pods_of_the_deployment(shape: str) -> None:
    found = made("kubernetes", shape, "everything")
    template = one(found, "Deployment")["spec"]["template"]
    selector = one(found, "Deployment")["spec"]["selector"]["matchLabels"]
    assert selector.items() <= template["metadata"]["labels"].items()
    assert one(found, "Service")["spec"]["selector"] == selector
    budget = one(found, "PodDisruptionBudget")["spec"]
    assert budget["selector"]["matchLabels"] == selector
    target = one(found, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    deployment = one(found, "Deployment")
    assert target == {
        "apiVersion": deployment["apiVersion"],
        "kind": "Deployment",
        "name": deployment["metadata"]["name"],
    }
    # No version or other label that changes is selected: a selector never can.
    assert set(selector) == {"app.kubernetes.io/instance"}


@pytest.mark.parametrize("shape", SHAPES)
def test_the_service_leads_to_ports_that_the_container_has(shape: str) -> None:
    found = made("kubernetes", shape)
    (container,) = containers(found)
    names = {each["name"]: each["containerPort"] for each in container["ports"]}
    ports = one(found, "Service")["spec"]["ports"]
    assert [(each["port"], names[each["targetPort"]]) for each in ports] == [
        (80, 8080),
        (8081, 8081),
    ]
    assert ports[1]["appProtocol"] == "kubernetes.io/h2c"
    variables = env(container)
    assert variables["MLSERVER_HTTP_PORT"] == str(names["http"])
    assert variables["MLSERVER_GRPC_PORT"] == str(names["grpc"])
    assert variables["MLSERVER_METRICS_PORT"] == str(names["metrics"])


def test_the_service_has_the_type_and_name_that_were_asked_for() -> None:
    found = one(
        objects("kubernetes", "image", service_type="NodePort", service_name="a"), "Service"
    )
    assert found["spec"]["type"] == "NodePort"
    assert found["metadata"]["name"] == "a"


def test_a_headless_service_names_the_ports_of_the_pods() -> None:
    spec = one(objects("kubernetes", "image", service_type="Headless"), "Service")["spec"]
    assert (spec["clusterIP"], "type" in spec) == ("None", False)
    assert [each["port"] for each in spec["ports"]] == [8080, 8081]


def test_prometheus_finds_the_metrics() -> None:
    template = one(made("kubernetes", "image"), "Deployment")["spec"]["template"]
    assert template["metadata"]["annotations"] == {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": "8082",
        "prometheus.io/path": "/metrics",
    }


def test_an_autoscaler_owns_the_number_of_replicas() -> None:
    fixed = objects("kubernetes", "image", replicas=2)
    assert one(fixed, "Deployment")["spec"]["replicas"] == 2
    assert one(fixed, "PodDisruptionBudget")
    scaled = objects("kubernetes", "image", max_replicas=4)
    assert "replicas" not in one(scaled, "Deployment")["spec"]
    spec = one(scaled, "HorizontalPodAutoscaler")["spec"]
    assert (spec["minReplicas"], spec["maxReplicas"]) == (1, 4)
    kinds = [each["kind"] for each in objects("kubernetes", "image")]
    assert kinds == ["Deployment", "Service"]


def test_a_claim_is_mounted_as_the_models_folder() -> None:
    found = made("kubernetes", "storage")
    (container,) = containers(found)
    mount = next(each for each in container["volumeMounts"] if each["name"] == "models")
    assert mount == {
        "name": "models",
        "mountPath": "/mnt/models",
        "readOnly": True,
        "subPath": "iris/1",
    }
    volumes = one(found, "Deployment")["spec"]["template"]["spec"]["volumes"]
    claim = next(each for each in volumes if each["name"] == "models")["persistentVolumeClaim"]
    assert claim == {"claimName": "models", "readOnly": True}
    assert env(container)["MLSERVER_MODEL_URI"] == "/mnt/models"


def test_an_inline_function_comes_first_and_is_read() -> None:
    found = made("kubernetes", "inline")
    assert found[0]["kind"] == "ConfigMap"
    (container,) = containers(found)
    name = found[0]["metadata"]["name"]
    assert container["envFrom"][0] == {"configMapRef": {"name": name}}
    assert set(found[0]["data"]) == {"MLSERVER_MODEL_IMPLEMENTATION", "MLSERVER_MODEL_EXTRA"}


def test_a_token_of_the_cluster_is_mounted_only_where_an_account_was_chosen() -> None:
    def pod(**given: Any) -> dict[str, Any]:
        found = one(objects("kubernetes", "image", **given), "Deployment")
        return dict(found["spec"]["template"]["spec"])

    assert pod()["automountServiceAccountToken"] is False
    assert "automountServiceAccountToken" not in pod(service_account="reader")


def test_only_a_claim_can_be_fetched_from() -> None:
    with pytest.raises(ManifestError, match="expected pvc://CLAIM/PATH"):
        objects("kubernetes", "storage", storage_uri="gs://a/b")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("init_timeout", [1, 300, 3600.5])
def test_a_rollout_is_not_given_up_before_the_startup_probe_is(
    shape: str, init_timeout: float
) -> None:
    definition = parse(
        {"source": {"code": CODE, "handler": "f"}, "serving": {"init_timeout": init_timeout}}
    )
    found = of(definition, IRIS, "kubernetes", shape)
    probe = containers(found)[0]["startupProbe"]
    deadline = one(found, "Deployment")["spec"]["progressDeadlineSeconds"]
    assert deadline > probe["periodSeconds"] * probe["failureThreshold"]


SCALED = {"max_replicas": 8, "scale_on": "utilization", "target_utilization": 65}


def test_keda_scales_on_the_utilization_of_all_pods() -> None:
    found = objects("kubernetes", "image", **SCALED, prometheus="http://prom:9090", namespace="a")
    scaled = one(found, "ScaledObject")
    assert scaled["apiVersion"] == "keda.sh/v1alpha1"
    spec = scaled["spec"]
    assert spec["scaleTargetRef"]["name"] == one(found, "Deployment")["metadata"]["name"]
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (1, 8)
    (trigger,) = spec["triggers"]
    assert trigger["metadata"] == {
        "serverAddress": "http://prom:9090",
        "query": 'avg_over_time(sum(pyfunc_utilization{model="iris",namespace="a"})[1m:15s])',
        "threshold": "0.65",
    }
    assert not [each for each in found if each["kind"] == "HorizontalPodAutoscaler"]
    assert "replicas" not in one(found, "Deployment")["spec"]


def test_an_autoscaler_reads_the_utilization_by_the_custom_metrics_api() -> None:
    found = objects("kubernetes", "image", **SCALED)
    autoscaler = one(found, "HorizontalPodAutoscaler")
    kubernetes_validate.validate(autoscaler, "1.31", strict=True)
    (metric,) = autoscaler["spec"]["metrics"]
    assert metric["pods"]["metric"] == {"name": "pyfunc_utilization"}
    assert metric["pods"]["target"] == {"type": "AverageValue", "averageValue": "650m"}


@pytest.mark.parametrize(
    ("cpu", "workers", "scale_on", "warns"),
    [("1", 1, "cpu", False), ("2", 1, "cpu", True), ("2", 2, "cpu", False),
     ("2", 1, "utilization", False)],
)  # fmt: skip
def test_warns_of_a_cpu_target_that_one_process_cannot_reach(
    cpu: str, workers: int, scale_on: str, warns: bool
) -> None:
    source = {"code": CODE, "handler": "f"}
    definition = parse({"source": source, "serving": {"workers": workers}})
    given = {"image": "a:1", "cpu": cpu, "max_replicas": 3, "scale_on": scale_on}
    found = manifests.derive(
        "kubernetes", definition, IRIS, manifests.options.parse(given)
    ).warnings
    assert any("because of the GIL" in each for each in found) is warns
