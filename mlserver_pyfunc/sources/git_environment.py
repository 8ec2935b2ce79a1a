"""The environment of git: no configuration but ours, no hooks, no filters, no prompts.

git runs code that its configuration names: hooks, filters, credential helpers, ssh commands,
`ext::` transports, `url.insteadOf`. The user's configuration may name them for good reasons, and
a repository that is cloned from `file://` has one of its own. Switching each key off does not
work: new ones appear with new versions of git. So git reads no configuration file except ours
(GIT_CONFIG_GLOBAL, GIT_CONFIG_NOSYSTEM), works in a bare repository that we initialise without a
template, and may use the one transport of the URL (GIT_ALLOW_PROTOCOL): a redirect cannot switch
to another. No file is checked out by git, see `git_tree`.

Credentials in the URL would show in the process list and in git's messages, and in a file they
would outlive the fetch. They are passed in environment variables, which only processes of the
same user can read, to a helper that is configured for the one host: git does not ask it for
another host after a redirect.
"""

from __future__ import annotations

import os
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
    """Returns the text of the only configuration file that git reads."""
    parts = urlsplit(url)
    if parts.scheme != "file":
        return ""
    path = parts.path.replace("\\", "\\\\").replace('"', '\\"')
    # git refuses repositories of other users (CVE-2022-24765), as mounted volumes often are,
    # because it would run their hooks and configuration. We run neither.
    return f'[safe]\n\tdirectory = "{path}"\n\tdirectory = "{path.rstrip("/")}/.git"\n'


def environment(url: str, credentials: Credentials | None, work: Path) -> dict[str, str]:
    """Returns the variables that git runs with, besides those of this process."""
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
        # Traces would write the headers that are sent, with the credentials.
        **{name: "0" for name in os.environ if name.startswith("GIT_TRACE")},
    }
    # One variable names the authorities for every kind of source.
    if bundle := settings.ca_file("GIT_SSL_CAINFO"):
        environment["GIT_SSL_CAINFO"] = bundle
    if credentials:
        environment["MLSERVER_PYFUNC_GIT_USERNAME"] = credentials.username
        environment["MLSERVER_PYFUNC_GIT_PASSWORD"] = credentials.password
        # For this host alone: after a redirect to another, git does not ask the helper.
        options[f"credential.{parts.scheme}://{parts.netloc}.helper"] = _HELPER
    environment["GIT_CONFIG_COUNT"] = str(len(options))
    for number, (name, value) in enumerate(options.items()):
        environment[f"GIT_CONFIG_KEY_{number}"] = name
        environment[f"GIT_CONFIG_VALUE_{number}"] = value
    return environment
