"""The options of a deployment, each declared once.

`deployment` in a definition keeps them, the command line makes its options from the fields, and the
JSON Schema and docs/cli.md are written from them.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    WithJsonSchema,
    model_validator,
)

from . import kubernetes_names as names

# A definition may say `cpu: 2`.
_NumberOrText = Annotated[str, WithJsonSchema({"type": ["string", "number"]})]
Label = Annotated[str, AfterValidator(names.label)]
Name = Annotated[str, AfterValidator(names.subdomain)]
Quantity = Annotated[_NumberOrText, AfterValidator(names.quantity)]
EnvName = Annotated[str, AfterValidator(names.env_name)]
LabelKey = Annotated[str, AfterValidator(names.label_key)]
LabelValue = Annotated[_NumberOrText, AfterValidator(names.label_value)]
Count = Annotated[int, Field(ge=0)]

# Variables that the manifest itself sets. With other values, its ports and probes would be wrong.
_OURS = re.compile(
    r"MLSERVER_(HTTP_PORT|GRPC_PORT|METRICS_PORT|HOST|MODELS_DIR|MODEL_(NAME|URI|IMPLEMENTATION|EXTRA))"
)

# Folders of our images that hold the server, the function and its packages, or that pods mount.
_FOLDERS = (
    "/tmp", "/mnt/models", "/opt/function", "/opt/mlserver", "/opt/environment",
    "/opt/requirements", "/opt/python", "/usr/local",
)  # fmt: skip

ONLY: Mapping[str, tuple[str, ...]] = {
    "runtime": ("kserve", "seldon-v2"),
    "cluster_runtime": ("kserve",),
    "with_runtime": ("kserve", "seldon-v2"),
    "mode": ("kserve",),
    "protocol": ("kserve",),
    "scale_on": ("kserve", "kubernetes"),
    "target_utilization": ("kserve", "kubernetes"),
    "prometheus": ("kserve", "kubernetes"),
    "monitor": ("kserve", "kubernetes"),
    "target_cpu": ("kserve", "seldon-v1", "kubernetes"),
    "service_type": ("kubernetes",),
    "service_name": ("kubernetes", "seldon-v1"),
}
"""The platforms of options that not every platform has."""


def described(name: str, text: str) -> str:
    """Returns what an option does, and which platforms have it."""
    only = f" Only for {', '.join(ONLY[name])}." if name in ONLY else ""
    return text.replace("\n", " ") + only


def _describe(schema: dict[str, Any]) -> None:
    for name, about in schema["properties"].items():
        about["description"] = described(name, about["description"])


class _Model(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, coerce_numbers_to_str=True, use_attribute_docstrings=True
    )


class Written(_Model):
    """A value that may be given as one text, as on the command line."""

    form: ClassVar[str]
    _pattern: ClassVar[str]

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        match = re.fullmatch(cls._pattern, value)
        if match is None:
            # Somebody may give the secret itself instead of its place.
            got = "" if cls is SecretKey else f', got "{value}"'
            raise ValueError(f"expected {cls.form}{got}")
        return {name: part for name, part in match.groupdict().items() if part is not None}

    @classmethod
    def __get_pydantic_json_schema__(cls, core: Any, handler: GetJsonSchemaHandler) -> Any:
        return {"anyOf": [handler(core), {"type": "string", "description": cls.form}]}


class SecretKey(Written):
    """A key of a Kubernetes Secret. Its value never gets into a manifest."""

    form = "SECRET/KEY"
    _pattern = r"(?P<secret>[^/]*)/(?P<key>.*)"

    secret: Name
    key: Annotated[str, AfterValidator(names.key)]


class EnvSource(Written):
    """A Secret or a ConfigMap, each key of which becomes a variable."""

    form = "secret/NAME|configmap/NAME"
    _pattern = r"(?P<kind>[^/]*)/(?P<name>.*)"

    kind: Literal["secret", "configmap"]
    name: Name


class Volume(Written):
    """A volume that is mounted into the container."""

    form = "pvc/NAME:/PATH[:ro]"
    _pattern = r"(?P<kind>[^/:]*)(/(?P<name>[^:]*))?:(?P<path>[^:]+)(:(?P<read_only>ro|rw))?"

    kind: Literal["pvc", "secret", "configmap", "emptydir"]
    name: Name | None = None
    path: Annotated[str, Field(pattern=r"^/[^:\s]+$")]
    read_only: Annotated[
        bool, BeforeValidator(lambda mode: mode == "ro" if mode in ("ro", "rw") else mode)
    ] = False

    @model_validator(mode="after")
    def _is_named(self) -> Volume:
        if (self.kind == "emptydir") != (self.name is None):
            raise ValueError(f"{self.kind}: " + ("no name expected" if self.name else "no name"))
        return self


class Toleration(Written):
    """A taint of nodes that pods tolerate. Without a value, the key alone has to match."""

    form = "KEY[=VALUE][:EFFECT]"
    _pattern = r"(?P<key>[^=:]*)(=(?P<value>[^:]*))?(:(?P<effect>.*))?"

    key: LabelKey
    value: LabelValue | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None


class DeploymentOptions(_Model):
    """What a manifest depends on besides the function and its image.

    Each field is checked by itself; `check_together` compares them.
    """

    model_config = ConfigDict(json_schema_extra=_describe)

    name: Label | None = None
    """Name of the objects.  [the model's, as a DNS label]"""
    namespace: Label | None = None
    """Namespace of the objects.  [that of the kubeconfig's context]"""
    shape: Literal["auto", "image", "storage", "inline"] = "auto"
    """image: the function is in the image. storage: the stock image, and the folder at
    --storage-uri. inline: the stock image, and the code in the manifest. auto: storage with
    --storage-uri, else image."""
    storage_uri: Annotated[str, Field(pattern=r"^[a-z0-9+]+://\S+$")] | None = None
    """URI from which the platform fetches the folder of the model."""
    runtime: Label | None = None
    """Name of the ServingRuntime or Server, mlserver-pyfunc by default."""
    cluster_runtime: bool = False
    """Print a ClusterServingRuntime or a ServingRuntime (default)."""
    with_runtime: bool = True
    """Print the ServingRuntime or Server too (default), or expect it on the cluster."""
    mode: Literal["standard", "knative"] = "standard"
    """Deployment mode of KServe."""
    protocol: Literal["rest", "grpc"] = "rest"
    """Protocol of the one port that Knative opens."""
    replicas: Count = 1
    """Number of replicas without autoscaling."""
    min_replicas: Count | None = None
    """Lower bound of autoscaling.  [1]"""
    max_replicas: Annotated[int, Field(ge=1)] | None = None
    """Upper bound; turns autoscaling on."""
    scale_on: Literal["cpu", "utilization"] = "cpu"
    """What autoscaling follows. utilization: requests in flight over slots, which KEDA reads with
    --prometheus, else an autoscaler by the custom metrics API."""
    target_utilization: Annotated[int, Field(ge=1, le=1000)] = 70
    """Percentage of the slots in use above which replicas are added."""
    prometheus: Annotated[str, Field(pattern=r"^https?://\S+$")] | None = None
    """URL of Prometheus, as KEDA reaches it."""
    monitor: bool = False
    """Print a PodMonitor too, by which Prometheus's operator scrapes the pods."""
    target_cpu: Annotated[int, Field(ge=1, le=100)] = 80
    """Percentage of the requested CPU above which replicas are added."""
    cpu: Quantity = "1"
    """CPU request."""
    memory: Quantity = "1Gi"
    """Memory request, and the limit."""
    cpu_limit: Quantity | None = None
    """CPU limit.  [KServe: the request; else none, so that calls can use an idle core]"""
    gpus: Count = 0
    """Number of GPUs per replica."""
    gpu_resource: LabelKey = "nvidia.com/gpu"
    """Name of the GPU resource on the cluster."""
    env: dict[EnvName, _NumberOrText] = {}
    """Environment variable. Secrets are refused."""
    secrets: dict[EnvName, SecretKey] = {}
    """Environment variable from a Kubernetes Secret."""
    env_from: list[EnvSource] = []
    """Secret or ConfigMap, each key of which becomes a variable."""
    volumes: list[Volume] = []
    """Volume to mount. Also secret/NAME:/PATH, configmap/NAME:/PATH and emptydir:/PATH."""
    service_type: Literal["ClusterIP", "NodePort", "LoadBalancer", "Headless"] = "ClusterIP"
    """Type of the Service. Headless: its name has the addresses of all pods."""
    service_name: Label | None = None
    """Name of the Service."""
    node_selector: dict[LabelKey, LabelValue] = {}
    """Label of the nodes on which pods may run."""
    tolerations: list[Toleration] = []
    """Taint of nodes that pods tolerate."""
    service_account: Name | None = None
    """Service account of the pods, with which KServe also fetches --storage-uri."""
    image_pull_secrets: list[Name] = []
    """Secret with credentials of the registry."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    """Pull policy of the image.  [that of Kubernetes]"""
    run_as_user: Annotated[_NumberOrText, Field(pattern=r"^([1-9]\d*|any)$")] = "1000"
    """User id. any: the platform chooses it, as OpenShift does."""
    labels: dict[LabelKey, LabelValue] = {}
    """Label of every object."""
    annotations: dict[LabelKey, _NumberOrText] = {}
    """Annotation of every object."""

    @property
    def user_id(self) -> int | None:
        """The id of `run_as_user`; None if the platform chooses it."""
        return None if self.run_as_user == "any" else int(self.run_as_user)

    def check_together(self) -> None:
        """Raises `ValueError` if options contradict each other."""
        self._check_amounts()
        self._check_variables()
        self._check_mounts()

    def _check_amounts(self) -> None:
        least, most = self.min_replicas, self.max_replicas
        if least is not None and most is None:
            raise ValueError("min_replicas: expected max_replicas too, got none")
        if least is not None and most is not None and least > most:
            raise ValueError(f"expected min_replicas up to max_replicas {most}, got {least}")
        amount = names.amount
        if self.cpu_limit and amount(self.cpu) > amount(self.cpu_limit):
            raise ValueError(f"expected cpu up to cpu_limit {self.cpu_limit}, got {self.cpu}")
        if amount(self.memory) < 1e6:
            expected = "expected 1M or more, for example 512Mi"
            raise ValueError(f"memory: {expected}, got {self.memory}, which is in bytes")

    def _check_variables(self) -> None:
        for name, value in self.env.items():
            if _OURS.fullmatch(name):
                raise ValueError(f"env: {name} is what the manifest itself sets; leave it out")
            if names.shows_a_secret(name, value):
                raise ValueError(
                    f"env: {name} would show a secret in the manifest; put it into a Kubernetes "
                    f"Secret and give --secret {name}=SECRET/KEY"
                )
        for name in self.secrets:
            if name in self.env or _OURS.fullmatch(name):
                raise ValueError(f"secrets: {name} is set in another way too; leave one out")

    def _check_mounts(self) -> None:
        paths = ["/" + posixpath.normpath(each.path).lstrip("/") for each in self.volumes]
        for path in paths:
            if paths.count(path) > 1:
                raise ValueError(f"volumes: {path} is mounted twice")
            # A volume below one of ours is an addition; one over it would hide what is there.
            hidden = [ours for ours in _FOLDERS if f"{ours}/".startswith(f"{path.rstrip('/')}/")]
            if hidden:
                raise ValueError(
                    f"volumes: a mount at {path} would hide {hidden[0]}, which the server needs"
                )


class DeploymentDefinition(DeploymentOptions):
    """What a definition keeps: options of manifests, and presets, which come over the others."""

    presets: dict[str, DeploymentOptions] = {}
    """Options by the name of a preset, which `--preset` puts over the others."""

    def kept(self, preset: str | None = None) -> dict[str, Any]:
        """Returns the options that are given, with those of a preset over them."""
        found = self.model_dump(exclude_unset=True, exclude={"presets"})
        return over(found, self.presets[preset].model_dump(exclude_unset=True)) if preset else found

    @model_validator(mode="after")
    def _options_agree(self) -> DeploymentDefinition:
        for preset in (None, *self.presets):
            try:
                DeploymentOptions.model_validate(self.kept(preset)).check_together()
            except ValueError as error:
                raise ValueError(f"presets.{preset}: {error}" if preset else str(error)) from None
        return self


def over(base: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Returns options with `more` in their place; mappings are merged key by key."""
    found = dict(base)
    for name, value in more.items():
        earlier = found.get(name)
        if isinstance(earlier, Mapping) and isinstance(value, Mapping):
            value = {**earlier, **value}
        found[name] = value
    return found
