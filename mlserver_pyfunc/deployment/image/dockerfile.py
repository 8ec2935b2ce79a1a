"""The Dockerfile of a function's image, made from the template `Dockerfile.jinja`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from mlserver_pyfunc.definition.kubernetes_names import VARIABLE
from mlserver_pyfunc.definition.rendering import environment
from mlserver_pyfunc.deployment.names import BuildError
from mlserver_pyfunc.deployment.server_settings import PORTS

UV = "uv>=0.7,<1"
CYCLONEDX = "cyclonedx-bom>=7,<8"
CA_SECRET = "ca-bundle"
APT_SECRET = "apt-ca"

# Each program has a variable of its own for the file of certificate authorities. There is none
# that all of them read.
_CA_VARIABLES = (
    "SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO",
    "NODE_EXTRA_CA_CERTS",
)  # fmt: skip
# Variables by which programs find a configuration file, by the id of the secret that holds it.
_FILE_VARIABLES = {"netrc": "NETRC", "pip.conf": "PIP_CONFIG_FILE", "uv.toml": "UV_CONFIG_FILE"}


def render(recipe: Mapping[str, Any]) -> str:
    """Returns the text of the Dockerfile, or raises `BuildError` if a value cannot be in one.

    The recipe has what the template names, from `build_context`.
    """
    template = environment().get_template("deployment/image/Dockerfile.jinja")
    settings = {**recipe["settings"], "MLSERVER_MODELS_DIR": "/opt/function"}
    if recipe["own"]:
        settings["MLSERVER_PYFUNC_ENVIRONMENT"] = "/opt/environment"
    return template.render(
        recipe=recipe,
        settings={name: settings[name] for name in settings if name not in recipe["env"]},
        secret_variables=_secret_variables(recipe["secrets"]),
        ports=PORTS,
        uv=UV,
        cyclonedx=CYCLONEDX,
        pairs=_pairs,
        one_command=_one_command,
    )


def _quoted(value: str, where: str) -> str:
    if any(ord(character) < 32 or ord(character) == 127 for character in value):
        raise BuildError(f"{where}: a Dockerfile takes no line ends or control characters")
    return '"' + re.sub(r'(["\\$])', r"\\\1", value) + '"'


def _pairs(variables: Mapping[str, str], where: str) -> str:
    for name in variables:
        if where != "label" and not re.fullmatch(VARIABLE, name):
            raise BuildError(f'{where}: expected the name of a variable, got "{name}"')
    pairs = (f"{name}={_quoted(value, f'{where}.{name}')}" for name, value in variables.items())
    return " \\\n    ".join(pairs)


def _secret_variables(secrets: Sequence[str]) -> list[str]:
    files = {}
    if CA_SECRET in secrets:
        files = dict.fromkeys(_CA_VARIABLES, CA_SECRET) | {"APT_CONFIG": APT_SECRET}
    files |= {name: secret for secret, name in _FILE_VARIABLES.items() if secret in secrets}
    return [f"{name}=/run/secrets/{secret}" for name, secret in files.items()]


def _one_command(line: str) -> str:
    """Writes a shell command of the definition so that it stays one instruction.

    A line end would start another instruction, `<<` a heredoc, which old engines do not know, and a
    backslash at the end would take in the next line. In JSON, none of these has a meaning.
    """
    if "\n" in line or "<<" in line or line.endswith("\\"):
        return json.dumps(["/bin/sh", "-ec", line])
    return line
