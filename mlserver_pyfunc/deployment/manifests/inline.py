"""A function as environment variables, from which a server can load it without a folder."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from mlserver_pyfunc.definition import SourceDefinition
from mlserver_pyfunc.definition import kubernetes_names as names
from mlserver_pyfunc.definition.model_settings import IMPLEMENTATION
from mlserver_pyfunc.sources.local import found
from mlserver_pyfunc.sources.uri import checked_scheme, redacted

from .options import ManifestError
from .workload import Workload

MAX_ENV_BYTES = 128 * 1024
"""Linux's limit for one variable, with its name and the byte that ends it."""


def variables(workload: Workload) -> dict[str, str]:
    """Returns the variables of the function, which the keys of its ConfigMap are.

    The name of the model is not among them, since a platform may give another.
    """
    given = definition(workload).items()
    lines = [f"{json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}" for k, v in given]
    data = {
        "MLSERVER_MODEL_IMPLEMENTATION": IMPLEMENTATION,
        # One line for each key of the definition.
        "MLSERVER_MODEL_EXTRA": '{"function": {\n' + ",\n".join(lines) + "\n}}",
    }
    for name, value in data.items():
        size = len(name) + len(value.encode()) + 2
        if size > MAX_ENV_BYTES:
            raise ManifestError(
                f"{name}: expected at most {MAX_ENV_BYTES} bytes, got {size}; put the code "
                "into an image (mlserver-pyfunc build) or give its folder by --storage-uri"
            )
    return data


def digest(workload: Workload) -> str | None:
    """Returns the digest by which pods are replaced if the ConfigMap changes; None without one."""
    if workload.shape != "inline":
        return None
    return hashlib.sha256(json.dumps(variables(workload), sort_keys=True).encode()).hexdigest()


def map_name(workload: Workload) -> str | None:
    """Returns the name of the ConfigMap; None for other shapes."""
    inline = workload.shape == "inline"
    return names.derived_label(f"{workload.name}-function") if inline else None


def as_json(workload: Workload) -> str:
    """Returns the definition as JSON."""
    return json.dumps(definition(workload), ensure_ascii=False)


def definition(workload: Workload) -> dict[str, Any]:
    """Returns the definition with its code inside.

    The code is in base64, because KServe would take `{{ }}` in it for a template.
    """
    given = workload.definition
    for name, value in given.init_parameters.items():
        if names.shows_a_secret(name, value):
            raise ManifestError(
                f"init_parameters: {name} would show a secret in the manifest; let the function "
                "read it from a variable, and give --secret VARIABLE=SECRET/KEY"
            )
    if given.serving.samples:
        raise ManifestError(
            "--shape inline: expected no serving.warmup.samples, which are files; build an image "
            "(mlserver-pyfunc build) or give the folder by --storage-uri"
        )
    # The platform gives the name, and only a build or a manifest needs the rest.
    left_out = {"model_name", "model_version", "source"}
    left_out |= {"image", "base_image", "build", "deployment"}
    plain = given.model_dump(mode="json", exclude_unset=True, exclude=left_out)
    version = {"model_version": workload.version} if workload.version else {}
    found = {**version, "source": _source(given.source, workload.folder), **plain}
    # An empty list says more than none: without one, the signature tells the tensors.
    told = ("inputs", "outputs")
    return {k: value for k, value in found.items() if value not in (None, [], {}) or k in told}


def _source(source: SourceDefinition, folder: Path) -> dict[str, Any]:
    plain = source.model_dump(exclude_none=True, exclude={"code", "lang"})
    if source.code is not None:
        return {**plain, "base64": _encoded(source.code.encode())}
    if source.base64 is not None:
        return {**plain, "base64": "".join(source.base64.split())}
    uri = source.source or ""
    if redacted(uri) != uri:
        raise ManifestError("source: holds a password, which a ConfigMap would show; remove it")
    if checked_scheme(uri) not in ("", "file"):
        return plain
    path = found(uri, folder)
    if path.suffix != ".py":
        raise ManifestError(
            f'--shape inline: expected code of one file, got "{uri}"; build an image '
            "(mlserver-pyfunc build) or give the folder by --storage-uri"
        )
    return {**plain, "source": path.name, "base64": _encoded(path.read_bytes())}


def _encoded(code: bytes) -> str:
    return base64.b64encode(code).decode()
