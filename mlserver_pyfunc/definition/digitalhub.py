"""Reads a digitalhub object of kind `openinference` as a definition."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlserver_pyfunc.errors import DefinitionError

from .fields import parsed

_KEPT = ("description", "labels", "project")
"""Keys of the object that describe it. They stand beside `spec`, or under `metadata`."""


def unwrapped(value: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """Returns the definition in a digitalhub object `{kind, spec}`; any other mapping as it is.

    Fills in what digitalhub does: a tensor without a datatype is FP32, and whatever a client sends
    or a handler answers is let through.

    Raises DefinitionError if the object has another kind, or no spec.
    """
    if "spec" not in value:
        if "kind" in value:
            kind = value["kind"]
            raise DefinitionError(
                f'{where}: spec: missing, expected one in an object of kind "{kind}"'
            )
        return value
    kind = value.get("kind", "openinference")
    if kind != "openinference" or not isinstance(value["spec"], Mapping):
        raise DefinitionError(f'{where}: kind: expected "openinference" with a spec, got "{kind}"')
    spec = {"dialect": "digitalhub", **_described(value), **value["spec"]}
    if spec.get("model_name") is None and value.get("name"):
        spec["model_name"] = value["name"]
    spec["contract"] = _contract(spec)
    for kind in ("inputs", "outputs"):
        if isinstance(tensors := parsed(spec.get(kind)), list):
            spec[kind] = [_completed(t, f"{kind[:-1]}-{i}") for i, t in enumerate(tensors)]
    return spec


def _described(value: Mapping[str, Any]) -> dict[str, Any]:
    metadata = value.get("metadata")
    found = metadata if isinstance(metadata, Mapping) else {}
    given = {key: value.get(key) or found.get(key) for key in _KEPT}
    return {key: text for key, text in given.items() if text}


def _contract(spec: Mapping[str, Any]) -> Any:
    """Returns the spec's `contract`. digitalhub checks neither requests nor answers."""
    given = parsed(spec.get("contract")) or {}
    if not isinstance(given, Mapping):
        return given
    defaults = {"requests": "warn", "responses": "warn"}
    return {**defaults, **{key: side for key, side in given.items() if side is not None}}


def _completed(tensor: Any, name: str) -> Any:
    if not isinstance(tensor, Mapping):
        return tensor
    given = {key: value for key, value in tensor.items() if value is not None}
    if not given.get("name", True):
        del given["name"]
    return {"name": name, "shape": [-1], "datatype": "FP32", **given}
