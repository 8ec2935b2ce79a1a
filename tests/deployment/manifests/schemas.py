"""What a real API server checks objects against: the platforms' own CRD schemas, strictly."""

from __future__ import annotations

import functools
import json
from typing import Any

import jsonschema

from tests.needs import require
from tests.places import CRDS

PRESERVE = "x-kubernetes-preserve-unknown-fields"


def check(found: dict[str, Any]) -> None:
    """Fails where an object of a custom kind breaks its schema, or lists a key twice."""
    validator, schema = _schemas()[(found["apiVersion"], found["kind"])]
    problems = [f"{e.json_path}: {e.message}" for e in validator.iter_errors(found)]
    assert not problems, problems
    assert not list(_doubles(schema, found, "$"))


def knows(found: dict[str, Any]) -> bool:
    return (found["apiVersion"], found["kind"]) in _schemas()


@functools.cache
def _schemas() -> dict[tuple[str, str], tuple[jsonschema.Draft202012Validator, Any]]:
    require("CRD schemas")
    found = {}
    for path in CRDS.glob("*.json"):
        crd = json.loads(path.read_text())
        schema = _strict(crd["schema"])
        # An object's metadata is the API server's own.
        schema["properties"]["metadata"] = _METADATA
        key = f"{crd['group']}/{crd['version']}", crd["kind"]
        found[key] = jsonschema.Draft202012Validator(schema), schema
    assert len(found) == 6
    return found


_STRINGS = {"type": "object", "additionalProperties": {"type": "string"}}
_METADATA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "pattern": r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "maxLength": 63},
        "namespace": {"type": "string"},
        "labels": _STRINGS,
        "annotations": _STRINGS,
    },
    "required": ["name"],
    "additionalProperties": False,
}


def _strict(schema: Any) -> Any:
    """A copy in which nothing unknown is let through: the API server would drop it silently."""
    if isinstance(schema, list):
        return [_strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    copy = {key: _strict(value) for key, value in schema.items()}
    lists_properties = isinstance(copy.get("properties"), dict) and copy.get("type") == "object"
    if lists_properties and not copy.get(PRESERVE) and "additionalProperties" not in copy:
        copy["additionalProperties"] = False
    return copy


def _doubles(schema: Any, value: Any, where: str) -> Any:
    """Items of a list whose keys must differ and do not."""
    if isinstance(value, dict):
        for key, item in value.items():
            below = schema.get("properties", {}).get(key)
            if below:
                yield from _doubles(below, item, f"{where}.{key}")
    elif isinstance(value, list):
        keys = schema.get("x-kubernetes-list-map-keys", [])
        seen = [tuple(item.get(key) for key in keys) for item in value] if keys else []
        yield from (f"{where}: {key}" for key in seen if seen.count(key) > 1)
        for index, item in enumerate(value):
            yield from _doubles(schema.get("items", {}), item, f"{where}[{index}]")
