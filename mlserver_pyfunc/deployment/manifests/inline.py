"""A function as environment variables: all that a server needs, with no folder."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from mlserver_pyfunc.definition import SourceDefinition
from mlserver_pyfunc.definition.model_settings import IMPLEMENTATION
from mlserver_pyfunc.sources.local import found
from mlserver_pyfunc.sources.uri import checked_scheme, redacted

from . import names
from .names import ManifestError
from .workload import Object, Workload


def config_map(workload: Workload) -> Object:
    """The ConfigMap whose keys are the variables of the function, all but its name.

    Raises:
        ManifestError: The function's code is more than one file, or too large.
        SourceError: Its file is not there.
    """
    data = {
        "MLSERVER_MODEL_IMPLEMENTATION": IMPLEMENTATION,
        "MLSERVER_MODEL_EXTRA": _extra(definition(workload)),
    }
    names.check_env(data)
    names.check_config_map(data)
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": workload.metadata(name_of(workload)),
        "data": data,
    }


def name_of(workload: Workload) -> str:
    """The ConfigMap's name."""
    return names.derived_label(f"{workload.name}-function")


def definition(workload: Workload) -> dict[str, Any]:
    """The definition with its code inside, in base64: KServe would read `{{ }}` in it.

    Raises:
        ManifestError: The code is more than one file, or a parameter would show a secret.
        SourceError: Its file is not there.
    """
    given = workload.definition
    for name, value in given.init_parameters.items():
        if names.shows_a_secret(name, value):
            raise ManifestError(
                f"init_parameters: {name} would show a secret in the manifest; let the function "
                "read it from a variable, and give --secret VARIABLE=SECRET/KEY"
            )
    # The platform gives the name, and what an image is built of has no part here.
    left_out = {"model_name", "model_version", "image", "base_image", "build", "source"}
    plain = given.model_dump(mode="json", exclude_unset=True, exclude=left_out)
    version = {"model_version": workload.version} if workload.version else {}
    found = {**version, "source": _source(given.source, workload.folder), **plain}
    return {key: value for key, value in found.items() if value not in (None, [], {})}


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


def _extra(function: dict[str, Any]) -> str:
    """JSON with a line for each key of the definition."""
    lines = (f"{json.dumps(key)}: {_json(value)}" for key, value in function.items())
    return '{"function": {\n' + ",\n".join(lines) + "\n}}"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _encoded(code: bytes) -> str:
    return base64.b64encode(code).decode()
