"""What KServe makes of its objects, as far as its schemas do not say."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from mlserver_pyfunc import sources
from mlserver_pyfunc.definition import kubernetes_names as names
from mlserver_pyfunc.definition import parse
from mlserver_pyfunc.definition.locate import open_folder
from mlserver_pyfunc.deployment import manifests
from mlserver_pyfunc.deployment.manifests import ManifestError
from mlserver_pyfunc.sources.tree import SourceTree
from tests.places import EXAMPLES, IRIS

from . import schemas
from .cases import containers, env, function, made, objects, of, one

CONTAINERS = [("image", "plain"), ("inline", "plain"), ("inline", "everything")]


def predictor(found: list[dict[str, Any]]) -> dict[str, Any]:
    spec: dict[str, Any] = one(found, "InferenceService")["spec"]["predictor"]
    return spec


@pytest.mark.parametrize(("shape", "case"), CONTAINERS)
def test_a_container_of_our_own_has_the_name_and_the_protocol_kserve_looks_for(
    shape: str, case: str
) -> None:
    (container,) = predictor(made("kserve", shape, case))["containers"]
    assert container["name"] == "kserve-container"
    assert env(container)["PROTOCOL"] == "v2"
    assert "model" not in predictor(made("kserve", shape, case))


def test_a_service_and_its_runtime_agree() -> None:
    for case, kind in (("plain", "ServingRuntime"), ("cluster runtime", "ClusterServingRuntime")):
        found = made("kserve", "storage", case)
        runtime, model = one(found, kind), predictor(found)["model"]
        assert model["runtime"] == runtime["metadata"]["name"]
        assert model["protocolVersion"] in runtime["spec"]["protocolVersions"] == ["v2"]
        formats = [each["name"] for each in runtime["spec"]["supportedModelFormats"]]
        assert model["modelFormat"]["name"] in formats
        assert model["storageUri"] == "gs://models/iris"
        assert [each["kind"] for each in found] == [kind, "InferenceService"]
        assert ("namespace" in runtime["metadata"]) is False


def test_a_runtime_is_told_the_folder_that_kserve_mounts_and_the_services_name() -> None:
    runtime = one(made("kserve", "storage"), "ServingRuntime")
    variables = env(runtime["spec"]["containers"][0])
    assert variables["MLSERVER_MODEL_NAME"] == "{{.Name}}"
    assert variables["MLSERVER_MODEL_URI"] == variables["MLSERVER_MODELS_DIR"] == "/mnt/models"
    assert variables["MLSERVER_MODEL_IMPLEMENTATION"] == "mlserver_pyfunc.PyFuncRuntime"
    assert "serving.kserve.io/server-type" not in str(runtime)


def test_a_runtime_holds_nothing_of_one_function() -> None:
    runtimes = [
        one(of(parse({**plain, **other}), IRIS, "kserve", "storage"), "ServingRuntime")
        for plain in [open_folder(IRIS).definition.model_dump(exclude_unset=True)]
        for other in ({}, {"build": {"env": {"A": "b"}}}, {"serving": {"init_timeout": 900}})
    ]
    assert runtimes[0] == runtimes[1] == runtimes[2]
    for given in ({"memory": "9Gi"}, {"cpu": "9"}, {"gpus": 2}, {"replicas": 3}, {"name": "b"}):
        assert one(objects("kserve", "storage", **given), "ServingRuntime") == runtimes[0]
    given = one(made("kserve", "storage", "everything"), "ServingRuntime")
    text = json.dumps(given)
    for theirs in ("LOG_LEVEL", "nvidia", "/data", "iris", "gs://"):
        assert theirs not in text.replace("registry.example.com/team/iris:1", "")


@pytest.mark.parametrize("shape", ["image", "storage", "inline"])
def test_rest_is_the_first_port_and_grpc_is_named_so(shape: str) -> None:
    (container,) = containers(made("kserve", shape))
    ports = [(each["name"], each["containerPort"]) for each in container["ports"]]
    assert ports == [("http", 8080), ("grpc", 8081), ("metrics", 8082)]
    variables = env(container)
    assert variables["MLSERVER_HTTP_PORT"] == "8080"
    assert variables["MLSERVER_GRPC_PORT"] == "8081"
    assert variables["MLSERVER_METRICS_PORT"] == "8082"


@pytest.mark.parametrize("shape", ["image", "storage", "inline"])
@pytest.mark.parametrize(("protocol", "port"), [("rest", ("http1", 8080)), ("grpc", ("h2c", 8081))])
def test_knative_gets_one_port_and_nothing_that_it_refuses(
    shape: str, protocol: str, port: tuple[str, int]
) -> None:
    found = objects("kserve", shape, mode="knative", protocol=protocol)
    (container,) = containers(found)
    assert [(each["name"], each["containerPort"]) for each in container["ports"]] == [port]
    assert "lifecycle" not in container
    service = one(found, "InferenceService")
    assert service["metadata"]["annotations"]["serving.kserve.io/deploymentMode"] == "Serverless"
    for refused in ("terminationGracePeriodSeconds", "securityContext"):
        assert refused not in service["spec"]["predictor"]


def test_knative_is_told_of_calls_longer_than_it_would_wait() -> None:
    for timeout, told in ((60, None), (450.5, 451)):
        definition = function(serving={"timeout": timeout})
        found = of(definition, IRIS, "kserve", "image", mode="knative")
        assert predictor(found).get("timeout") == told


@pytest.mark.parametrize("shape", ["image", "storage", "inline"])
def test_metrics_are_scraped_from_mlservers_port(shape: str) -> None:
    found = made("kserve", shape)
    holder = predictor(found) if shape != "storage" else one(found, "ServingRuntime")["spec"]
    annotations = holder["annotations"]
    assert annotations["prometheus.io/port"] == annotations["prometheus.kserve.io/port"] == "8082"
    assert annotations["prometheus.io/path"] == annotations["prometheus.kserve.io/path"]
    # Where a cluster turns this on, KServe writes another port over ours.
    service = one(found, "InferenceService")["metadata"]["annotations"]
    assert service["serving.kserve.io/enable-prometheus-scraping"] == "false"


def test_replicas_are_fixed_or_scaled() -> None:
    fixed = predictor(objects("kserve", "image", replicas=3))
    assert (fixed["minReplicas"], fixed["maxReplicas"]) == (3, 3)
    found = objects("kserve", "image", max_replicas=5, target_cpu=60)
    scaled = predictor(found)
    keys = ("minReplicas", "maxReplicas", "scaleMetric", "scaleTarget")
    assert [scaled[key] for key in keys] == [1, 5, "cpu", 60]
    annotations = one(found, "InferenceService")["metadata"]["annotations"]
    assert annotations["serving.kserve.io/autoscalerClass"] == "hpa"
    definition = function(serving={"workers": 3, "concurrency": 4})
    idle = predictor(of(definition, IRIS, "kserve", "image", mode="knative", max_replicas=2,
                        min_replicas=0))  # fmt: skip
    assert [idle[key] for key in keys] == [0, 2, "concurrency", 12]


def test_an_inline_function_is_base64_in_a_config_map_that_the_container_reads() -> None:
    code = "def f(x):\n    return {'y': f'{{{x}}} {{.Name}}'}\n"
    definition = function(source={"code": code, "handler": "f"})
    config_map, service = of(definition, IRIS, "kserve", "inline")
    (container,) = service["spec"]["predictor"]["containers"]
    assert container["envFrom"] == [{"configMapRef": {"name": config_map["metadata"]["name"]}}]
    given = json.loads(config_map["data"]["MLSERVER_MODEL_EXTRA"])["function"]
    assert "code" not in given["source"]
    assert "{{" not in str(config_map)
    assert base64.b64decode(given["source"]["base64"]).decode() == code
    assert env(container)["MLSERVER_MODEL_NAME"] == "m"


@pytest.mark.parametrize("name", ["iris", "text-stream", "image", "digitalhub"])
def test_an_inline_function_is_the_one_in_the_folder(name: str) -> None:
    opened = open_folder(EXAMPLES / name)
    config_map, _ = of(opened.definition, opened.folder, "kserve", "inline")
    given = parse(json.loads(config_map["data"]["MLSERVER_MODEL_EXTRA"])["function"])
    left_out = {"source", "model_name", "image", "base_image", "build"}
    assert given.model_dump(exclude=left_out) == opened.definition.model_dump(exclude=left_out)

    def code(tree: SourceTree) -> tuple[str | None, str]:
        inline = dict(tree.inline or {})
        path = tree.root / f"{tree.module}.py"
        return tree.module, inline.get(tree.module or "") or path.read_text()

    theirs = sources.fetch(opened.definition.source, opened.folder)
    assert code(sources.fetch(given.source, IRIS.parent)) == code(theirs)


def test_a_model_name_that_is_no_dns_label_is_kept() -> None:
    definition = function(model_name="My_Model")
    empty = EXAMPLES
    for shape in ("image", "inline", "storage"):
        found = of(definition, empty, "kserve", shape)
        name = one(found, "InferenceService")["metadata"]["name"]
        assert name.startswith("my-model-")
        spec = predictor(found)
        holder = spec["model"] if shape == "storage" else spec["containers"][0]
        assert env(holder)["MLSERVER_MODEL_NAME"] == "My_Model"
        assert holder["readinessProbe"]["httpGet"]["path"] == "/v2/models/My_Model/ready"


def test_probe_paths_are_quoted() -> None:
    found = of(function(model_name="a#b?c%ü"), EXAMPLES, "kserve", "image")
    path = predictor(found)["containers"][0]["readinessProbe"]["httpGet"]["path"]
    assert path == "/v2/models/a%23b%3Fc%25%C3%BC/ready"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"shape": "storage"}, "expected --storage-uri, got none"),
        ({"shape": "image", "storage_uri": "gs://a/b"}, "leave --storage-uri out"),
        ({"storage_uri": "ftp://a/b"}, "expected one of gs://"),
        ({"replicas": 0}, "--mode knative scales to zero"),
        ({"protocol": "grpc"}, "--protocol is for --mode knative"),
        ({"env": {"PYTHONPATH": "/a"}}, "KServe refuses PYTHONPATH"),
        ({"storage_uri": "gs://a/b", "env": {"A": "{{x}}"}}, "KServe would replace"),
        ({"runtime": "other"}, "are for --shape storage"),
        ({"service_type": "NodePort"}, "--service-type: goes with kubernetes only"),
        ({"name": "a" * 49}, "at most 48 characters"),
        ({"scale_on": "utilization", "max_replicas": 2}, "expected --prometheus"),
        ({"monitor": True, "mode": "knative"}, "Knative opens no port of metrics"),
        ({"scale_on": "utilization", "mode": "knative"}, "Knative scales by concurrent calls"),
    ],
)
def test_refuses_what_kserve_would_not_run(given: dict[str, Any], message: str) -> None:
    opened = open_folder(IRIS)
    options = manifests.options.parse({"image": "a:1", **given})
    with pytest.raises(ManifestError, match=message):
        manifests.derive("kserve", opened.definition, IRIS, options)


@pytest.mark.parametrize("shape", ["image", "storage", "inline"])
@pytest.mark.parametrize("cpu", ["500m", "1", "2"])
def test_the_cpu_limit_is_not_left_to_kserves_webhook(shape: str, cpu: str) -> None:
    def limit(**given: Any) -> Any:
        spec = predictor(objects("kserve", shape, cpu=cpu, **given))
        holder = spec["model"] if shape == "storage" else spec["containers"][0]
        # The webhook fills in what is missing, and the API server compares.
        resources = holder["resources"]
        limits = {"cpu": "1", **resources["limits"]}
        assert names.amount(resources["requests"]["cpu"]) <= names.amount(limits["cpu"])
        return limits["cpu"]

    assert limit() == cpu
    assert limit(cpu_limit="4") == "4"


@pytest.mark.parametrize("shape", ["image", "storage", "inline"])
def test_a_rollout_and_a_drain_keep_the_pods_that_serve(shape: str) -> None:
    found = objects("kserve", shape, replicas=3)
    rolling = predictor(found)["deploymentStrategy"]["rollingUpdate"]
    assert rolling == {"maxUnavailable": 0, "maxSurge": 1}
    budget = one(found, "PodDisruptionBudget")["spec"]
    assert budget["maxUnavailable"] == 1
    assert budget["selector"] == {"matchLabels": {"serving.kserve.io/inferenceservice": "iris"}}
    for given in ({"replicas": 1}, {"replicas": 3, "mode": "knative"}):
        kinds = {each["kind"] for each in objects("kserve", shape, **given)}
        assert "PodDisruptionBudget" not in kinds


def test_knative_waits_longer_for_a_start_than_the_startup_probe() -> None:
    found = objects("kserve", "inline", mode="knative")
    probe = containers(found)[0]["startupProbe"]
    annotations = one(found, "InferenceService")["metadata"]["annotations"]
    deadline = int(annotations["serving.knative.dev/progress-deadline"].removesuffix("s"))
    assert deadline > probe["periodSeconds"] * probe["failureThreshold"]


@pytest.mark.parametrize("shape", ["image", "storage", "inline"])
def test_kserve_scales_by_keda_on_the_utilization(shape: str) -> None:
    given = {"scale_on": "utilization", "prometheus": "http://prom:9090", "max_replicas": 5}
    found = objects("kserve", shape, **given)
    for each in found:
        if schemas.knows(each):
            schemas.check(each)
    service = one(found, "InferenceService")
    assert service["metadata"]["annotations"]["serving.kserve.io/autoscalerClass"] == "keda"
    (metric,) = predictor(found)["autoScaling"]["metrics"]
    query = 'avg_over_time(sum(pyfunc_utilization{model="iris"})[1m:15s])'
    assert metric["external"]["metric"]["query"] == query
    assert metric["external"]["target"] == {"type": "Value", "value": "0.7"}
    assert "scaleMetric" not in predictor(found)
