"""The objects a pod refers to, and what its volumes and variables become of them."""

from __future__ import annotations

import base64
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.deployment.image.dockerfile import Image

NAMESPACE = "models"
VARIABLE = re.compile(r"\$(?:\$|\(([-._a-zA-Z][-._a-zA-Z0-9]*)\))")

Object = dict[str, Any]


@dataclass(frozen=True)
class StoredImage:
    """An image: its configuration, and folders of this machine that are in it.

    Attributes:
        files: Folders by where they are in the image.
    """

    config: Image
    files: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Cluster:
    """What stands in a cluster before a platform acts on it.

    Attributes:
        objects: Applied manifests.
        images: By name, as containers ask for them.
        storage: Folders by the URI they are fetched from.
        claims: Folders by the name of the persistent volume claim.
    """

    objects: list[Object]
    images: Mapping[str, StoredImage]
    storage: Mapping[str, Path] = field(default_factory=dict)
    claims: Mapping[str, Path] = field(default_factory=dict)

    def find(self, kind: str, name: str) -> Object | None:
        for each in self.objects:
            if (each["kind"], each["metadata"]["name"]) == (kind, name):
                return each
        return None

    def get(self, kind: str, name: str) -> Object:
        found = self.find(kind, name)
        if found is None:
            names = [f"{each['kind']} {each['metadata']['name']}" for each in self.objects]
            raise LookupError(f'no {kind} "{name}", there are {", ".join(names)}')
        return found

    def only(self, kind: str) -> Object:
        (found,) = [each for each in self.objects if each["kind"] == kind]
        return found


def variables(cluster: Cluster, pod: Object, container: Object, ip: str) -> dict[str, str]:
    """A container's variables, in the order a kubelet sets them."""
    env = _service_links(cluster)
    for source in container.get("envFrom", []):
        for name, value in _from_object(cluster, source).items():
            env[source.get("prefix", "") + name] = value
    for each in container.get("env", []):
        value = _value(cluster, pod, each["valueFrom"], ip) if "valueFrom" in each else None
        env[each["name"]] = expand(each.get("value", ""), env) if value is None else value
    return env


def expand(text: str, env: Mapping[str, str]) -> str:
    """$(NAME) becomes the variable, and stays where there is none; $$ becomes $."""
    return VARIABLE.sub(lambda m: "$" if m[1] is None else env.get(m[1], m[0]), text)


def _service_links(cluster: Cluster) -> dict[str, str]:
    env = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}
    for each in cluster.objects:
        if each["kind"] == "Service":
            name = each["metadata"]["name"].upper().replace("-", "_")
            port = each["spec"]["ports"][0]["port"]
            env[f"{name}_SERVICE_HOST"] = "10.96.0.9"
            env[f"{name}_SERVICE_PORT"] = str(port)
            env[f"{name}_PORT"] = f"tcp://10.96.0.9:{port}"
    return env


def _from_object(cluster: Cluster, source: Object) -> dict[str, str]:
    (kind, reference), *_ = [
        (kind, source[key])
        for key, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret"))
        if key in source
    ]
    found = _data(cluster, kind, reference["name"], reference.get("optional", False))
    return {name: value.decode() for name, value in found.items()}


def _value(cluster: Cluster, pod: Object, source: Object, ip: str) -> str | None:
    for key, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
        if key in source:
            reference = source[key]
            data = _data(cluster, kind, reference["name"], reference.get("optional", False))
            return data[reference["key"]].decode()
    fields = {
        "metadata.name": pod["metadata"]["name"],
        "metadata.namespace": NAMESPACE,
        "status.podIP": ip,
    }
    return fields[source["fieldRef"]["fieldPath"]]


def _data(cluster: Cluster, kind: str, name: str, optional: bool) -> dict[str, bytes]:
    if optional and cluster.find(kind, name) is None:
        return {}
    found = cluster.get(kind, name)
    data = {key: text.encode() for key, text in found.get("stringData", {}).items()}
    if kind == "Secret":
        data |= {key: base64.b64decode(text) for key, text in found.get("data", {}).items()}
    else:
        data |= {key: text.encode() for key, text in found.get("data", {}).items()}
        data |= {key: base64.b64decode(text) for key, text in found.get("binaryData", {}).items()}
    return data


def make_volume(cluster: Cluster, pod: Object, volume: Object, folder: Path) -> Path:
    """Makes what a volume holds, as a kubelet does; it is mounted from there."""
    group = pod["spec"].get("securityContext", {}).get("fsGroup")
    if "hostPath" in volume:
        return Path(volume["hostPath"]["path"])
    if "persistentVolumeClaim" in volume:
        return cluster.claims[volume["persistentVolumeClaim"]["claimName"]]
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    if "configMap" in volume or "secret" in volume:
        _write_data(cluster, volume, folder)
    elif "downwardAPI" in volume:
        for item in volume["downwardAPI"]["items"]:
            (folder / item["path"]).write_text("")
    elif "emptyDir" not in volume:
        raise NotImplementedError(f"volume of another kind: {volume}")
    if group is not None:
        shutil.chown(folder, group=group)
        folder.chmod(0o2777)
    return folder


def _write_data(cluster: Cluster, volume: Object, folder: Path) -> None:
    """Files behind two links, as they are updated in one step."""
    kind, source = ("ConfigMap", volume.get("configMap")) if "configMap" in volume else (
        "Secret", volume["secret"]
    )  # fmt: skip
    name = source["name"] if kind == "ConfigMap" else source["secretName"]
    data = _data(cluster, kind, name, source.get("optional", False))
    items = source.get("items") or [{"key": key, "path": key} for key in data]
    written = folder / "..2026_01_01_00_00_00.1"
    written.mkdir()
    (folder / "..data").symlink_to(written.name)
    for item in items:
        path = written / item["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data[item["key"]])
        path.chmod(item.get("mode", source.get("defaultMode", 0o644)))
        first = Path(item["path"]).parts[0]
        if not (folder / first).is_symlink():
            (folder / first).symlink_to(Path("..data", first))
