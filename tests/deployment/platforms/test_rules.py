"""The platforms' rules themselves: what they add, merge, replace and refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.deployment.image.dockerfile import parse

from . import kserve, seldon_v1, seldon_v2
from .cluster import Cluster, Object, expand, make_volume, variables
from .container import command_line, privileges
from .merge import appended, merged
from .validation import PodInvalidError, check

METADATA = {"name": "iris", "labels": {"team": "a"}}
POD: Object = {"metadata": {"name": "p"}, "spec": {}}


def _container(**more: Any) -> Object:
    return {"name": kserve.CONTAINER, "image": "i", **more}


def _kserve(model: Object, **runtime: Any) -> Cluster:
    spec = {
        "supportedModelFormats": [{"name": "pyfunc", "autoSelect": True}],
        "protocolVersions": ["v2"],
        "containers": [_container()],
        **runtime,
    }
    service = {"spec": {"predictor": {"model": {"modelFormat": {"name": "pyfunc"}, **model}}}}
    objects = [
        {"kind": "ServingRuntime", "metadata": {"name": "r"}, "spec": spec},
        {"kind": "InferenceService", "metadata": METADATA, **service},
    ]
    return Cluster(objects, {}, storage={"s3://m": Path("/m")})


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("/v2/models/{{.Name}}/ready", "/v2/models/iris/ready"),
        ("{{ .Name }}.{{.Namespace}}", "iris.models"),
        ("{{.Labels.team}} {{.Labels.none}}", "a <no value>"),
        ("no { { braces } }", "no { { braces } }"),
    ],
)
def test_kserve_fills_in_the_names_of_the_service(text: str, filled: str) -> None:
    assert kserve.fill_in({"a": [text]}, METADATA) == {"a": [filled]}


@pytest.mark.parametrize("text", ["{{x}}", "{{", '{{ "{{" }}', "{{.name}}", "{{if .Name}}a{{end}}"])
def test_kserve_refuses_what_its_templates_do_not_know(text: str) -> None:
    with pytest.raises(kserve.KServeError, match="template"):
        kserve.fill_in({"a": text}, METADATA)


def test_kserve_lays_the_service_over_the_runtime() -> None:
    runtime = _container(
        args=["a"],
        env=[{"name": "X", "value": "1"}, {"name": "Y", "value": "{{.Name}}"}],
        volumeMounts=[{"name": "tmp", "mountPath": "/tmp"}],
    )
    model = {
        "runtime": "r",
        "storageUri": "s3://m",
        "args": ["b"],
        "env": [{"name": "X", "value": "2"}, {"name": "Z", "value": "3"}],
    }
    volumes = [{"name": "tmp", "emptyDir": {}}]
    pod = kserve.pod(_kserve(model, containers=[runtime], volumes=volumes))
    (container,) = pod["spec"]["containers"]
    assert container["args"] == ["a", "b"]
    env = variables(Cluster([], {}), pod, container, "10.0.0.1")
    assert {name: env[name] for name in "XYZ"} == {"X": "2", "Y": "iris", "Z": "3"}
    assert env["INFERENCE_SERVICE_NAME"] == "iris"
    assert container["readinessProbe"]["tcpSocket"] == {"port": 8080}
    mounts = {each["mountPath"]: each.get("readOnly") for each in container["volumeMounts"]}
    assert mounts == {"/tmp": None, "/mnt/models": True}
    check(pod)


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        ({"storageUri": "s3://m"}, "no runtime"),
        ({"runtime": "r"}, "multi-model"),
        ({"runtime": "other", "storageUri": "s3://m"}, "no runtime"),
        ({"runtime": "r", "protocolVersion": "v1", "storageUri": "s3://m"}, "no runtime"),
    ],
)
def test_kserve_refuses_a_service_that_it_cannot_place(model: Object, problem: str) -> None:
    with pytest.raises(kserve.KServeError, match=problem):
        kserve.pod(_kserve(model))


def _seldon(node: Object, container: Object) -> Cluster:
    predictor = {
        "name": "default",
        "graph": {"name": "iris", **node},
        "componentSpecs": [{"spec": {"containers": [{"image": "i", **container}]}}],
    }
    deployment = {"kind": "SeldonDeployment", "metadata": METADATA}
    objects = [{**deployment, "spec": {"predictors": [predictor]}}]
    return Cluster(objects, {}, storage={"s3://m": Path("/m")})


def test_seldon_v1_tells_the_container_its_name_and_ports() -> None:
    ours = [{"name": "MLSERVER_MODEL_NAME", "value": "mine"}]
    node = {"modelUri": "s3://m", "parameters": [{"name": "a", "value": "1", "type": "INT"}]}
    cluster = _seldon(node, {"name": "iris", "env": ours})
    pod = check(seldon_v1.pod(cluster))
    (container,) = pod["spec"]["containers"]
    env = variables(cluster, pod, container, "10.0.0.1")
    assert env["MLSERVER_HTTP_PORT"] == "9000"
    assert env["MLSERVER_GRPC_PORT"] == "9500"
    assert env["MLSERVER_METRICS_PORT"] == "6000"
    assert env["MLSERVER_MODEL_NAME"] == "iris"
    assert env["MLSERVER_MODEL_URI"] == "/mnt/models"
    assert json.loads(env["PREDICTIVE_UNIT_PARAMETERS"])[0]["value"] == "1"
    assert container["readinessProbe"]["tcpSocket"] == {"port": 9000}
    assert pod["spec"]["securityContext"] == {"runAsUser": seldon_v1.USER}


def test_seldon_v1_refuses_a_node_without_its_container() -> None:
    with pytest.raises(seldon_v1.SeldonError, match="Predictive Unit"):
        seldon_v1.pod(_seldon({}, {"name": "other"}))


def test_seldon_v2_keeps_only_the_settings_it_knows() -> None:
    settings = {
        "name": "iris",
        "implementation": "a.B",
        "debug": True,
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [], "tags": ["a"]}],
        "parameters": {"version": "7", "extra": {"function": "f"}, "inference_pool_gid": "g"},
    }
    assert seldon_v2.rewritten(settings, "iris_3") == {
        "name": "iris_3",
        "implementation": "a.B",
        "inputs": [{"name": "x", "datatype": "FP32"}],
        "parameters": {"version": "1", "extra": {"function": "f"}},
    }


def test_seldon_v2_merges_containers_by_appending_their_lists(tmp_path: Path) -> None:
    container = {
        "name": "mlserver",
        "image": "mine",
        "env": [{"name": "MLSERVER_HTTP_PORT", "value": "1"}],
        "livenessProbe": {"periodSeconds": 3},
    }
    server = {"serverConfig": "mlserver", "podSpec": {"containers": [container]}}
    objects = [{"kind": "Server", "metadata": {"name": "s"}, "spec": server}]
    pod = check(seldon_v2.pod(Cluster(objects, {}), tmp_path / "agent"))
    (found,) = pod["spec"]["containers"]
    assert found["image"] == "mine"
    assert found["livenessProbe"] == {"httpGet": seldon_v2._LIVE, "periodSeconds": 3}
    env = variables(Cluster(objects, {}), pod, found, "10.0.0.1")
    assert (env["MLSERVER_HTTP_PORT"], env["MLSERVER_GRPC_PORT"]) == ("1", "9500")


@pytest.mark.parametrize(
    "container",
    [
        {"ports": [{"name": "a", "containerPort": 1}, {"name": "a", "containerPort": 2}]},
        {"volumeMounts": [{"name": "none", "mountPath": "/a"}]},
        {"readinessProbe": {"httpGet": {}, "tcpSocket": {}}},
        {"livenessProbe": {"tcpSocket": {}, "successThreshold": 2}},
    ],
)
def test_the_api_server_refuses_a_pod_that_contradicts_itself(container: Object) -> None:
    with pytest.raises(PodInvalidError):
        check({"spec": {"containers": [container]}})


def test_a_variable_comes_from_one_place_after_a_merge() -> None:
    base = {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {}}}]}
    patch = {"env": [{"name": "A", "value": "1"}]}
    assert merged(base, patch) == patch
    assert appended(base, patch)["env"] == [*base["env"], *patch["env"]]


def test_variables_refer_to_those_before_them() -> None:
    container = {
        "envFrom": [{"configMapRef": {"name": "c"}, "prefix": "P_"}],
        "env": [
            {"name": "A", "value": "$(P_K)/$(B)"},
            {"name": "B", "value": "$$(A) $(A)"},
            {"name": "C", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
        ],
    }
    objects = [
        {"kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"K": "v"}},
        {"kind": "Secret", "metadata": {"name": "s"}, "data": {"k": "c2VjcmV0"}},
    ]
    env = variables(Cluster(objects, {}), POD, container, "10.0.0.1")
    assert (env["A"], env["B"], env["C"]) == ("v/$(B)", "$(A) v/$(B)", "secret")
    assert expand("$(A) $B", env) == "v/$(B) $B"


def test_a_command_takes_the_place_of_the_images_entrypoint_and_its_arguments() -> None:
    assert command_line({}, ["e"], ["c"], {}) == ["e", "c"]
    assert command_line({"args": ["a"]}, ["e"], ["c"], {}) == ["e", "a"]
    assert command_line({"command": ["$(X)"]}, ["e"], ["c"], {"X": "x"}) == ["x"]


def test_a_user_is_the_images_unless_the_pod_gives_another() -> None:
    assert privileges(POD, {}, "1000:0")[:4] == ["--reuid", "1000", "--regid", "0"]
    pod = {"spec": {"securityContext": {"runAsUser": 5, "runAsGroup": 6, "fsGroup": 7}}}
    found = privileges(pod, {}, "1000:0")
    assert found == ["--reuid", "5", "--regid", "6", "--groups", "7"]
    with pytest.raises(PermissionError):
        privileges(POD, {"securityContext": {"runAsNonRoot": True}}, "0:0")


def test_files_of_a_config_map_are_links(tmp_path: Path) -> None:
    objects = [{"kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a.py": "1"}}]
    volume = {"name": "v", "configMap": {"name": "c"}}
    folder = make_volume(Cluster(objects, {}), POD, volume, tmp_path / "v")
    assert (folder / "a.py").is_symlink()
    assert (folder / "a.py").read_text() == "1"


def test_an_image_is_that_of_the_last_stage() -> None:
    image = parse(
        "FROM a AS base\nENV X=1 \\\n  PATH=/opt/bin:$PATH\nUSER root\nENTRYPOINT []\n"
        'FROM b AS tools\nENV X=2\nFROM base\nENV Y="$X 2"\n# COPY a b\n'
        'COPY --from=tools /a /b\nCOPY a b /c\nUSER 1000:0\nCMD ["sh", "-c", "a"]\n'
    )
    assert (image.env["X"], image.env["Y"]) == ("1", "1 2")
    assert image.env["PATH"].startswith("/opt/bin:/usr/local")
    assert (image.user, image.entrypoint, image.command) == ("1000:0", (), ("sh", "-c", "a"))
    assert image.copies == (("a", "b", "/c"),)
