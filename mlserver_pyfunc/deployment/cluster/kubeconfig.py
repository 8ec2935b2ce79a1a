"""Connects as kubectl would: by kubeconfig files, or by a pod's own service account."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import urllib3
import yaml
from kubernetes import client, config

from .api import Cluster
from .errors import ClusterError

DEFAULT_PATH = "~/.kube/config"
DEFAULT_NAMESPACE = "default"

_POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def connect(kubeconfig: Path | None = None, context: str | None = None) -> Cluster:
    """Connects to a cluster, by a kubeconfig file and a context if they are given."""
    configuration = client.Configuration()
    # Cluster.request repeats requests: urllib3 does not know which answers are transient.
    configuration.retries = False
    location = str(kubeconfig or os.environ.get("KUBECONFIG") or DEFAULT_PATH)
    files = [Path(part).expanduser() for part in location.split(os.pathsep) if part]
    if any(file.is_file() for file in files):
        namespace = _from_files(configuration, location, files, context)
    elif kubeconfig is None and context is None and "KUBERNETES_SERVICE_HOST" in os.environ:
        namespace = _in_cluster(configuration)
    else:
        raise ClusterError(
            f"no kubeconfig: expected one at {location}, found no such file",
            "give one by --kubeconfig or $KUBECONFIG; kubectl config view shows kubectl's own",
        )
    return Cluster(client.ApiClient(configuration), namespace)


def _from_files(
    configuration: Any, location: str, files: Sequence[Path], context: str | None
) -> str:
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
        raise ClusterError(
            f"kubeconfig {location} cannot be used: {' '.join(str(error).split())}",
            "kubectl config view shows what kubectl makes of it",
        ) from None
    if not configuration.verify_ssl:
        # Whoever wrote insecure-skip-tls-verify needs no warning per request.
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    return str(by_name[chosen].get("namespace") or DEFAULT_NAMESPACE)


_UNUSABLE = (yaml.YAMLError, AttributeError, KeyError, OSError, TypeError, ValueError)


def _contexts(files: Sequence[Path]) -> tuple[dict[str, dict[str, Any]], str]:
    """Returns the contexts by name, and the name of the current one. The first file wins.

    `kubernetes.config.list_kube_config_contexts` fails if the current context is not in the list,
    even if the user chose another one.
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
    try:
        config.load_incluster_config(client_configuration=configuration)
    except config.ConfigException as error:
        raise ClusterError(f"this pod's service account cannot be used: {error}") from None
    try:
        return _POD_NAMESPACE.read_text().strip()
    except OSError:
        return DEFAULT_NAMESPACE
