"""What Seldon Core v2 makes of a Server and its Models: the operator's pod, and the agent."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx

from .cluster import NAMESPACE, Cluster, Object
from .kubelet import Pod
from .merge import appended

HTTP, GRPC, DRAINER = 9000, 9500, 9007
VOLUME = "mlserver-models"
CAPABILITIES = ("mlserver", "alibi-detect", "alibi-explain", "huggingface", "lightgbm", "mlflow",
                "python", "sklearn", "spark-mlib", "xgboost")  # fmt: skip
# What of a model-settings.json survives, and of its parameters.
SETTINGS = {"name": str, "inputs": list, "outputs": list, "platform": str, "versions": list,
            "parallel_workers": int, "implementation": str, "parameters": dict}  # fmt: skip
PARAMETERS = {"uri": str, "version": str, "format": str, "content_type": str, "extra": dict,
              "environment_tarball": str}  # fmt: skip
TENSOR = {"name": str, "shape": list, "datatype": str}

_LIVE = {"path": "/v2/health/live", "port": "server-http"}
# The mlserver container of the ServerConfig "mlserver".
CONTAINER: Object = {
    "name": "mlserver",
    "image": "mlserver:latest",
    "env": [
        {"name": "MLSERVER_HTTP_PORT", "value": str(HTTP)},
        {"name": "MLSERVER_GRPC_PORT", "value": str(GRPC)},
        {"name": "MLSERVER_MODELS_DIR", "value": "/mnt/agent/models"},
        {"name": "MLSERVER_MODEL_PARALLEL_WORKERS", "value": "1"},
        {"name": "MLSERVER_LOAD_MODELS_AT_STARTUP", "value": "false"},
        {"name": "MLSERVER_GRPC_MAX_MESSAGE_LENGTH", "value": "1048576000"},
    ],
    "lifecycle": {"preStop": {"httpGet": {"path": "terminate", "port": DRAINER}}},
    "livenessProbe": {"httpGet": _LIVE},
    "readinessProbe": {"httpGet": _LIVE, "initialDelaySeconds": 5, "periodSeconds": 5},
    "startupProbe": {"httpGet": _LIVE, "failureThreshold": 10, "periodSeconds": 10},
    "ports": [
        {"name": "server-grpc", "containerPort": GRPC},
        {"name": "server-http", "containerPort": HTTP},
    ],
    "volumeMounts": [{"name": VOLUME, "mountPath": "/mnt/agent", "readOnly": True}],
}
SPEC: Object = {
    "terminationGracePeriodSeconds": 120,
    "securityContext": {"fsGroup": 2000, "runAsUser": 1000, "runAsNonRoot": True},
    "containers": [CONTAINER],
    "volumes": [],
}


class SeldonError(Exception):
    """What the scheduler or the agent would say."""


def pod(cluster: Cluster, agent_folder: Path) -> Object:
    """The pod of the one Server, its agent's folder mounted from this machine."""
    server = cluster.only("Server")
    if server["spec"]["serverConfig"] != "mlserver":
        raise SeldonError(f"no ServerConfig {server['spec']['serverConfig']}")
    override = copy.deepcopy(server["spec"].get("podSpec", {}))
    containers = override.pop("containers", [])
    spec = appended({key: value for key, value in SPEC.items() if key != "containers"}, override)
    (container,) = containers or [{"name": "mlserver"}]
    if container["name"] != "mlserver":
        raise SeldonError(f'expected the container "mlserver", got "{container["name"]}"')
    spec["containers"] = [appended(CONTAINER, container)]
    (agent_folder / "models").mkdir(parents=True)
    spec["volumes"] = [*spec["volumes"], {"name": VOLUME, "hostPath": {"path": str(agent_folder)}}]
    metadata = {"name": f"{server['metadata']['name']}-0", "namespace": NAMESPACE}
    return {"metadata": metadata, "spec": spec}


class Agent:
    """Brings Models into a running server, as the agent in its pod does.

    Args:
        cluster: With the Server and the Models.
        pod: The server's.
        folder: The agent's, of which the server sees `models`.
    """

    def __init__(self, cluster: Cluster, pod: Pod, folder: Path) -> None:
        self._cluster = cluster
        self._pod = pod
        self._folder = folder / "models"

    def load(self, model: Object, version: int) -> httpx.Response:
        """Writes the artifact under its versioned name and asks the server to load it.

        Args:
            model: A Model.
            version: The scheduler's count of the Model's specs.

        Raises:
            SeldonError: It cannot be brought in.
        """
        self._check_requirements(model)
        name = versioned(model, version)
        source = _artifact(self._cluster.storage[model["spec"]["storageUri"]])
        target = self._folder / name / "1"
        shutil.copytree(source, target)
        file = target / "model-settings.json"
        if not file.is_file():
            raise SeldonError(
                f"Can't create model-settings from requirements {model['spec']['requirements']}"
            )
        settings = rewritten(json.loads(file.read_text()), name)
        extra = settings["parameters"].setdefault("extra", {})
        for each in model["spec"].get("parameters", []):
            extra[each["name"]] = str(each["value"])
        file.write_text(json.dumps(settings))
        return self._post(name, "load")

    def unload(self, model: Object, version: int) -> httpx.Response:
        name = versioned(model, version)
        answer = self._post(name, "unload")
        shutil.rmtree(self._folder / name)
        return answer

    def _check_requirements(self, model: Object) -> None:
        spec = self._cluster.only("Server")["spec"]
        offered = spec.get("capabilities") or (*CAPABILITIES, *spec.get("extraCapabilities", []))
        missing = set(model["spec"].get("requirements", [])) - set(offered)
        if missing:
            raise SeldonError(f"no server with the capabilities {sorted(missing)}")

    def _post(self, name: str, action: str) -> httpx.Response:
        url = f"http://{self._pod.network.ip}:{HTTP}/v2/repository/models/{name}/{action}"
        return self._pod.network.run(lambda: httpx.post(url, timeout=60))


@contextmanager
def drainer(pod: Pod) -> Iterator[list[str]]:
    """The agent's other server, which the preStop hook asks to drain; gives what was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    server = pod.network.run(lambda: HTTPServer((pod.network.ip, DRAINER), Handler))
    serving = pod.network.submit(server.serve_forever, 0.05)
    try:
        yield asked
    finally:
        server.shutdown()
        serving.result(10)
        server.server_close()


def versioned(model: Object, version: int) -> str:
    return f"{model['metadata']['name']}_{version}"


def rewritten(settings: Object, name: str) -> Object:
    """A model-settings.json as it comes out of the agent's types: what they lack is gone.

    Raises:
        SeldonError: A value is of another type.
    """
    found = _kept(settings, SETTINGS)
    for kind in ("inputs", "outputs"):
        if kind in found:
            found[kind] = [_kept(tensor, TENSOR) for tensor in found[kind]]
    parameters = _kept(found.get("parameters", {}), PARAMETERS)
    return {**found, "name": name, "parameters": {**parameters, "version": "1"}}


def _kept(values: Object, fields: dict[str, type]) -> Object:
    found = {}
    for name, kind in fields.items():
        value = values.get(name)
        # Empty values are left out, and with them the shape of a scalar.
        if not value and value != 0:
            continue
        if not isinstance(value, kind):
            raise SeldonError(f"json: cannot unmarshal {value!r} into {name}")
        found[name] = value
    return found


def _artifact(folder: Path) -> Path:
    """The folder of the artifact: its own, else that of the highest version."""
    if (folder / "model-settings.json").is_file():
        return folder
    numbered = {
        int(file.parent.name): file.parent
        for file in folder.rglob("model-settings.json")
        if file.parent.name.isdecimal()
    }
    return numbered[max(numbered)] if numbered else folder
