"""Server-side apply as the API does it, but for lists: they have one manager and one value."""

from __future__ import annotations

import copy
from typing import Any

Object = dict[str, Any]

SEPARATOR = "\0"


class RefusalError(Exception):
    """An error status, as the API answers it."""

    def __init__(self, status: int, reason: str, message: str, **details: Any) -> None:
        self.status = status
        self.body = {
            "kind": "Status",
            "apiVersion": "v1",
            "status": "Failure",
            "message": message,
            "reason": reason,
            "details": details,
            "code": status,
        }


def refuse_conflicts(before: Object, body: Object, manager: str) -> None:
    """A field that another applied, and that we would change, is a conflict."""
    wanted, held = leaves(body), leaves(before)
    causes = [
        {
            "reason": "FieldManagerConflict",
            "message": f'conflict with "{entry["manager"]}" using {before["apiVersion"]}',
            "field": "." + path.replace(SEPARATOR, "."),
        }
        for entry in before["metadata"].get("managedFields", ())
        if entry["manager"] != manager
        for path in entry["fields"]
        if path in wanted and wanted[path] != held.get(path)
    ]
    if causes:
        said = "; ".join(f"{cause['message']}: {cause['field']}" for cause in causes)
        said = f"Apply failed with {len(causes)} conflict: {said}"
        raise RefusalError(409, "Conflict", said, causes=causes)


def merged(before: Object | None, body: Object, manager: str) -> Object:
    """Lists are taken as one value; what we applied before and no longer do is removed."""
    if before is None:
        return copy.deepcopy(body)
    merged = copy.deepcopy(before)
    mine = [e for e in before["metadata"].get("managedFields", ()) if e["manager"] == manager]
    for path in set(mine[0]["fields"] if mine else ()) - set(leaves(body)):
        *parents, last = path.split(SEPARATOR)
        inner = merged
        for part in parents:
            inner = inner.get(part, {})
        inner.pop(last, None)
    _overlay(merged, body)
    return merged


def _overlay(base: Object, over: Object) -> None:
    for name, value in over.items():
        if isinstance(value, dict) and isinstance(base.get(name), dict):
            _overlay(base[name], value)
        else:
            base[name] = copy.deepcopy(value)


def leaves(value: Object, prefix: str = "") -> dict[str, Any]:
    """Fields that have a manager, by their path."""
    found: dict[str, Any] = {}
    for name, part in value.items():
        if not prefix and name not in ("metadata", "spec", "data", "binaryData"):
            continue
        if prefix == "metadata" and name not in ("labels", "annotations"):
            continue
        # Keys of labels have dots.
        path = f"{prefix}{SEPARATOR}{name}" if prefix else name
        if isinstance(part, dict) and part:
            found |= leaves(part, path)
        else:
            found[path] = part
    return found


def content(value: Object) -> Object:
    """What of an object is asked for, apart from what the cluster adds."""
    return leaves(value)


def fields_v1(paths: list[str]) -> Object:
    """Paths of fields as `managedFields` has them."""
    found: Object = {}
    for path in paths:
        inner = found
        for part in path.split(SEPARATOR):
            inner = inner.setdefault(f"f:{part}", {})
    return found
