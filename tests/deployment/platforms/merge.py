"""The strategic merge by which platforms lay one pod or container over another."""

from __future__ import annotations

import copy
from typing import Any

# Lists that are merged by a key of their items; other lists are replaced.
KEYS = {
    "containers": "name",
    "env": "name",
    "imagePullSecrets": "name",
    "initContainers": "name",
    "ports": "containerPort",
    "volumeMounts": "mountPath",
    "volumes": "name",
}


def merged(base: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """The base with what the patch says; null takes away."""
    result = copy.deepcopy(base)
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        elif isinstance(value, dict) and isinstance(result.get(name), dict):
            result[name] = merged(result[name], value)
        elif name in KEYS and name in result:
            result[name] = _merged_list(result[name], value, KEYS[name])
        else:
            result[name] = copy.deepcopy(value)
    return result


def _merged_list(base: list[Any], patch: list[Any], key: str) -> list[Any]:
    patches = {item[key]: item for item in patch}
    found = [
        merged(_without_source(item, patches[item[key]]), patches.pop(item[key]))
        if item[key] in patches
        else item
        for item in base
    ]
    return [*found, *copy.deepcopy(list(patches.values()))]


def _without_source(item: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """A variable given by value no longer comes from elsewhere, nor the other way round."""
    other = {"value": "valueFrom", "valueFrom": "value"}
    drop = {other[name] for name in other if name in patch}
    return {name: value for name, value in item.items() if name not in drop}


def appended(base: dict[str, Any], override: dict[str, Any]) -> dict[str, Any]:
    """The merge of Seldon v2's operator: lists are appended, empty values change nothing."""
    result = copy.deepcopy(base)
    for name, value in override.items():
        if isinstance(value, dict) and isinstance(result.get(name), dict):
            result[name] = appended(result[name], value)
        elif isinstance(value, list):
            result[name] = [*result.get(name, []), *copy.deepcopy(value)]
        elif value or name not in result:
            result[name] = copy.deepcopy(value)
    return result
