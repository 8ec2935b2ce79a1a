"""The options of a manifest, each declared once.

`Options` checks them, `cli/manifest.py` makes the options of the command line from its fields, and
docs/cli.md is written from those.
"""

from __future__ import annotations

import difflib
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
    ValidationError,
    model_validator,
)

from . import names
from .names import ManifestError

Label = Annotated[str, AfterValidator(names.label)]
Name = Annotated[str, AfterValidator(names.subdomain)]
Quantity = Annotated[str, AfterValidator(names.quantity)]
EnvName = Annotated[str, AfterValidator(names.env_name)]
LabelKey = Annotated[str, AfterValidator(names.label_key)]
LabelValue = Annotated[str, AfterValidator(names.label_value)]

# Variables that the manifest itself sets. With other values, its ports and probes would be wrong.
_OURS = re.compile(
    r"MLSERVER_(HTTP_PORT|GRPC_PORT|METRICS_PORT|HOST|MODELS_DIR|MODEL_(NAME|URI|IMPLEMENTATION|EXTRA))"
)

# Folders of our images that hold the server, the function and its packages, or that pods mount.
_FOLDERS = (
    "/tmp", "/mnt/models", "/opt/function", "/opt/mlserver", "/opt/environment",
    "/opt/requirements", "/opt/python", "/usr/local",
)  # fmt: skip


def _option(
    default: Any, text: str, *flags: str, metavar: str = "", only: tuple[str, ...] = ()
) -> Any:
    """Declares an option, with its names and the form of its value on the command line.

    The text is its help there too. `only` names the platforms that have it; empty for all.
    """
    text = f"{text} Only for {', '.join(only)}." if only else text
    if isinstance(default, str | int) and not isinstance(default, bool):
        text = f"{text}  [{default}]"
    extra: dict[str, Any] = {"flags": flags, "metavar": metavar, "only": only}
    return Field(default, description=text, json_schema_extra=extra)


class _Model(BaseModel):
    # A definition may say `cpu: 2`.
    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)


class _Written(_Model):
    """A value that may be given as one text, as on the command line."""

    _form: ClassVar[str]
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
            raise ValueError(f"expected {cls._form}{got}")
        return {name: part for name, part in match.groupdict().items() if part is not None}


class SecretKey(_Written):
    """A key of a Kubernetes Secret. Its value never gets into a manifest."""

    _form = "SECRET/KEY"
    _pattern = r"(?P<secret>[^/]*)/(?P<key>.*)"

    secret: Name
    key: Annotated[str, AfterValidator(names.key)]


class EnvSource(_Written):
    """A Secret or a ConfigMap, each key of which becomes a variable."""

    _form = "secret/NAME or configmap/NAME"
    _pattern = r"(?P<kind>[^/]*)/(?P<name>.*)"

    kind: Literal["secret", "configmap"]
    name: Name


class Volume(_Written):
    """A volume that is mounted into the container."""

    _form = "pvc/NAME:/PATH or pvc/NAME:/PATH:ro"
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


class Toleration(_Written):
    """A taint of nodes that pods tolerate. Without a value, the key alone has to match."""

    _form = "KEY[=VALUE][:EFFECT]"
    _pattern = r"(?P<key>[^=:]*)(=(?P<value>[^:]*))?(:(?P<effect>.*))?"

    key: LabelKey
    value: LabelValue | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None


class Options(_Model):
    """What a manifest depends on besides the function."""

    preset: str | None = _option(
        None, "Options from `deployment.presets` of the definition, over its other options."
    )
    name: Label | None = _option(None, "Name of the objects.  [the model's, as a DNS label]")
    namespace: Label | None = _option(
        None, "Namespace of the objects.  [that of the kubeconfig's context]", "--namespace", "-n"
    )
    image: Annotated[str, AfterValidator(names.image)] | None = _option(
        None, "Image to run.  [the image that the definition names, else the one built last]"
    )
    shape: Literal["auto", "image", "storage", "inline"] = _option(
        "auto",
        "image: the function is in the image. storage: the stock image, and the folder at "
        "--storage-uri. inline: the stock image, and the code in the manifest. auto: storage with "
        "--storage-uri, else image.",
    )
    storage_uri: Annotated[str, Field(pattern=r"^[a-z0-9+]+://\S+$")] | None = _option(
        None, "URI from which the platform fetches the folder of the model."
    )
    runtime: Label | None = _option(
        None,
        "Name of the ServingRuntime or Server, mlserver-pyfunc by default.",
        only=("kserve", "seldon-v2"),
    )
    cluster_runtime: bool = _option(
        False,
        "Print a ClusterServingRuntime or a ServingRuntime (default).",
        "--cluster-runtime/--namespace-runtime",
        only=("kserve",),
    )
    with_runtime: bool = _option(
        True,
        "Print the ServingRuntime or Server too (default), or expect it on the cluster.",
        "--with-runtime/--without-runtime",
        only=("kserve", "seldon-v2"),
    )
    mode: Literal["standard", "knative"] = _option(
        "standard", "Deployment mode of KServe.", only=("kserve",)
    )
    protocol: Literal["rest", "grpc"] = _option(
        "rest", "Protocol of the one port that Knative opens.", only=("kserve",)
    )
    replicas: Annotated[int, Field(ge=0)] = _option(1, "Number of replicas without autoscaling.")
    min_replicas: Annotated[int, Field(ge=0)] | None = _option(
        None, "Lower bound of autoscaling.  [1]"
    )
    max_replicas: Annotated[int, Field(ge=1)] | None = _option(
        None, "Upper bound; turns autoscaling on."
    )
    scale_on: Literal["cpu", "utilization"] = _option(
        "cpu",
        "What autoscaling follows. utilization: requests in flight over slots, which KEDA reads "
        "with --prometheus, else an autoscaler by the custom metrics API.",
        only=("kserve", "kubernetes"),
    )
    target_utilization: Annotated[int, Field(ge=1, le=1000)] = _option(
        70,
        "Percentage of the slots in use above which replicas are added.",
        only=("kserve", "kubernetes"),
    )
    prometheus: Annotated[str, Field(pattern=r"^https?://\S+$")] | None = _option(
        None, "URL of Prometheus, as KEDA reaches it.", only=("kserve", "kubernetes")
    )
    target_cpu: Annotated[int, Field(ge=1, le=100)] = _option(
        80,
        "Percentage of the requested CPU above which replicas are added.",
        only=("kserve", "seldon-v1", "kubernetes"),
    )
    cpu: Quantity = _option("1", "CPU request.")
    memory: Quantity = _option("1Gi", "Memory request, and the limit.")
    cpu_limit: Quantity | None = _option(
        None, "CPU limit.  [KServe: the request; else none, so that calls can use an idle core]"
    )
    gpus: Annotated[int, Field(ge=0)] = _option(0, "Number of GPUs per replica.")
    gpu_resource: LabelKey = _option("nvidia.com/gpu", "Name of the GPU resource on the cluster.")
    tmp_size: Quantity | None = _option(
        None, "Size limit of /tmp, the only writable folder.  [none]"
    )
    env: dict[EnvName, str] = _option(
        {}, "Environment variable. Secrets are refused.", metavar="NAME=VALUE"
    )
    secrets: dict[EnvName, SecretKey] = _option(
        {}, "Environment variable from a Kubernetes Secret.", "--secret", metavar="NAME=SECRET/KEY"
    )
    env_from: list[EnvSource] = _option(
        [],
        "Secret or ConfigMap, each key of which becomes a variable.",
        metavar="secret/NAME|configmap/NAME",
    )
    volumes: list[Volume] = _option(
        [],
        "Volume to mount. Also secret/NAME:/PATH, configmap/NAME:/PATH and emptydir:/PATH.",
        "--volume",
        metavar="pvc/NAME:/PATH[:ro]",
    )
    service_type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = _option(
        "ClusterIP", "Type of the Service.", only=("kubernetes",)
    )
    service_name: Label | None = _option(
        None, "Name of the Service.", only=("kubernetes", "seldon-v1")
    )
    node_selector: dict[LabelKey, LabelValue] = _option(
        {}, "Label of the nodes on which pods may run.", metavar="KEY=VALUE"
    )
    tolerations: list[Toleration] = _option(
        [], "Taint of nodes that pods tolerate.", "--toleration", metavar="KEY[=VALUE][:EFFECT]"
    )
    service_account: Name | None = _option(
        None, "Service account of the pods, with which KServe also fetches --storage-uri."
    )
    image_pull_secrets: list[Name] = _option(
        [], "Secret with credentials of the registry.", "--image-pull-secret", metavar="SECRET"
    )
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = _option(
        None, "Pull policy of the image.  [that of Kubernetes]"
    )
    run_as_user: Annotated[
        Annotated[int, Field(ge=1)] | None,
        BeforeValidator(lambda id_: None if id_ == "any" else id_),
    ] = _option(
        1000, "User id. any: the platform chooses it, as OpenShift does.", metavar="UID|any"
    )
    labels: dict[LabelKey, LabelValue] = _option(
        {}, "Label of every object.", "--label", metavar="KEY=VALUE"
    )
    annotations: dict[LabelKey, str] = _option(
        {}, "Annotation of every object.", "--annotation", metavar="KEY=VALUE"
    )

    @model_validator(mode="after")
    def _replicas_agree(self) -> Options:
        least, most = self.min_replicas, self.max_replicas
        if least is not None and most is None:
            raise ValueError("min_replicas: expected max_replicas too, got none")
        if least is not None and most is not None and least > most:
            raise ValueError(f"expected min_replicas up to max_replicas {most}, got {least}")
        return self

    @model_validator(mode="after")
    def _variables_are_allowed(self) -> Options:
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
    def _amounts_can_be_met(self) -> Options:
        if self.cpu_limit and names.amount(self.cpu) > names.amount(self.cpu_limit):
            raise ValueError(f"expected cpu up to cpu_limit {self.cpu_limit}, got {self.cpu}")
        for name, size in (("memory", self.memory), ("tmp_size", self.tmp_size)):
            if size and names.amount(size) < 1e6:
                message = f"expected 1M or more, for example 512Mi, got {size}, which is in bytes"
                raise ValueError(f"{name}: {message}")
        return self

    @model_validator(mode="after")
    def _mounts_are_apart(self) -> Options:
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
        return self

    def refuse_for(self, platform: str) -> None:
        """Refuses options that have no effect on a platform, if they are not the default."""
        for name, field in type(self).model_fields.items():
            only = declared(field)["only"]
            if only and platform not in only and getattr(self, name) != field.default:
                option = name.replace("_", "-")
                raise ManifestError(f"--{option}: goes with {', '.join(only)} only")


def declared(field: Any) -> dict[str, Any]:
    """Returns the flags, the metavar and the platforms of a field of `Options`."""
    found: dict[str, Any] = field.json_schema_extra
    return found


def parse(values: dict[str, Any]) -> Options:
    """Reads options; raises `ManifestError`, which names them, if they are not valid."""
    try:
        return Options.model_validate(values)
    except ValidationError as error:
        raise ManifestError("; ".join(_messages(error))) from None


def options_of(platform: str, kept: Mapping[str, Any], given: Mapping[str, Any]) -> Options:
    """Reads options of a manifest that come over those that the definition keeps.

    Kept options that the platform does not have are left out. A number of replicas turns off the
    autoscaling that is kept.
    """
    layers = check_kept(kept)
    chosen = given.get("preset")
    if chosen and chosen not in layers:
        listed = ", ".join(filter(None, layers)) or "none in deployment.presets"
        raise ManifestError(f'--preset: expected one of {listed}, got "{chosen}"')
    found = layers[chosen]
    left_out = {"min_replicas", "max_replicas"} if given.get("replicas") is not None else set()
    for name, field in Options.model_fields.items():
        if name in left_out or platform not in (declared(field)["only"] or platform):
            found.pop(name, None)
    return parse(_over(found, given))


def check_kept(kept: Mapping[str, Any]) -> dict[str | None, dict[str, Any]]:
    """Returns the options that a definition keeps: by the name of a preset, and by None without."""
    presets = kept.get("presets") or {}
    plain = {name: value for name, value in kept.items() if name != "presets"}
    if not isinstance(presets, Mapping) or not all(
        isinstance(p, Mapping) for p in presets.values()
    ):
        raise ManifestError("deployment.presets: expected options by the name of a preset")
    layers = {None: plain, **{name: _over(plain, preset) for name, preset in presets.items()}}
    for preset, values in layers.items():
        where = f"deployment.presets.{preset}" if preset else "deployment"
        for name in sorted({"preset", "image"} & values.keys()):
            raise ManifestError(f"{where}.{name}: is not kept with the other options")
        try:
            parse(values)
        except ManifestError as error:
            raise ManifestError(f"{where}: {error}") from None
    return layers


def _over(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Returns options with those of `over` in their place; mappings are merged key by key."""
    found = dict(base)
    for name, value in over.items():
        earlier = found.get(name)
        if isinstance(earlier, Mapping) and isinstance(value, Mapping):
            value = {**earlier, **value}
        found[name] = value
    return found


def _messages(error: ValidationError) -> list[str]:
    found = []
    for problem in error.errors(include_url=False, include_input=False):
        where = ".".join(str(part) for part in problem["loc"] if part != "[key]")
        text = str(problem["ctx"]["error"]) if problem["type"] == "value_error" else problem["msg"]
        if problem["type"] == "extra_forbidden":
            near = difflib.get_close_matches(where, Options.model_fields, n=1)
            text = f'unknown, did you mean "{near[0]}"?' if near else "unknown"
        found.append(f"{where}: {text}" if where else text)
    return found
