"""Where a cluster is and who asks: kubeconfig files, or a pod's own service account."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from .errors import ClusterError

DEFAULT_PATH = "~/.kube/config"
DEFAULT_NAMESPACE = "default"

_POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def configure(configuration: Any, kubeconfig: Path | None, context: str | None) -> str:
    """Fills a client's configuration; returns the namespace to use.

    Args:
        configuration: A `kubernetes.client.Configuration`.
        kubeconfig: In place of $KUBECONFIG and ~/.kube/config.
        context: In place of the current one.

    Raises:
        ClusterError: There is none, or it cannot be used.
    """
    location = str(kubeconfig or os.environ.get("KUBECONFIG") or DEFAULT_PATH)
    files = [Path(part).expanduser() for part in location.split(os.pathsep) if part]
    if not any(file.is_file() for file in files):
        if kubeconfig is None and context is None and "KUBERNETES_SERVICE_HOST" in os.environ:
            return _in_cluster(configuration)
        raise ClusterError(
            f"no kubeconfig: expected one at {location}, found no such file",
            "give one by --kubeconfig or $KUBECONFIG; kubectl config view shows kubectl's own",
        )
    return _from_files(configuration, location, files, context)


def _from_files(
    configuration: Any, location: str, files: Sequence[Path], context: str | None
) -> str:
    from kubernetes import config

    try:
        by_name, current = _contexts(files)
        chosen = context or current
        if chosen not in by_name:
            raise ClusterError(
                f'kubeconfig {location}: no context "{chosen}"',
                f"choose one by --context: {', '.join(sorted(by_name)) or 'there are none'}",
            )
        config.load_kube_config(location, chosen, configuration, persist_config=False)
    except (config.ConfigException, *_UNUSABLE) as error:
        raise _unusable(location, error) from None
    if not configuration.verify_ssl:
        _silence_warnings()
    return str(by_name[chosen].get("namespace") or DEFAULT_NAMESPACE)


_UNUSABLE = (yaml.YAMLError, AttributeError, KeyError, OSError, TypeError, ValueError)


def _contexts(files: Sequence[Path]) -> tuple[dict[str, dict[str, Any]], str]:
    """The contexts and the name of the current one: the first file that has it wins.

    The client's own list fails where the current one is not among them.
    """
    by_name: dict[str, dict[str, Any]] = {}
    current = ""
    for file in files:
        if not file.is_file():
            continue
        value = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
        current = current or value.get("current-context") or ""
        for entry in value.get("contexts") or ():
            by_name.setdefault(entry["name"], entry["context"])
    return by_name, current


def _in_cluster(configuration: Any) -> str:
    from kubernetes import config

    try:
        config.load_incluster_config(client_configuration=configuration)
    except config.ConfigException as error:
        raise ClusterError(f"this pod's service account cannot be used: {error}") from None
    try:
        return _POD_NAMESPACE.read_text().strip()
    except OSError:
        return DEFAULT_NAMESPACE


def _unusable(location: str, error: Exception) -> ClusterError:
    said = " ".join(str(error).split())
    return ClusterError(
        f"kubeconfig {location} cannot be used: {said}",
        "kubectl config view shows what kubectl makes of it",
    )


def _silence_warnings() -> None:
    """Whoever wrote insecure-skip-tls-verify need not be told at every request."""
    import urllib3

    urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
