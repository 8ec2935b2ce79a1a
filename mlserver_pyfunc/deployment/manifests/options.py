"""What a manifest is asked for, besides the function."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from . import names
from .names import ManifestError

Shape = Literal["auto", "image", "storage", "inline"]
Label = Annotated[str, AfterValidator(names.label)]
Name = Annotated[str, AfterValidator(names.subdomain)]
Quantity = Annotated[str, AfterValidator(names.quantity)]
EnvName = Annotated[str, AfterValidator(names.env_name)]
LabelKey = Annotated[str, AfterValidator(names.label_key)]
LabelValue = Annotated[str, AfterValidator(names.label_value)]

# What the manifest itself decides: the rest of it would not agree.
_OURS = re.compile(
    r"MLSERVER_(HTTP_PORT|GRPC_PORT|METRICS_PORT|HOST|MODELS_DIR|MODEL_(NAME|URI|IMPLEMENTATION|EXTRA))"
)


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SecretKey(_Model):
    """One key of a secret: its value is never in a manifest."""

    secret: Name
    key: Annotated[str, AfterValidator(names.key)]


class EnvSource(_Model):
    """A secret or a config map, each key of which becomes a variable."""

    kind: Literal["secret", "configmap"]
    name: Name


class Volume(_Model):
    """Something mounted into the container."""

    kind: Literal["pvc", "secret", "configmap", "emptydir"]
    name: Name | None = None
    path: Annotated[str, Field(pattern=r"^/[^:\s]+$")]
    read_only: bool = False

    @model_validator(mode="after")
    def _is_named(self) -> Volume:
        if (self.kind == "emptydir") != (self.name is None):
            raise ValueError(f"{self.kind}: " + ("no name expected" if self.name else "no name"))
        return self


class Toleration(_Model):
    """A taint that pods may run in spite of. Without a value, the key's presence counts."""

    key: LabelKey
    value: LabelValue | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None


class Options(_Model):
    """What a manifest is asked for.

    Attributes:
        name: Of the objects; made of the model's where it is not given.
        namespace: Of the objects; the one that they are applied to where it is not given.
        image: To run: the function's own, or the stock one of the shapes that bring the function.
        storage_uri: Where the platform fetches the model's folder from.
        shape: `image`: the function is inside. `storage`: the stock image and `storage_uri`.
            `inline`: the stock image and the function in a ConfigMap.
        runtime: Name of KServe's runtime, or of Seldon Core 2's Server.
        cluster_runtime: A ClusterServingRuntime instead of a ServingRuntime.
        with_runtime: Whether the runtime or Server is printed; else it is taken to be there.
        mode: How KServe runs it.
        protocol: For which Knative, that has one port, opens it.
        replicas: Without autoscaling.
        min_replicas: With it.
        max_replicas: With it: it is on where this is given.
        target_cpu: Percent of the request at which replicas are added.
        cpu, memory: Requested. The memory is the limit too.
        cpu_limit: None by default: a limit slows calls that could use an idle core.
        gpus: Per replica.
        gpu_resource: As the device plug-in calls it.
        tmp_size: Limit of /tmp, the one folder that can be written to.
        env: Variables. No secrets.
        secrets: Variables from secrets.
        env_from: Secrets and config maps all of whose keys become variables.
        volumes: What is mounted.
        service_type: Of the plain Service.
        service_name: Of the plain Service, or of Seldon v1's.
        node_selector, tolerations: Where pods may run.
        service_account: Theirs; it gives KServe the rights to fetch `storage_uri`.
        image_pull_secrets: Names of secrets.
        image_pull_policy: As Kubernetes has it.
        run_as_user: None lets the platform choose, as OpenShift does.
        labels, annotations: Of every object.
    """

    name: Label | None = None
    namespace: Label | None = None
    image: Annotated[str, AfterValidator(names.image)] | None = None
    storage_uri: Annotated[str, Field(pattern=r"^[a-z0-9+]+://\S+$")] | None = None
    shape: Shape = "auto"
    runtime: Label | None = None
    cluster_runtime: bool = False
    with_runtime: bool = True
    mode: Literal["standard", "knative"] = "standard"
    protocol: Literal["rest", "grpc"] = "rest"
    replicas: Annotated[int, Field(ge=0)] = 1
    min_replicas: Annotated[int, Field(ge=0)] | None = None
    max_replicas: Annotated[int, Field(ge=1)] | None = None
    target_cpu: Annotated[int, Field(ge=1, le=100)] = 80
    cpu: Quantity = "1"
    memory: Quantity = "1Gi"
    cpu_limit: Quantity | None = None
    gpus: Annotated[int, Field(ge=0)] = 0
    gpu_resource: LabelKey = "nvidia.com/gpu"
    tmp_size: Quantity | None = None
    env: dict[EnvName, str] = {}
    secrets: dict[EnvName, SecretKey] = {}
    env_from: list[EnvSource] = []
    volumes: list[Volume] = []
    service_type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    service_name: Label | None = None
    node_selector: dict[LabelKey, LabelValue] = {}
    tolerations: list[Toleration] = []
    service_account: Name | None = None
    image_pull_secrets: list[Name] = []
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    run_as_user: Annotated[int, Field(ge=1)] | None = 1000
    labels: dict[LabelKey, LabelValue] = {}
    annotations: dict[LabelKey, str] = {}

    @model_validator(mode="after")
    def _replicas_agree(self) -> Options:
        least, most = self.min_replicas, self.max_replicas
        if least is not None and most is None:
            raise ValueError("min_replicas: expected max_replicas too, got none")
        if least is not None and most is not None and least > most:
            raise ValueError(f"expected min_replicas up to max_replicas {most}, got {least}")
        return self

    @model_validator(mode="after")
    def _variables_are_fit(self) -> Options:
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
        return self

    @model_validator(mode="after")
    def _mounts_are_apart(self) -> Options:
        paths = ["/tmp", "/mnt/models", *(volume.path for volume in self.volumes)]
        twice = sorted({path for path in paths if paths.count(path) > 1})
        if twice:
            raise ValueError(f"volumes: {twice[0]} is mounted twice; /tmp and /mnt/models are ours")
        return self


def parse(values: dict[str, Any]) -> Options:
    """Reads options.

    Raises:
        ManifestError: What is wrong with them, by option.
    """
    try:
        return Options.model_validate(values)
    except ValidationError as error:
        raise ManifestError("; ".join(_messages(error))) from None


def _messages(error: ValidationError) -> list[str]:
    found = []
    for problem in error.errors(include_url=False, include_input=False):
        where = ".".join(str(part) for part in problem["loc"] if part != "[key]")
        text = str(problem["ctx"]["error"]) if problem["type"] == "value_error" else problem["msg"]
        found.append(f"{where}: {text}" if where else text)
    return found
