"""Where a cluster is and who asks: kubeconfig files, or a pod's own service account."""

from __future__ import annotations

import binascii
import os
from pathlib import Path
from typing import Any

import yaml

from .failures import ClusterError

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
    return _from_files(configuration, location, context)


def _from_files(configuration: Any, location: str, context: str | None) -> str:
    from kubernetes import config

    try:
        contexts, current = config.list_kube_config_contexts(location)
    except (config.ConfigException, yaml.YAMLError, OSError, KeyError, TypeError) as error:
        raise _unusable(location, error) from None
    by_name = {entry["name"]: entry for entry in contexts}
    chosen = context or (current or {}).get("name")
    if chosen not in by_name:
        raise ClusterError(
            f'kubeconfig {location}: no context "{chosen}"',
            f"expected one of {', '.join(sorted(by_name)) or 'none, there are no contexts'}",
        )
    try:
        config.load_kube_config(location, chosen, configuration, persist_config=False)
    except (config.ConfigException, binascii.Error, OSError, KeyError, TypeError) as error:
        raise _unusable(location, error) from None
    if not configuration.verify_ssl:
        _silence_warnings()
    return str((by_name[chosen].get("context") or {}).get("namespace") or DEFAULT_NAMESPACE)


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
