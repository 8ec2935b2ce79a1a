"""What a cluster finds wrong with an object: by the CRDs' schemas, or by Kubernetes' own."""

from __future__ import annotations

import functools
import json
from typing import Any

import jsonschema
import kubernetes_validate

from tests.deployment.manifests import schemas as crds
from tests.places import CRDS

KUBERNETES_VERSION = "1.31"

Problem = tuple[str, str]
"""The path of a field and what is wrong with it."""


@functools.cache
def custom_kinds() -> dict[tuple[str, str], bool]:
    """Whether objects of a kind have a namespace, by apiVersion and kind."""
    found = [json.loads(file.read_text()) for file in CRDS.glob("*.json")]
    return {
        (f"{crd['group']}/{crd['version']}", crd["kind"]): crd["scope"] == "Namespaced"
        for crd in found
    }


def problems(value: dict[str, Any]) -> list[Problem]:
    """What is wrong with an object, in strict form: what is not declared is wrong too."""
    if not crds.knows(value):
        # The tests of manifests check the kinds of operators by the operators' own models.
        return [] if "." in value["apiVersion"] else _core_problems(value)
    validator, schema = crds._schemas()[value["apiVersion"], value["kind"]]
    found = [(_path(error), error.message) for error in validator.iter_errors(value)]
    return found + [(path, "duplicate entry") for path in crds._doubles(schema, value, "$")]


def _core_problems(value: dict[str, Any]) -> list[Problem]:
    try:
        kubernetes_validate.validate(value, KUBERNETES_VERSION, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [(_path(error), error.message)]
    return []


def _path(error: jsonschema.ValidationError) -> str:
    path = ""
    for part in error.absolute_path:
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
    return path.lstrip(".")
