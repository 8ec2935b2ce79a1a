"""What Kubernetes makes of a Deployment and its Service."""

from __future__ import annotations

import copy

from .cluster import NAMESPACE, Cluster, Object


def pod(cluster: Cluster) -> Object:
    """The pod of the one Deployment."""
    deployment = cluster.only("Deployment")
    template = copy.deepcopy(deployment["spec"]["template"])
    labels = template["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()
    name = f"{deployment['metadata']['name']}-5d9c7b8f6-x2x4z"
    metadata = {**template["metadata"], "name": name, "namespace": NAMESPACE}
    return {"metadata": metadata, "spec": template["spec"]}


def service_ports(cluster: Cluster, pod: Object) -> dict[str, int]:
    """The container's ports that the Service leads to, by the names of the Service's ports."""
    service = cluster.only("Service")
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    (container,) = pod["spec"]["containers"]
    named = {each["name"]: each["containerPort"] for each in container["ports"]}
    ports = {}
    for each in service["spec"]["ports"]:
        target = each.get("targetPort", each["port"])
        ports[each["name"]] = target if isinstance(target, int) else named[target]
    return ports
