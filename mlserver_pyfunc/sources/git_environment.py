"""What git runs with: no configuration but ours, no hooks, no filters, no prompts, one transport.

Credentials reach git by its environment, and a helper that answers for one host only.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from mlserver_pyfunc import settings

from .credentials import Credentials

_HELPER = (
    '!f() { test "$1" = get && printf "username=%s\\npassword=%s\\n"'
    ' "$MLSERVER_PYFUNC_GIT_USERNAME" "$MLSERVER_PYFUNC_GIT_PASSWORD"; }; f'
)
_SSH = (
    "-o BatchMode=yes -o StrictHostKeyChecking=yes -o ConnectTimeout=15 "
    "-o ServerAliveInterval=15 -o ServerAliveCountMax=3"
)


def configuration(url: str) -> str:
    """The text of the configuration file, the only one that git reads."""
    parts = urlsplit(url)
    if parts.scheme != "file":
        return ""
    path = parts.path.replace("\\", "\\\\").replace('"', '\\"')
    # Nothing of the repository is run, so it may be someone else's, as mounted volumes are.
    return f'[safe]\n\tdirectory = "{path}"\n\tdirectory = "{path.rstrip("/")}/.git"\n'


def environment(url: str, credentials: Credentials | None, work: Path) -> dict[str, str]:
    """The variables git runs with, besides the process's own.

    Args:
        url: Of the remote, without credentials.
        credentials: For this URL's host.
        work: Folder that holds the configuration file.
    """
    parts = urlsplit(url)
    options = {
        "core.hooksPath": os.devnull,
        "credential.helper": "",
        "fetch.writeCommitGraph": "false",
        "gc.auto": "0",
        "http.lowSpeedLimit": "1000",
        "http.lowSpeedTime": "30",
        "protocol.version": "2",
        "remote.origin.url": url,
    }
    environment = {
        "GIT_ALLOW_PROTOCOL": parts.scheme,
        "GIT_ALTERNATE_OBJECT_DIRECTORIES": "",
        "GIT_CONFIG_GLOBAL": str(work / "gitconfig"),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_PARAMETERS": "",
        "GIT_LITERAL_PATHSPECS": "1",
        "GIT_NAMESPACE": "",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "SSH_ASKPASS": "",
        "GIT_SSH_COMMAND": f"{os.environ.get('GIT_SSH_COMMAND') or 'ssh'} {_SSH}",
        # Traces would write what is sent, headers and all.
        **{name: "0" for name in os.environ if name.startswith("GIT_TRACE")},
    }
    # One variable names the certificates for every kind of source.
    if settings.ca_bundle():
        environment["GIT_SSL_CAINFO"] = settings.ca_bundle() or ""
    elif os.environ.get("SSL_CERT_FILE") and not os.environ.get("GIT_SSL_CAINFO"):
        environment["GIT_SSL_CAINFO"] = os.environ["SSL_CERT_FILE"]
    if credentials:
        environment["MLSERVER_PYFUNC_GIT_USERNAME"] = credentials.username
        environment["MLSERVER_PYFUNC_GIT_PASSWORD"] = credentials.password
        # Of this host alone: a redirect elsewhere is not answered.
        options[f"credential.{parts.scheme}://{parts.netloc}.helper"] = _HELPER
    return {**environment, **_as_variables(options)}


def _as_variables(options: Mapping[str, str]) -> dict[str, str]:
    variables = {"GIT_CONFIG_COUNT": str(len(options))}
    for number, (name, value) in enumerate(options.items()):
        variables[f"GIT_CONFIG_KEY_{number}"] = name
        variables[f"GIT_CONFIG_VALUE_{number}"] = value
    return variables
