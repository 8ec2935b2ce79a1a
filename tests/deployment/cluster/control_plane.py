"""A real kube-apiserver and its etcd on loopback, with the platforms' CRDs."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from ssl import create_default_context
from typing import Any

from mlserver_pyfunc.deployment.server_settings import free_ports
from tests.places import CRDS

from .fake_server import kubeconfig
from .newer_kinds import door

START_SECONDS = 60
TOKENS = {"admin": ("t-admin", "system:masters"), "dev": ("t-dev", "developers")}

Object = dict[str, Any]


class ControlPlane:
    """A running API server.

    Args:
        url: Of the API.
        work: A folder for what it writes.

    Attributes:
        entrance: URL for users, who see the kinds of later versions too.
    """

    def __init__(self, url: str, work: Path) -> None:
        self.url = self.entrance = url
        self._work = work
        self.ca = work / "certificates" / "apiserver.crt"

    def kubeconfig(self, user: str, token: str | None = None) -> Path:
        """A kubeconfig file of a user."""
        value = kubeconfig(self.entrance)
        value["users"][0]["user"] = {"token": token or TOKENS[user][0]}
        path = self._work / f"{user}.kubeconfig"
        path.write_text(json.dumps(value))
        return path

    def request(
        self, method: str, path: str, body: Object | None = None, kind: str = "application/json"
    ) -> Object:
        """Sends a request as the administrator."""
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=json.dumps(body).encode() if body is not None else None,
            headers={"Authorization": f"Bearer {TOKENS['admin'][0]}", "Content-Type": kind},
        )
        context = create_default_context(cafile=str(self.ca))
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        try:
            with opener.open(request, timeout=30) as answer:
                found: Object = json.loads(answer.read())
                return found
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{method} {path}: {error.read().decode()[:2000]}") from None

    def apply(self, path: str, body: Object, manager: str) -> Object:
        """Server-side apply by somebody else."""
        query = f"?fieldManager={manager}&force=true"
        return self.request("PATCH", path + query, body, "application/apply-patch+yaml")

    def install_crds(self) -> list[str]:
        """Installs the platforms' kinds; returns them when they are served."""
        names = []
        found = [json.loads(file.read_text()) for file in sorted(CRDS.glob("*.json"))]
        for crd in map(_crd, [*found, *_LOOSE]):
            self.request("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd)
            names.append(crd["metadata"]["name"])
        for name in names:
            _wait(lambda name=name: self._is_established(name), f"{name} is not served")
        return names

    def _is_established(self, name: str) -> bool:
        path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}"
        conditions = self.request("GET", path).get("status", {}).get("conditions") or []
        return {"Established", "NamesAccepted"} <= {
            entry["type"] for entry in conditions if entry["status"] == "True"
        }

    def is_ready(self) -> bool:
        with contextlib.suppress(AssertionError, OSError, ValueError):
            return bool(self.request("GET", "/api/v1/namespaces/default"))
        return False


@contextlib.contextmanager
def control_plane(binaries: Path, work: Path) -> Iterator[ControlPlane]:
    """Starts etcd and kube-apiserver on free ports; stops them at the end."""
    clients, peers, port = free_ports(3)
    key = work / "service-accounts.key"
    subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
    tokens = work / "tokens.csv"
    tokens.write_text("".join(f'{t},{user},{user},"{g}"\n' for user, (t, g) in TOKENS.items()))
    store = f"http://127.0.0.1:{clients}"
    etcd = [
        binaries / "etcd",
        f"--data-dir={work / 'etcd'}",
        f"--listen-client-urls={store}",
        f"--advertise-client-urls={store}",
        f"--listen-peer-urls=http://127.0.0.1:{peers}",
        "--log-level=error",
    ]
    server = [
        binaries / "kube-apiserver",
        f"--etcd-servers={store}",
        f"--secure-port={port}",
        "--bind-address=127.0.0.1",
        f"--cert-dir={work / 'certificates'}",
        f"--token-auth-file={tokens}",
        "--authorization-mode=RBAC",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-signing-key-file={key}",
        f"--service-account-key-file={key}",
        "--service-cluster-ip-range=10.0.0.0/24",
    ]
    log_file = work / "control-plane.log"
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(log_file.open("wb"))
        for command in (etcd, server):
            process = subprocess.Popen(command, cwd=work, stdout=log, stderr=log)
            stack.callback(_stop, process)
        found = ControlPlane(f"https://127.0.0.1:{port}", work)
        try:
            _wait(found.is_ready, "the API server is not ready")
        except AssertionError as error:
            raise AssertionError(f"{error}:\n{log_file.read_text()[-3000:]}") from None
        found.entrance = stack.enter_context(door(found.url, found.ca))
        yield found


# Kinds whose schemas are not at hand: the server takes any fields.
_LOOSE = [
    {
        "group": group,
        "version": version,
        "kind": kind,
        "scope": "Namespaced",
        "schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    }
    for group, version, kind in (
        ("keda.sh", "v1alpha1", "ScaledObject"),
        ("monitoring.coreos.com", "v1", "PodMonitor"),
    )
]


def _crd(found: Object) -> Object:
    """A definition made of the parts that the shared files keep."""
    plural = f"{found['kind'].lower()}s"
    names = {"kind": found["kind"], "plural": plural, "listKind": f"{found['kind']}List"}
    version = {
        "name": found["version"],
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": _accepted(found["schema"])},
        "subresources": {"status": {}},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.{found['group']}",
            # The API server asks for it in groups that are its own.
            "annotations": {"api-approved.kubernetes.io": "unapproved, a test"},
        },
        "spec": {
            "group": found["group"],
            "scope": found["scope"],
            "names": names,
            "versions": [version],
        },
    }


def _accepted(schema: Any) -> Any:
    """A schema as Kubernetes 1.20 takes it: stricter about schemas, not about objects.

    This build reads an empty text as null, so that `default: ""` is refused; and a type is wanted
    where Seldon leaves it out to allow for any.
    """
    if isinstance(schema, list):
        return [_accepted(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    copy = {name: _accepted(part) for name, part in schema.items() if (name, part) != _EMPTY}
    if copy.get("type") == "array" and copy.get("items") == {}:
        copy["items"] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return copy


_EMPTY = ("default", "")


def _wait(is_done: Any, otherwise: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not is_done():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.2)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
