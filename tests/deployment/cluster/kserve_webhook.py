"""KServe's admission of InferenceServices: what its webhooks fill in, and what they refuse.

By the rules of KServe 0.11 to 0.20. `Installation` has what differs between them, and what the
ConfigMap of an installation chooses.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Object = dict[str, Any]

CONTAINER = "kserve-container"
MODE = "serving.kserve.io/deploymentMode"
SCALER = "serving.kserve.io/autoscalerClass"
FORMAT = "serving.kserve.io/modelFormat"
# Since 0.16, and the names before.
MODES = {"RawDeployment": "Standard", "Serverless": "Knative"}
_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")


class KServeRefusalError(Exception):
    """What a webhook answers."""


@dataclass(frozen=True)
class Installation:
    """A version of KServe, and what its ConfigMap says.

    Attributes:
        resources: Of a container that does not say, for requests and limits alike.
        mode: Of a service that does not say.
        renames_modes: Whether it has the new names of the modes.
        mounts_tokens: Whether pods have the token of their service account.
    """

    resources: Mapping[str, str] = field(default_factory=lambda: {"cpu": "1", "memory": "2Gi"})
    mode: str = "Serverless"
    renames_modes: bool = True
    mounts_tokens: bool = True


CURRENT = Installation()
HARDENED = Installation(mode="Standard", mounts_tokens=False)
OLD = Installation(renames_modes=False)


def admit(service: Object, before: Object | None = None, by: Installation = CURRENT) -> Object:
    """A service as it is stored.

    Raises:
        KServeRefusalError: It is not.
    """
    found = defaulted(service, by)
    refuse(found, before, by)
    return found


def defaulted(service: Object, by: Installation = CURRENT) -> Object:
    found = copy.deepcopy(service)
    annotations = found["metadata"].setdefault("annotations", {})
    predictor = found["spec"]["predictor"]
    if by.renames_modes:
        if MODE in annotations:
            annotations[MODE] = MODES.get(annotations[MODE], annotations[MODE])
        elif by.mode == "Standard":
            annotations[MODE] = by.mode
        if "model" in predictor:
            annotations.setdefault(FORMAT, predictor["model"]["modelFormat"]["name"])
    if "model" not in predictor:
        # A container that a runtime completes has the resources of neither: none are filled in.
        first = predictor["containers"][0]
        if len(predictor["containers"]) == 1:
            first["name"] = CONTAINER
        resources = first.setdefault("resources", {})
        for part in ("requests", "limits"):
            resources[part] = {**by.resources, **resources.get(part, {})}
    if not by.mounts_tokens:
        predictor.setdefault("automountServiceAccountToken", False)
    return found


def refuse(service: Object, before: Object | None = None, by: Installation = CURRENT) -> None:
    """Raises `KServeRefusalError` for what the validating webhook refuses."""
    name, predictor = service["metadata"]["name"], service["spec"]["predictor"]
    annotations = service["metadata"].get("annotations", {})
    mode = ((before or {}).get("status") or {}).get("deploymentMode")
    if mode and by.renames_modes:
        said = f"update rejected: deploymentMode cannot be changed from '{mode}'"
        _demand(annotations.get(MODE, mode) == mode, f"{said} to '{annotations.get(MODE)}'")
    _demand(_NAME.fullmatch(name) is not None, f'the InferenceService "{name}" is invalid')
    scaler = annotations.get(SCALER, "hpa")
    _demand(scaler in ("hpa", "external", "keda", "none"), f"[{scaler}] is not supported")
    _demand("name" not in predictor.get("model", {}), "the 'name' field is not allowed")
    containers = [*predictor.get("containers", []), predictor.get("model", {})]
    variables = {each["name"]: each.get("value") for c in containers for each in c.get("env", [])}
    _demand("PYTHONPATH" not in variables, "PYTHONPATH is not allowed")
    if "model" not in predictor:
        protocol = variables.get("PROTOCOL", "v1")
        _demand(protocol in ("v1", "v2"), f"invalid protocol {protocol}")
    least, most = predictor.get("minReplicas", 1), predictor.get("maxReplicas", 0)
    _demand(least >= 0 and (least <= most or most == 0), "'MinReplicas' is above MaxReplicas")
    _refuse_scaling(predictor, annotations, by)


def _refuse_scaling(predictor: Object, annotations: Mapping[str, str], by: Installation) -> None:
    standard = "Standard" if by.renames_modes else "RawDeployment"
    metric, target = predictor.get("scaleMetric"), predictor.get("scaleTarget", 80)
    metrics = predictor.get("autoScaling", {}).get("metrics", [])
    if annotations.get(MODE) != standard:
        _demand("deploymentStrategy" not in predictor, "deploymentStrategy is for raw deployments")
        _demand(metric in (None, "concurrency", "rps"), f"[{metric}] is not a supported metric")
    elif annotations.get(SCALER) == "hpa":
        _demand(metric in (None, "cpu", "memory"), f"[{metric}] is not a supported metric")
        _demand(1 <= target <= 100, "the target utilization percentage should be 1 to 100")
        _demand(all(each["type"] == "Resource" for each in metrics), "invalid HPA metric source")
    elif annotations.get(SCALER) == "keda":
        _demand(metric is None, "ScaleMetric is not supported for KEDA")
        for each in metrics:
            _demand(each["type"] == "External", f"unknown KEDA metric type {each['type']}")
            _demand(bool(each["external"]["metric"]["query"]), "the query should not be empty")
            aim = each["external"]["target"]
            _demand(aim["type"] == "Value" and "value" in aim, "the Value type should be set")


def _demand(is_met: bool, otherwise: str) -> None:
    if not is_met:
        raise KServeRefusalError(otherwise)
