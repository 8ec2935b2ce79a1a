"""What the API server refuses of a pod, and no schema says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from mlserver_pyfunc.definition.kubernetes_names import amount

from .cluster import Object

HANDLERS = {"exec", "grpc", "httpGet", "sleep", "tcpSocket"}
PROBES = ("startupProbe", "livenessProbe", "readinessProbe")


class PodInvalidError(Exception):
    """The API server's answer."""


def check(pod: Object) -> Object:
    """Gives back a pod that would be admitted.

    Raises:
        PodInvalidError: It would not.
    """
    spec = pod["spec"]
    volumes = [each["name"] for each in spec.get("volumes", [])]
    _unique("volume", volumes)
    for container in spec["containers"]:
        ports = container.get("ports", [])
        mounts = container.get("volumeMounts", [])
        _unique("port name", [each["name"] for each in ports if "name" in each])
        _unique("mountPath", [each["mountPath"] for each in mounts])
        missing = {each["name"] for each in mounts} - set(volumes)
        if missing:
            raise PodInvalidError(f"volumeMounts: not found: {sorted(missing)}")
        _within_limits(container.get("resources", {}))
        for name in PROBES:
            _one_handler(name, container.get(name))
        _one_handler("preStop", container.get("lifecycle", {}).get("preStop"))
        liveness = container.get("livenessProbe", {})
        if liveness.get("successThreshold", 1) != 1:
            raise PodInvalidError("livenessProbe: successThreshold must be 1")
    return pod


def _within_limits(resources: Object) -> None:
    limits = resources.get("limits", {})
    for name, asked in resources.get("requests", {}).items():
        if name in limits and amount(asked) > amount(limits[name]):
            raise PodInvalidError(f"{name}: {asked} must be at most the limit, {limits[name]}")


def _unique(what: str, values: Iterable[object]) -> None:
    twice = [value for value, count in Counter(values).items() if count > 1]
    if twice:
        raise PodInvalidError(f"{what}: duplicate value {twice}")


def _one_handler(name: str, handler: Object | None) -> None:
    if handler is not None and len(HANDLERS & handler.keys()) != 1:
        raise PodInvalidError(f"{name}: expected one handler, got {sorted(handler)}")
