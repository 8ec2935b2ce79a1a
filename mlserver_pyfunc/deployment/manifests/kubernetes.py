"""Plain Kubernetes: a Deployment, a Service, an autoscaler and a disruption budget."""

from __future__ import annotations

from mlserver_pyfunc.deployment.server_settings import PORTS

from . import inline, pod
from .options import ManifestError
from .workload import MODELS_DIR, Object, Platform, Workload, as_object

PLATFORM = Platform("kubernetes", ("image", "storage", "inline"))
CONTAINER = "mlserver"
SELECTOR = "app.kubernetes.io/instance"


def objects(workload: Workload) -> list[Object]:
    """Returns the objects in the order to apply them."""
    options = workload.options
    found = [*inline.config_maps(workload), _deployment(workload), _service(workload)]
    if options.max_replicas is not None:
        found.append(_autoscaler(workload))
    return [*found, *pod.selecting(workload, workload.name, _selector(workload))]


def _deployment(workload: Workload) -> Object:
    options = workload.options
    metadata: Object = {
        "labels": {**workload.metadata()["labels"], **_selector(workload)},
        "annotations": {**pod.scraped(), **inline.digest(workload), **options.annotations},
    }
    spec: Object = {
        "selector": {"matchLabels": _selector(workload)},
        "strategy": pod.STRATEGY,
        "progressDeadlineSeconds": pod.progress_seconds(workload),
        "template": {"metadata": metadata, "spec": _pod(workload)},
    }
    # With an autoscaler, each apply would undo the number of replicas that it chose.
    if options.max_replicas is None:
        spec = {"replicas": options.replicas, **spec}
    return as_object("apps/v1", "Deployment", workload.metadata(), spec)


def _pod(workload: Workload) -> Object:
    is_claim = workload.shape == "storage"
    variables = {
        "MLSERVER_MODEL_NAME": pod.escaped(workload.model_name),
        **(pod.FROM_FOLDER if is_claim else {}),
        **pod.settings(),
        **pod.function_env(workload),
    }
    ports, seconds = pod.container_ports(), pod.start_seconds(workload)
    parts = pod.containers(
        workload,
        CONTAINER,
        variables,
        pod.serving(ports, seconds, workload.model_name, "http"),
        config_maps=inline.names_of_maps(workload),
        models=[_models(workload)] if is_claim else (),
    )
    # A server does not call the cluster's API, unless the user chose an account for that.
    token = {} if workload.options.service_account else {"automountServiceAccountToken": False}
    return pod.spec(workload, parts, token)


def _models(workload: Workload) -> tuple[Object, Object]:
    if not workload.storage_uri.startswith("pvc://"):
        raise ManifestError(
            f'--storage-uri: expected pvc://CLAIM/PATH, got "{workload.storage_uri}"; '
            "nothing fetches other URIs without KServe or Seldon"
        )
    claim, _, path = workload.storage_uri.removeprefix("pvc://").partition("/")
    mount: Object = {"name": "models", "mountPath": MODELS_DIR, "readOnly": True}
    if path.strip("/"):
        mount["subPath"] = path.strip("/")
    volume = {"name": "models", "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
    return volume, mount


def _service(workload: Workload) -> Object:
    options = workload.options
    is_headless = options.service_type == "Headless"
    # Nothing maps the ports of a headless Service: clients connect to those of the pods.
    port = PORTS.http if is_headless else 80
    rest: Object = {"name": "http", "port": port, "targetPort": "http", "protocol": "TCP"}
    grpc: Object = {"name": "grpc", "port": PORTS.grpc, "targetPort": "grpc", "protocol": "TCP"}
    spec = {
        **({"clusterIP": "None"} if is_headless else {"type": options.service_type}),
        "selector": _selector(workload),
        "ports": [rest, {**grpc, "appProtocol": "kubernetes.io/h2c"}],
    }
    return as_object("v1", "Service", workload.metadata(options.service_name), spec)


def _autoscaler(workload: Workload) -> Object:
    options = workload.options
    scaled = {"apiVersion": "apps/v1", "kind": "Deployment", "name": workload.name}
    query, share = pod.utilization(workload)
    if options.scale_on == "utilization" and options.prometheus:
        trigger = {"serverAddress": options.prometheus, "query": query, "threshold": share}
        spec = {
            "scaleTargetRef": scaled,
            "minReplicaCount": pod.min_replicas(options),
            "maxReplicaCount": options.max_replicas,
            "triggers": [{"type": "prometheus", "metadata": trigger}],
        }
        return as_object("keda.sh/v1alpha1", "ScaledObject", workload.metadata(), spec)
    if options.scale_on == "utilization":
        by_value = {"type": "AverageValue", "averageValue": f"{options.target_utilization * 10}m"}
        of_pods = {"metric": {"name": "pyfunc_utilization"}, "target": by_value}
        metric: Object = {"type": "Pods", "pods": of_pods}
    else:
        target = {"type": "Utilization", "averageUtilization": options.target_cpu}
        metric = {"type": "Resource", "resource": {"name": "cpu", "target": target}}
    spec = {
        "scaleTargetRef": scaled,
        "minReplicas": pod.min_replicas(options),
        "maxReplicas": options.max_replicas,
        "metrics": [metric],
    }
    return as_object("autoscaling/v2", "HorizontalPodAutoscaler", workload.metadata(), spec)


def _selector(workload: Workload) -> dict[str, str]:
    return {SELECTOR: workload.name}
