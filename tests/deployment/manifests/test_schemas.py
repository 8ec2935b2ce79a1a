"""Every shape with every set of options is what real API servers take."""

from __future__ import annotations

from typing import Any

import kubernetes_validate
import pytest
from cloudcoil.models.keda.v1alpha1 import ScaledObject
from cloudcoil.models.prometheus_operator.v1 import PodMonitor

from . import schemas
from .cases import CASES, made, objects, one, pods

# What of a pod stands in an object of another kind.
POD_FIELDS = (
    "containers", "volumes", "nodeSelector", "tolerations", "imagePullSecrets",
    "serviceAccountName", "securityContext", "terminationGracePeriodSeconds",
)  # fmt: skip
OPERATORS: dict[str, Any] = {"PodMonitor": PodMonitor, "ScaledObject": ScaledObject}
KUBERNETES = ("1.27", kubernetes_validate.latest_version())


@pytest.mark.parametrize(("platform", "shape", "case"), CASES)
def test_custom_objects_keep_their_schemas_strictly(platform: str, shape: str, case: str) -> None:
    for found in made(platform, shape, case):
        if schemas.knows(found):
            schemas.check(found)
        elif found["kind"] in OPERATORS:
            assert whole(found) == found
        else:
            assert found["apiVersion"] in ("v1", "apps/v1", "autoscaling/v2", "policy/v1")


def whole(found: dict[str, Any]) -> Any:
    """An object as the operator's own kind reads and writes it, without what it does not know."""
    read = OPERATORS[found["kind"]].model_validate(found)
    return read.model_dump(mode="json", by_alias=True, exclude_unset=True)


@pytest.mark.parametrize("platform", ["kubernetes", "kserve"])
def test_the_operators_of_keda_and_prometheus_take_their_objects(platform: str) -> None:
    scaled = {"scale_on": "utilization", "prometheus": "http://p:9090", "max_replicas": 8}
    found = objects(platform, "image", monitor=True, **scaled)
    theirs = [each for each in found if each["kind"] in OPERATORS]
    expected = {"kubernetes": ["ScaledObject", "PodMonitor"], "kserve": ["PodMonitor"]}
    assert [each["kind"] for each in theirs] == expected[platform]
    for each in theirs:
        assert whole(each) == each
        broken = {**each, "spec": {**each["spec"], "typo": 1}}
        assert whole(broken) != broken


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize(("platform", "shape", "case"), CASES)
def test_kubernetes_takes_its_own_objects_and_pods(
    platform: str, shape: str, case: str, version: str
) -> None:
    found = made(platform, shape, case)
    own = [each for each in found if "." not in each["apiVersion"].split("/")[0]]
    for each in own:
        kubernetes_validate.validate(each, version, strict=True)
    for spec in pods(found):
        kubernetes_validate.validate(pod(spec), version, strict=True)


def pod(spec: dict[str, Any]) -> dict[str, Any]:
    """A pod of what an object says of one."""
    parts = {name: spec[name] for name in POD_FIELDS if name in spec}
    if "model" in spec:
        theirs = ("modelFormat", "runtime", "protocolVersion", "storageUri")
        container = {key: value for key, value in spec["model"].items() if key not in theirs}
        parts["containers"] = [{"name": "kserve-container", "image": "a", **container}]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": parts}


def test_the_check_itself_refuses_what_is_wrong() -> None:
    found = one(made("kserve", "image"), "InferenceService")
    found["spec"]["predictor"]["containers"][0]["imge"] = "typo"
    with pytest.raises(AssertionError, match="imge"):
        schemas.check(found)
    found = one(made("kserve", "image"), "InferenceService")
    found["spec"]["predictor"]["containers"][0]["env"] += [{"name": "HOME", "value": "/"}]
    with pytest.raises(AssertionError):
        schemas.check(found)
    wrong = pod({"containers": [{"name": "a", "image": "b", "livenessProbe": {"path": "/"}}]})
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, KUBERNETES[1], strict=True)
