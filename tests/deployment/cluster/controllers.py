"""What the controllers of KServe, Seldon and Kubernetes make of the objects on a real API server.

Each pod that a platform would make becomes a Deployment, which the API server checks. No kubelet
runs: a Deployment counts as rolled out when it is looked at the next time.
"""

from __future__ import annotations

import tempfile
import threading
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.deployment.platforms import kserve, seldon_v1, seldon_v2
from tests.deployment.platforms.cluster import Cluster

from .control_plane import ControlPlane

Object = dict[str, Any]

KSERVE = "/apis/serving.kserve.io/v1beta1"
RUNTIMES = "/apis/serving.kserve.io/v1alpha1"
SELDON_V1 = "/apis/machinelearning.seldon.io/v1"
SELDON_V2 = "/apis/mlops.seldon.io/v1alpha1"
APPS = "/apis/apps/v1"
SCALERS = "/apis/autoscaling/v2beta2"

# What a user's objects and those of controllers may be.
_KINDS = (
    (KSERVE, "inferenceservices"),
    (RUNTIMES, "servingruntimes"),
    (RUNTIMES, "clusterservingruntimes"),
    (SELDON_V1, "seldondeployments"),
    (SELDON_V2, "servers"),
    (SELDON_V2, "models"),
    (APPS, "deployments"),
    (SCALERS, "horizontalpodautoscalers"),
    ("/apis/policy/v1beta1", "poddisruptionbudgets"),
    ("/apis/keda.sh/v1alpha1", "scaledobjects"),
    ("/apis/monitoring.coreos.com/v1", "podmonitors"),
    ("/api/v1", "configmaps"),
    ("/api/v1", "services"),
)
_NOWHERE = Path("/tmp")


class Controllers:
    """Acts on the objects of a server until it is left.

    Attributes:
        refused: What the API server said to Deployments and autoscalers, by object.
    """

    def __init__(self, plane: ControlPlane) -> None:
        self.refused: dict[str, str] = {}
        self._plane = plane
        self._seen: dict[str, int] = {}
        self._is_ending = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.error: BaseException | None = None

    def __enter__(self) -> Controllers:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._is_ending.set()
        self._thread.join()
        if self.error and error is None:
            raise self.error

    def _run(self) -> None:
        try:
            while not self._is_ending.wait(0.1):
                self._roll_out()
                self._collect_garbage()
                for live in self._changed(KSERVE, "inferenceservices"):
                    self._inference_service(live)
                for live in self._changed(SELDON_V1, "seldondeployments"):
                    self._seldon_deployment(live)
                for live in self._changed(SELDON_V2, "servers"):
                    self._server(live)
                for live in self._changed(SELDON_V2, "models"):
                    conditions = [_condition("ModelReady"), _condition("Ready")]
                    self._set_status(SELDON_V2, "models", live, {"conditions": conditions})
        except BaseException as error:
            self.error = error

    def _all(self, api: str, plural: str) -> list[Object]:
        found: list[Object] = self._plane.request("GET", f"{api}/{plural}")["items"]
        return found

    def _changed(self, api: str, plural: str) -> Iterator[Object]:
        for live in self._all(api, plural):
            generation = live["metadata"]["generation"]
            if self._seen.get(live["metadata"]["uid"]) != generation:
                self._seen[live["metadata"]["uid"]] = generation
                yield live

    def _inference_service(self, live: Object) -> None:
        metadata, predictor = live["metadata"], live["spec"]["predictor"]
        runtimes = [
            each
            for kind in ("ServingRuntime", "ClusterServingRuntime")
            for each in self._all(RUNTIMES, f"{kind.lower()}s")
            if each["metadata"].get("namespace") in (None, metadata["namespace"])
        ]
        objects = [live, *runtimes]
        name = f"{metadata['name']}-predictor"
        labels = {
            **metadata.get("labels", {}),
            "app": f"isvc.{name}",
            "serving.kserve.io/inferenceservice": metadata["name"],
        }
        is_standard = metadata["annotations"]["serving.kserve.io/deploymentMode"] in (
            "Standard",
            "RawDeployment",
        )
        spec = {"replicas": predictor["minReplicas"], "progressDeadlineSeconds": 600}
        if is_standard:
            spec["strategy"] = predictor["deploymentStrategy"]
        problem = ""
        try:
            pod = kserve.pod(Cluster(objects, {}, storage=defaultdict(lambda: _NOWHERE)))
            annotations = predictor.get("annotations", {})
            self._deploy(live, name, labels, {"app": labels["app"]}, pod, spec, annotations)
            scaler = metadata["annotations"].get("serving.kserve.io/autoscalerClass", "hpa")
            if is_standard and scaler == "hpa":
                self._scale(live, name, predictor)
        except (AssertionError, kserve.KServeError) as error:
            problem = str(error)
            self.refused[metadata["name"]] = problem
        self._set_status(KSERVE, "inferenceservices", live, _served(live, name, problem))

    def _scale(self, live: Object, name: str, predictor: Object) -> None:
        target = {"type": "Utilization", "averageUtilization": predictor.get("scaleTarget", 80)}
        resource = {"name": predictor.get("scaleMetric", "cpu"), "target": target}
        spec = {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "minReplicas": predictor["minReplicas"],
            "maxReplicas": predictor["maxReplicas"],
            "metrics": [{"type": "Resource", "resource": resource}],
        }
        metadata = {"name": name, "ownerReferences": [_owner(live)]}
        body = {"apiVersion": SCALERS.removeprefix("/apis/"), "kind": "HorizontalPodAutoscaler"}
        path = f"{SCALERS}/namespaces/{live['metadata']['namespace']}/horizontalpodautoscalers"
        body |= {"metadata": metadata, "spec": spec}
        self._plane.apply(f"{path}/{name}", body, "kserve")

    def _seldon_deployment(self, live: Object) -> None:
        name = live["metadata"]["name"]
        cluster = Cluster([live], {}, storage=defaultdict(lambda: _NOWHERE))
        (predictor,) = live["spec"]["predictors"]
        status: Object = {"state": "Available"}
        try:
            chosen = {"seldon-deployment-id": name}
            component = predictor["componentSpecs"][0]
            annotations = component.get("metadata", {}).get("annotations", {})
            spec = {"replicas": predictor.get("replicas", 1)}
            pod = seldon_v1.pod(cluster)
            self._deploy(live, f"{name}-default-0", chosen, chosen, pod, spec, annotations)
        except (AssertionError, seldon_v1.SeldonError) as error:
            status = {"state": "Failed", "description": str(error)}
            self.refused[name] = str(error)
        self._set_status(SELDON_V1, "seldondeployments", live, status)

    def _server(self, live: Object) -> None:
        name, chosen = live["metadata"]["name"], {"seldon-server-name": live["metadata"]["name"]}
        with tempfile.TemporaryDirectory() as folder:
            pod = seldon_v2.pod(Cluster([live], {}), Path(folder, "agent"))
        conditions = [_condition("ServerReady"), _condition("Ready")]
        try:
            spec = {"replicas": live["spec"].get("replicas", 1)}
            self._deploy(live, f"server-{name}", chosen, chosen, pod, spec, {})
        except AssertionError as error:
            conditions = [_condition("Ready", "False", str(error))]
            self.refused[name] = str(error)
        status = {"conditions": conditions, "loadedModels": 0, "replicas": 1, "selector": "a=b"}
        self._set_status(SELDON_V2, "servers", live, status)

    def _deploy(
        self,
        owner: Object,
        name: str,
        labels: dict[str, str],
        selector: dict[str, str],
        pod: Object,
        spec: Object,
        annotations: dict[str, str],
    ) -> None:
        template = {"metadata": {"labels": labels, "annotations": annotations}, "spec": pod["spec"]}
        body = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name, "labels": labels, "ownerReferences": [_owner(owner)]},
            "spec": {**spec, "selector": {"matchLabels": selector}, "template": template},
        }
        path = f"{APPS}/namespaces/{owner['metadata']['namespace']}/deployments/{name}"
        self._plane.apply(path, body, "platform")

    def _roll_out(self) -> None:
        for live in self._changed(APPS, "deployments"):
            wanted = live["spec"]["replicas"]
            counts = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")
            status = {"observedGeneration": live["metadata"]["generation"]}
            self._set_status(APPS, "deployments", live, status | dict.fromkeys(counts, wanted))

    def _collect_garbage(self) -> None:
        """Removes what belongs to objects that are gone, and lets those go that wait for it."""
        found = [(api, plural, live) for api, plural in _KINDS for live in self._all(api, plural)]
        ending = {o["metadata"]["uid"] for *_, o in found if "deletionTimestamp" in o["metadata"]}
        staying = {o["metadata"]["uid"] for *_, o in found} - ending
        for api, plural, live in found:
            path = _path(api, plural, live)
            owners = {each["uid"] for each in live["metadata"].get("ownerReferences", [])}
            if live["metadata"]["uid"] in ending:
                body = {"metadata": {"finalizers": None}}
                self._ask("PATCH", path, body)
            elif owners and not owners & staying:
                self._ask("DELETE", path)

    def _set_status(self, api: str, plural: str, live: Object, status: Object) -> None:
        self._ask("PATCH", f"{_path(api, plural, live)}/status", {"status": status})

    def _ask(self, method: str, path: str, body: Object | None = None) -> None:
        try:
            self._plane.request(method, path, body, "application/merge-patch+json")
        except AssertionError as error:
            # It was deleted since it was listed.
            if '"reason":"NotFound"' not in str(error):
                raise


def _served(live: Object, name: str, problem: str) -> Object:
    metadata = live["metadata"]
    is_ready = "False" if problem else "True"
    conditions = [_condition(each, is_ready, problem) for each in ("PredictorReady", "Ready")]
    return {
        "conditions": conditions,
        "url": f"http://{metadata['name']}-{metadata['namespace']}.example.com",
        "address": {"url": f"http://{name}.{metadata['namespace']}.svc.cluster.local"},
        "deploymentMode": metadata["annotations"]["serving.kserve.io/deploymentMode"],
        "modelStatus": {"transitionStatus": "UpToDate", "copies": {"failedCopies": 0}},
    }


def _condition(kind: str, status: str = "True", message: str = "") -> Object:
    found = {"type": kind, "status": status, "lastTransitionTime": "2026-01-01T00:00:00Z"}
    return {**found, "message": message} if message else found


def _owner(live: Object) -> Object:
    metadata = live["metadata"]
    kind = {name: live[name] for name in ("apiVersion", "kind")}
    return {**kind, "name": metadata["name"], "uid": metadata["uid"]}


def _path(api: str, plural: str, live: Object) -> str:
    metadata = live["metadata"]
    where = f"namespaces/{metadata['namespace']}/" if "namespace" in metadata else ""
    return f"{api}/{where}{plural}/{metadata['name']}"
