"""An API server for tests: discovery, server-side apply, reads, logs, and faults on demand.

It checks every object against the schema of its kind. What controllers and kubelets would do is
told to it as `Story`s.
"""

from __future__ import annotations

import copy
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any
from urllib.error import HTTPError
from urllib.parse import parse_qs, unquote, urlsplit
from urllib.request import Request, urlopen

from . import schemas
from .kserve_webhook import KServeRefusalError
from .server_side_apply import RefusalError, content, fields_v1, leaves, merged, refuse_conflicts

Object = dict[str, Any]
Key = tuple[str, str, str]

CORE = {
    "v1": {
        "ConfigMap": ("configmaps", True),
        "Secret": ("secrets", True),
        "Service": ("services", True),
        "Pod": ("pods", True),
        "Event": ("events", True),
    },
    "apps/v1": {"Deployment": ("deployments", True)},
    "autoscaling/v2": {"HorizontalPodAutoscaler": ("horizontalpodautoscalers", True)},
    "policy/v1": {"PodDisruptionBudget": ("poddisruptionbudgets", True)},
    "monitoring.coreos.com/v1": {"PodMonitor": ("podmonitors", True)},
}

Story = Callable[["FakeCluster", Object, float], None]
"""What becomes of an object: changes it, and the cluster, given the seconds since it changed."""


@dataclass
class FakeCluster:
    """A cluster's state, and what goes wrong with it.

    Attributes:
        user: Who asks.
        absent: Kinds that it does not have.
        forbidden: Pairs of verb and plural that the user may not.
        namespaces: That exist.
        hiccups: For each of the next requests: a status, or 0 to cut the connection.
        stories: What becomes of objects, by kind.
        admit: What a webhook makes of an InferenceService, given the one before.
        backends: URLs of servers behind the proxy, by `SERVICE:PORT`.
        requests: Method and path of every request.
    """

    user: str = "dev"
    absent: set[str] = field(default_factory=set)
    forbidden: set[tuple[str, str]] = field(default_factory=set)
    namespaces: set[str] = field(default_factory=lambda: {"default", "models"})
    hiccups: list[int] = field(default_factory=list)
    is_unauthorized: bool = False
    admit: Callable[[Object, Object | None], Object] = lambda service, before: service
    stories: dict[str, Story] = field(default_factory=dict)
    objects: dict[Key, Object] = field(default_factory=dict)
    logs: dict[str, str] = field(default_factory=dict)
    backends: dict[str, str] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    changed: dict[Key, float] = field(default_factory=dict)
    version: int = 100
    lock: threading.RLock = field(default_factory=threading.RLock)

    def put(self, value: Object, manager: str = "kubectl") -> Object:
        """Places an object as somebody else would."""
        namespace = value["metadata"].setdefault("namespace", "default")
        kept = self._stored(value, manager, namespace)
        self.objects[value["kind"], namespace, value["metadata"]["name"]] = kept
        return kept

    def find(self, kind: str, name: str, namespace: str = "default") -> Object | None:
        return self.objects.get((kind, namespace, name))

    def pod(self, name: str, labels: dict[str, str], status: Object, age: float = 0) -> None:
        """Places a pod, made some seconds ago."""
        self.put(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name, "labels": labels, "creationTimestamp": _now(-age)},
                "status": status,
            },
            "kubelet",
        )

    def event(self, about: str, message: str, kind: str = "Pod") -> None:
        """A warning about an object."""
        self.put(
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"name": f"{about}.{len(self.objects)}"},
                "involvedObject": {"kind": kind, "name": about},
                "type": "Warning",
                "message": message,
                "lastTimestamp": _now(),
            },
            "kubelet",
        )

    def kinds(self) -> Iterator[tuple[str, str, str, bool]]:
        """apiVersion, kind, plural, and whether it has a namespace."""
        for api_version, kinds in CORE.items():
            for kind, (plural, is_namespaced) in kinds.items():
                yield api_version, kind, plural, is_namespaced
        for (api_version, kind), is_namespaced in schemas.custom_kinds().items():
            yield api_version, kind, f"{kind.lower()}s", is_namespaced

    def answer(self, method: str, url: str, body: Object | None) -> tuple[int, Any]:
        """Answers a request.

        Raises:
            RefusalError: As the API refuses it.
        """
        parts = urlsplit(url)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        path = [unquote(part) for part in parts.path.strip("/").split("/")]
        api_version, rest = (
            ("v1", path[2:]) if path[0] == "api" else ("/".join(path[1:3]), path[3:])
        )
        if self.is_unauthorized:
            raise RefusalError(401, "Unauthorized", "Unauthorized")
        if path == ["version"]:
            return 200, {"major": "1", "minor": "31", "gitVersion": "v1.31.0"}
        if path == ["apis"]:
            return 200, self._groups()
        if not rest:
            return 200, self._discovered(api_version)
        namespace = ""
        if rest[0] == "namespaces" and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        kind, is_namespaced = self._kind(api_version, rest[0])
        name = rest[1] if len(rest) > 1 else ""
        verb = {"GET": "get" if name else "list"}.get(method, method.lower())
        self._authorize(verb, api_version, rest[0], name, namespace)
        if rest[2:3] == ["proxy"]:
            return self._proxied(method, rest[1], "/".join(rest[3:]), body)
        if len(rest) > 2:
            return 200, self._log(rest[1], query)
        key = (kind, namespace if is_namespaced else "", name)
        if method == "PATCH":
            assert body is not None
            return self._apply(key, body, query)
        if not name:
            items = list(self._listed(kind, namespace, query))
            return 200, {"kind": f"{kind}List", "apiVersion": api_version, "items": items}
        self._tell(key)
        if key not in self.objects:
            raise RefusalError(404, "NotFound", f'{rest[0]} "{name}" not found', name=name)
        if method == "DELETE":
            return 200, self._delete(key)
        return 200, self.objects[key]

    def _proxied(
        self, method: str, service: str, path: str, body: Object | None
    ) -> tuple[int, Any]:
        if service not in self.backends:
            raise RefusalError(503, "ServiceUnavailable", f'no endpoints for "{service}"')
        headers = {"Content-Type": "application/json"}
        data = json.dumps(body).encode() if body is not None else None
        url = f"{self.backends[service]}/{path}"
        try:
            with urlopen(Request(url, data, headers, method=method)) as answer:
                return answer.status, json.load(answer)
        except HTTPError as error:
            return error.code, json.load(error)

    def _groups(self) -> Object:
        versions = {
            version
            for version, kind, _, _ in self.kinds()
            if "/" in version and kind not in self.absent
        }
        found: dict[str, list[Object]] = {}
        for each in sorted(versions):
            group, _, version = each.partition("/")
            found.setdefault(group, []).append({"groupVersion": each, "version": version})
        groups = [
            {"name": name, "versions": entries, "preferredVersion": entries[-1]}
            for name, entries in found.items()
        ]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}

    def _discovered(self, api_version: str) -> Object:
        entries = [
            {"name": plural, "kind": kind, "namespaced": is_namespaced, "verbs": ["get", "patch"]}
            for version, kind, plural, is_namespaced in self.kinds()
            if version == api_version and kind not in self.absent
        ]
        if not entries:
            raise RefusalError(404, "NotFound", "the server could not find the requested resource")
        status = [{**entry, "name": f"{entry['name']}/status"} for entry in entries]
        return {
            "kind": "APIResourceList",
            "groupVersion": api_version,
            "resources": status + entries,
        }

    def _kind(self, api_version: str, plural: str) -> tuple[str, bool]:
        for version, kind, name, is_namespaced in self.kinds():
            if (version, name) == (api_version, plural) and kind not in self.absent:
                return kind, is_namespaced
        raise RefusalError(404, "NotFound", "the server could not find the requested resource")

    def _authorize(
        self, verb: str, api_version: str, plural: str, name: str, namespace: str
    ) -> None:
        if (verb, plural) not in self.forbidden:
            return
        group = api_version.rpartition("/")[0]
        subject = f'{plural}.{group} "{name}"' if group else f'{plural} "{name}"'
        where = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
        raise RefusalError(
            403,
            "Forbidden",
            f'{subject} is forbidden: User "{self.user}" cannot {verb} resource "{plural}" in API '
            f'group "{group}" {where}',
        )

    def _apply(self, key: Key, body: Object, query: dict[str, str]) -> tuple[int, Object]:
        kind, namespace, name = key
        if namespace and namespace not in self.namespaces:
            raise RefusalError(
                404, "NotFound", f'namespaces "{namespace}" not found', name=namespace
            )
        manager = query["fieldManager"]
        before = self.objects.get(key)
        self._check(kind, name, body)
        if before is not None and query.get("force") != "true":
            refuse_conflicts(before, body, manager)
        wanted = merged(before, body, manager)
        if kind == "InferenceService":
            wanted = self._admitted(wanted, before)
        after = self._stored(wanted, manager, namespace, before, body)
        if query.get("dryRun"):
            return (200 if before else 201), after
        if before is None or content(before) != content(after):
            self.changed[key] = time.monotonic()
            self.objects[key] = after
        return (200 if before else 201), self.objects[key]

    def _admitted(self, wanted: Object, before: Object | None) -> Object:
        try:
            return self.admit(wanted, before)
        except KServeRefusalError as error:
            said = f'admission webhook "inferenceservice.kserve-webhook-server" denied: {error}'
            raise RefusalError(400, "BadRequest", said) from None

    def _check(self, kind: str, name: str, body: Object) -> None:
        causes = [
            {"reason": "FieldValueInvalid", "field": field, "message": message}
            for field, message in schemas.problems(body)
        ]
        if causes:
            listed = ", ".join(f"{cause['field']}: {cause['message']}" for cause in causes)
            said = f'{kind} "{name}" is invalid: [{listed}]'
            raise RefusalError(422, "Invalid", said, name=name, kind=kind, causes=causes)

    def _stored(
        self,
        value: Object,
        manager: str,
        namespace: str,
        before: Object | None = None,
        applied: Object | None = None,
    ) -> Object:
        """An object with what the API server itself writes into it."""
        self.version += 1
        kept = copy.deepcopy(value)
        metadata = kept["metadata"]
        old = before["metadata"] if before else {}
        is_changed = before is None or before.get("spec") != kept.get("spec")
        entries = [e for e in old.get("managedFields", ()) if e["manager"] != manager]
        mine = [e for e in old.get("managedFields", ()) if e["manager"] == manager]
        same = before is not None and content(before) == content(kept)
        stamp = mine[0]["time"] if mine and same else _now()
        fields = sorted(leaves(applied if applied is not None else value))
        entry = {"manager": manager, "operation": "Apply", "time": stamp, "fields": fields}
        entry["fieldsV1"] = fields_v1(fields)
        metadata |= {
            "uid": old.get("uid", f"uid-{self.version}"),
            "resourceVersion": str(self.version),
            "generation": old.get("generation", 0) + is_changed,
            "creationTimestamp": metadata.get("creationTimestamp") or _now(),
            "managedFields": [*entries, entry],
        }
        if namespace:
            metadata["namespace"] = namespace
        return kept

    def _delete(self, key: Key) -> Object:
        gone = self.objects[key]
        if gone["metadata"].get("finalizers"):
            gone["metadata"]["deletionTimestamp"] = _now()
        else:
            del self.objects[key]
        return gone

    def _listed(self, kind: str, namespace: str, query: dict[str, str]) -> Iterator[Object]:
        labels = dict(part.split("=") for part in query.get("labelSelector", "").split(",") if part)
        fields = dict(part.split("=") for part in query.get("fieldSelector", "").split(",") if part)
        for key, value in list(self.objects.items()):
            held = value["metadata"].get("labels") or {}
            about = value.get("involvedObject") or {}
            if (
                key[0] == kind
                and namespace in ("", key[1])
                and labels.items() <= held.items()
                and fields.get("involvedObject.name", about.get("name")) == about.get("name")
                and fields.get("involvedObject.kind", about.get("kind")) == about.get("kind")
                and fields.get("metadata.name", key[2]) == key[2]
            ):
                # As the API does it: entries of a list do not name their kind.
                yield {k: v for k, v in value.items() if k not in ("kind", "apiVersion")}

    def _log(self, pod: str, query: dict[str, str]) -> str:
        name = f"{pod}/{query['container']}" + ("/previous" if query.get("previous") else "")
        if name not in self.logs:
            raise RefusalError(
                400, "BadRequest", f'previous terminated container in "{pod}" not found'
            )
        lines = self.logs[name].splitlines(keepends=True)
        return "".join(lines[-int(query["tailLines"]) :])

    def _tell(self, key: Key) -> None:
        story = self.stories.get(key[0])
        if story and key in self.objects:
            story(self, self.objects[key], time.monotonic() - self.changed.get(key, 0))


def _now(offset: float = 0) -> str:
    moment = datetime.fromtimestamp(time.time() + offset, timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
