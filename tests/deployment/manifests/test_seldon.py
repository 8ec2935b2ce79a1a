"""What Seldon Core 1 and 2 make of their objects, as far as their schemas do not say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mlserver_pyfunc.definition import parse
from mlserver_pyfunc.definition.locate import open_folder
from mlserver_pyfunc.deployment import manifests
from mlserver_pyfunc.deployment.manifests import ManifestError
from tests.places import IRIS

from .cases import containers, env, function, made, objects, of, one

V1_SHAPES = ["image", "storage", "inline"]
# Seldon 1 appends these to a container whatever it has.
APPENDED = {"MLSERVER_MODEL_NAME"}


def predictor(found: list[dict[str, Any]]) -> dict[str, Any]:
    spec = one(found, "SeldonDeployment")["spec"]
    assert spec["protocol"] == "v2"
    (only,) = spec["predictors"]
    return dict(only)


@pytest.mark.parametrize("shape", V1_SHAPES)
@pytest.mark.parametrize("model_name", ["iris", "My_Model"])
def test_the_node_is_a_container_of_its_name_and_nothing_ready_made(
    shape: str, model_name: str, tmp_path: Path
) -> None:
    found = of(function(model_name=model_name), tmp_path, "seldon-v1", shape)
    graph = predictor(found)["graph"]
    (container,) = containers(found)
    assert graph["name"] == container["name"]
    assert "implementation" not in graph
    assert graph["type"] == "MODEL"
    # Its name is the model's for Seldon, so it is what the probes ask for.
    path = container["readinessProbe"]["httpGet"]["path"]
    assert path == f"/v2/models/{container['name']}/ready"


@pytest.mark.parametrize("shape", V1_SHAPES)
def test_seldon_1_is_left_to_set_what_it_sets(shape: str) -> None:
    (container,) = containers(made("seldon-v1", shape))
    variables = set(env(container))
    assert not variables & APPENDED
    assert not variables & {"MLSERVER_HTTP_PORT", "MLSERVER_GRPC_PORT", "MLSERVER_MODEL_URI"}
    assert "PREDICTIVE_UNIT_PARAMETERS" not in variables
    # It tells the server the ports that the container names so.
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    assert ports == {"http": 9000, "grpc": 9500, "metrics": 8082}


def test_seldon_1_fetches_a_folder_and_tells_where() -> None:
    found = made("seldon-v1", "storage", "everything")
    graph = predictor(found)["graph"]
    assert graph["modelUri"] == "gs://models/iris"
    assert graph["serviceAccountName"] == "model-reader"
    (container,) = containers(found)
    variables = env(container)
    assert variables["MLSERVER_MODELS_DIR"] == "/mnt/models"
    assert variables["MLSERVER_MODEL_IMPLEMENTATION"] == "mlserver_pyfunc.PyFuncRuntime"
    assert "modelUri" not in predictor(made("seldon-v1", "image"))["graph"]


def test_seldon_1_scales_by_its_own_fields() -> None:
    fixed = predictor(objects("seldon-v1", "image", replicas=3))
    assert fixed["replicas"] == 3
    assert "hpaSpec" not in fixed["componentSpecs"][0]
    scaled = predictor(objects("seldon-v1", "image", min_replicas=2, max_replicas=5))
    assert "replicas" not in scaled
    hpa = scaled["componentSpecs"][0]["hpaSpec"]
    assert (hpa["minReplicas"], hpa["maxReplicas"]) == (2, 5)
    assert hpa["metrics"][0]["resource"] == {"name": "cpu", "targetAverageUtilization": 80}


def test_seldon_1_names_a_service() -> None:
    found = predictor(objects("seldon-v1", "image", service_name="flowers"))
    assert found["annotations"] == {"seldon.io/svc-name": "flowers"}


def test_seldon_1_refuses_a_name_in_the_folder_that_it_would_not_ask_for(tmp_path: Path) -> None:
    (tmp_path / "model-settings.json").write_text('{"name": "My_Model"}')
    with pytest.raises(ManifestError, match=r'expected no name, or "my-model-\w+".*"My_Model"'):
        of(function(model_name=None), tmp_path, "seldon-v1", "storage")


@pytest.mark.parametrize("shape", ["storage", "inline"])
def test_a_model_of_seldon_2_asks_for_what_its_server_can_do(shape: str) -> None:
    found = made("seldon-v2", shape)
    server, model = one(found, "Server")["spec"], one(found, "Model")["spec"]
    assert server["serverConfig"] == "mlserver"
    assert set(model["requirements"]) <= set(server["extraCapabilities"]) == {"pyfunc"}
    (container,) = server["podSpec"]["containers"]
    assert container["name"] == "mlserver"
    assert [each["kind"] for each in found] == ["Server", "Model"]


def test_a_model_asks_for_the_server_that_was_named() -> None:
    for case, name in (("plain", None), ("everything", "team-server")):
        found = made("seldon-v2", "storage", case)
        assert one(found, "Model")["spec"].get("server") == name
        assert one(found, "Server")["metadata"]["name"] == (name or "mlserver-pyfunc")


def test_a_server_of_seldon_2_repeats_nothing_of_its_configuration() -> None:
    (container,) = containers(made("seldon-v2", "storage"))
    theirs = {
        "MLSERVER_HTTP_PORT", "MLSERVER_GRPC_PORT", "MLSERVER_MODELS_DIR",
        "MLSERVER_MODEL_PARALLEL_WORKERS", "MLSERVER_LOAD_MODELS_AT_STARTUP",
        "MLSERVER_GRPC_MAX_MESSAGE_LENGTH",
    }  # fmt: skip
    assert not theirs & set(env(container))
    # Its lists are appended to: a second port or probe would stand beside the first.
    for field in ("ports", "readinessProbe", "livenessProbe", "startupProbe", "lifecycle"):
        assert field not in container
    assert "/mnt/agent" not in {each["mountPath"] for each in container["volumeMounts"]}


@pytest.mark.parametrize("name", sorted({"MLSERVER_GRPC_MAX_MESSAGE_LENGTH"}))
def test_a_server_of_seldon_2_refuses_variables_of_its_configuration(name: str) -> None:
    with pytest.raises(ManifestError, match="ServerConfig sets"):
        objects("seldon-v2", "storage", env={name: "1"})


def test_a_definition_reaches_seldon_2_as_one_text() -> None:
    opened = open_folder(IRIS)
    model = one(made("seldon-v2", "inline"), "Model")["spec"]
    (parameter,) = model["parameters"]
    assert parameter["name"] == "function"
    given = json.loads(parameter["value"])
    # Seldon's agent gives the model another name, with a version in it.
    assert "model_name" not in given
    assert parse(given).inputs == opened.definition.inputs
    assert "parameters" not in one(made("seldon-v2", "storage"), "Model")["spec"]


def test_a_model_of_seldon_2_needs_a_folder() -> None:
    opened = open_folder(IRIS)
    for shape in ("auto", "inline"):
        options = manifests.options.parse({"image": "a:1", "shape": shape})
        with pytest.raises(ManifestError, match="expected --storage-uri, got none"):
            manifests.derive("seldon-v2", opened.definition, IRIS, options)


def test_a_model_alone_needs_no_image() -> None:
    opened = open_folder(IRIS)
    options = manifests.options.parse({"storage_uri": "gs://a/b", "with_runtime": False})
    (model,) = manifests.derive("seldon-v2", opened.definition, IRIS, options).objects
    assert model["kind"] == "Model"
