"""What holds of every pod, wherever it runs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mlserver.settings import Settings

from mlserver_pyfunc.definition import parse
from mlserver_pyfunc.deployment import manifests
from mlserver_pyfunc.deployment.manifests import ManifestError, pod
from mlserver_pyfunc.serving.limits import UNLOAD_SECONDS
from tests.places import IRIS, ROOT

from .cases import (
    CASES,
    IMAGE,
    SHAPES,
    containers,
    env,
    function,
    made,
    objects,
    of,
    one,
    pods,
    strings,
)

# A predictor that a runtime completes names an image and ports there.
STORED = ("kserve", "storage")
WHOLE = [case for case in CASES if case[2] != "runtime that is there"]


@pytest.mark.parametrize(("platform", "shape", "case"), WHOLE)
def test_each_container_runs_the_image_without_any_right(
    platform: str, shape: str, case: str
) -> None:
    (container,) = containers(made(platform, shape, case))
    assert container["image"] == IMAGE
    security = container["securityContext"]
    assert security.get("runAsUser") == (None if case == "any user" else 1000)
    assert {key: value for key, value in security.items() if key != "runAsUser"} == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


@pytest.mark.parametrize(("platform", "shape", "case"), WHOLE)
def test_only_tmp_and_what_the_user_mounts_can_be_written_to(
    platform: str, shape: str, case: str
) -> None:
    found = made(platform, shape, case)
    (container,) = containers(found)
    volumes = {each["name"]: each for spec in pods(found) for each in spec.get("volumes", [])}
    mounts = {each["mountPath"]: each for each in container["volumeMounts"]}
    assert volumes[mounts["/tmp"]["name"]]["emptyDir"] == {}
    variables = env(container)
    for name in ("HOME", "MLSERVER_ENVIRONMENTS_DIR", "MLSERVER_METRICS_DIR"):
        assert variables[name].startswith("/tmp")
    assert {each["name"] for each in mounts.values()} <= set(volumes)
    if "/mnt/models" in mounts:
        assert mounts["/mnt/models"]["readOnly"] is True


@pytest.mark.parametrize(("platform", "shape", "case"), CASES)
def test_user_mounts_are_mounted_read_only_where_they_should_be(
    platform: str, shape: str, case: str
) -> None:
    if case != "everything":
        return
    specs = pods(made(platform, shape, case))
    parts = [each for spec in specs for each in [*spec.get("containers", []), spec.get("model")]]
    mounts = {
        each["mountPath"]: each.get("readOnly", False)
        for part in parts
        if part
        for each in part.get("volumeMounts", [])
    }
    assert {path: mounts[path] for path in ("/data", "/out", "/keys", "/conf", "/scratch")} == {
        "/data": True,
        "/out": False,
        "/keys": True,
        "/conf": True,
        "/scratch": False,
    }


@pytest.mark.parametrize(("platform", "shape", "case"), WHOLE)
def test_probes_ask_the_model_and_never_the_server_alone(
    platform: str, shape: str, case: str
) -> None:
    (container,) = containers(made(platform, shape, case))
    if platform == "seldon-v2":
        # Its models come and go; Seldon's own configuration probes the server.
        assert "readinessProbe" not in container
        return
    name = "{{.Name}}" if (platform, shape) == ("kserve", "storage") else "iris"
    port = {"kserve": 8080}.get(platform, "http")
    ready = {"path": f"/v2/models/{name}/ready", "port": port}
    assert container["readinessProbe"]["httpGet"] == ready
    assert container["startupProbe"]["httpGet"] == ready
    assert container["livenessProbe"]["httpGet"] == {"path": "/v2/health/live", "port": port}


@pytest.mark.parametrize(("platform", "shape"), SHAPES)
def test_a_pod_may_start_for_as_long_as_its_function_may(platform: str, shape: str) -> None:
    definition = function(serving={"init_timeout": 1800})
    if platform == "seldon-v2":
        return  # its models are loaded after the start
    found = of(definition, IRIS, platform, shape)
    # A service says so itself, for its runtime does not know.
    holders = [pods(found)[1]["model"]] if (platform, shape) == STORED else containers(found)
    for container in holders:
        probe = container["startupProbe"]
        seconds = probe["periodSeconds"] * probe["failureThreshold"]
        assert seconds > 1800 + (0 if shape == "image" else pod.FETCH_SECONDS)


@pytest.mark.parametrize(("platform", "shape", "case"), WHOLE)
def test_a_pod_may_end_for_as_long_as_the_server_drains(
    platform: str, shape: str, case: str
) -> None:
    found = made(platform, shape, case)
    grace = [spec.get("terminationGracePeriodSeconds") for spec in pods(found)]
    hooks = [each.get("lifecycle") for each in containers(found)]
    if case.startswith("knative") or platform == "seldon-v2":
        # Knative refuses both, and Seldon 2 has its own.
        assert grace in ([None], [None, None])
        assert hooks == [None]
        return
    (sleep,) = [hook["preStop"]["exec"]["command"] for hook in hooks if hook]
    timeout = 60  # of the example, by default
    spent = int(sleep[1]) + timeout + pod.DRAIN_SECONDS + pod.PART_SECONDS
    assert max(filter(None, grace)) > spent


def test_the_drain_limit_is_the_one_the_code_and_the_docs_have() -> None:
    assert pod.DRAIN_SECONDS == 2 * UNLOAD_SECONDS
    text = (ROOT / "docs" / "operations.md").read_text()
    assert f"of more than `timeout` and {pod.DRAIN_SECONDS} s" in text


def test_a_gpu_is_asked_for_each_device_of_the_workers(tmp_path: Path) -> None:
    def limits(**options: Any) -> dict[str, str]:
        given = manifests.options.parse(options)
        made = manifests.derive("kubernetes", definition, tmp_path, given)
        (container,) = containers(made.objects)
        return dict(container["resources"]["limits"])

    serving = {"isolation": "process", "workers": 2, "devices": {"per_worker": 2}}
    source = {"code": "def f(x): return x", "handler": "f"}
    definition = parse({"model_name": "m", "source": source, "serving": serving})
    image = {"image": "registry.example/m:1"}
    assert limits(**image)["nvidia.com/gpu"] == "4"
    assert limits(**image, gpus=8)["nvidia.com/gpu"] == "8"
    with pytest.raises(ManifestError, match=r"--gpus: serving.devices has 4, got 1"):
        limits(**image, gpus=1)


@pytest.mark.parametrize(("platform", "shape", "case"), WHOLE)
def test_settings_that_mlserver_ships_badly_are_set(platform: str, shape: str, case: str) -> None:
    (container,) = containers(made(platform, shape, case))
    variables = env(container)
    assert variables["MLSERVER_PARALLEL_WORKERS"] == "0"
    assert variables["MLSERVER_DEBUG"] == variables["MLSERVER_GZIP_ENABLED"] == "false"
    # Seldon 2 has a limit of its own, and would append ours to it.
    limit = variables.get("MLSERVER_GRPC_MAX_MESSAGE_LENGTH")
    assert limit == (None if platform == "seldon-v2" else "268435456")


@pytest.mark.parametrize(("platform", "shape", "case"), CASES)
def test_no_variable_is_listed_twice(platform: str, shape: str, case: str) -> None:
    for container in containers(made(platform, shape, case)):
        listed = [each["name"] for each in container["env"]]
        assert len(listed) == len(set(listed))


@pytest.mark.parametrize(("platform", "shape", "case"), CASES)
def test_nothing_is_a_template_but_the_name_in_kserves_runtime(
    platform: str, shape: str, case: str
) -> None:
    for found in made(platform, shape, case):
        templates = {text for text in strings(found) if "{{" in text}
        is_runtime = found["kind"].endswith("ServingRuntime")
        assert templates == ({"{{.Name}}", "/v2/models/{{.Name}}/ready"} if is_runtime else set())


@pytest.mark.parametrize(("platform", "shape", "case"), CASES)
def test_no_arguments_are_given_that_a_merge_could_double(
    platform: str, shape: str, case: str
) -> None:
    for container in containers(made(platform, shape, case)):
        assert "args" not in container
        assert "command" not in container


@pytest.mark.parametrize(("platform", "shape"), SHAPES)
def test_secrets_are_references_alone(platform: str, shape: str) -> None:
    found = made(platform, shape, "everything")
    texts = json.dumps(found)
    assert '"secretKeyRef": {"name": "s3", "key": "secret"}' in texts
    assert '"secretRef": {"name": "all"}' in texts
    assert not any(each["kind"] == "Secret" for each in found)
    (secret,) = re.findall(r'\{"name": "AWS_SECRET_ACCESS_KEY"[^}]*', texts)
    assert '"value"' not in secret


@pytest.mark.parametrize(("platform", "shape"), SHAPES)
def test_a_gpu_is_requested_and_limited_alike(platform: str, shape: str) -> None:
    found = objects(platform, shape, gpus=2, gpu_resource="amd.com/gpu")
    # A runtime is for any function: its service asks for what it needs.
    (resources,) = [each["resources"] for each in parts(found) if "resources" in each]
    assert resources["requests"]["amd.com/gpu"] == resources["limits"]["amd.com/gpu"] == "2"


def parts(found: list[dict[str, object]]) -> list[dict[str, object]]:
    return [*containers(found), *(spec["model"] for spec in pods(found) if "model" in spec)]


@pytest.mark.parametrize(("platform", "shape", "case"), CASES)
def test_labels_and_namespace_are_on_every_object(platform: str, shape: str, case: str) -> None:
    for found in made(platform, shape, case):
        metadata = found["metadata"]
        assert metadata["labels"]["app.kubernetes.io/managed-by"] == "mlserver-pyfunc"
        if case == "everything":
            assert metadata["namespace"] == "team-a"
            assert metadata["labels"]["team"] == "a"
            assert metadata["annotations"]["a.org/b"] == "c"


def test_a_value_of_the_definition_is_not_expanded_by_kubernetes() -> None:
    definition = function(build={"env": {"PRICE": "$(COST) $$ $x"}})
    (container,) = containers(of(definition, IRIS, "kubernetes", "inline"))
    assert env(container)["PRICE"] == "$$(COST) $$$$ $$x"


def test_mlserver_is_not_imported() -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom mlserver_pyfunc.deployment import manifests\n"
        "from mlserver_pyfunc.definition.locate import open_folder\n"
        f"folder = Path({str(IRIS)!r})\nopened = open_folder(folder)\n"
        "options = manifests.options.parse({'image': 'a:1', 'shape': 'inline'})\n"
        "found = manifests.derive('kserve', opened.definition, folder, options).objects\n"
        "print(len(manifests.dump(found)) > 0, {'mlserver', 'kserve', 'grpc'} & set(sys.modules))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "True set()\n"


@pytest.mark.parametrize(
    ("platform", "shape"), [each for each in SHAPES if each[0] in ("kserve", "kubernetes")]
)
def test_a_monitor_scrapes_the_port_of_metrics(platform: str, shape: str) -> None:
    found = objects(platform, shape, monitor=True)
    monitor = one(found, "PodMonitor")
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    (container,) = containers(found)
    assert {each["name"]: each["containerPort"] for each in container["ports"]}["metrics"] == 8082
    # The path is MLServer's own, which no variable of ours changes.
    assert "MLSERVER_METRICS_ENDPOINT" not in env(container)
    assert endpoint == {"port": "metrics", "path": Settings().metrics_endpoint}
    # As the budget, which is tested to select the pods.
    budget = one(objects(platform, shape, replicas=2), "PodDisruptionBudget")
    assert monitor["spec"]["selector"] == budget["spec"]["selector"]
    assert monitor["metadata"]["name"] == budget["metadata"]["name"]


def template_annotations(found: list[dict[str, Any]]) -> dict[str, str]:
    """Annotations that the platform puts on the pods."""
    for each in found:
        spec: Any = each.get("spec", {})
        match each["kind"]:
            case "InferenceService":
                return dict(spec["predictor"]["annotations"])
            case "SeldonDeployment":
                (component,) = spec["predictors"][0]["componentSpecs"]
                return dict(component.get("metadata", {}).get("annotations", {}))
            case "Deployment":
                return dict(spec["template"]["metadata"]["annotations"])
    raise AssertionError(found)


@pytest.mark.parametrize("platform", ["kserve", "seldon-v1", "kubernetes"])
def test_an_edit_of_an_inline_function_replaces_the_pods(platform: str) -> None:
    def annotations(code: str, shape: str = "inline") -> dict[str, str]:
        definition = function(source={"code": code, "handler": "f"})
        return template_annotations(of(definition, IRIS, platform, shape))

    before, after = annotations("f = 1"), annotations("f = 2")
    assert before != after
    assert before == annotations("f = 1")
    assert before.keys() - annotations("f = 1", "image").keys()
