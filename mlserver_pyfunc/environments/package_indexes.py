"""Package indexes of this machine: pip's configuration, translated to uv's variables."""

from __future__ import annotations

import configparser
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_PIP_TO_UV = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "cert": "SSL_CERT_FILE",
    "trusted-host": "UV_INSECURE_HOST",
}
_UV_INDEX_VARIABLES = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL")


def uv_variables() -> dict[str, str]:
    """Translates pip's index configuration to environment variables of uv.

    uv does not read pip's configuration (https://docs.astral.sh/uv/pip/compatibility/), but
    many machines name their mirror only there.
    """
    if any(name in os.environ for name in _UV_INDEX_VARIABLES):
        return {}
    found = _pip_settings()
    variables = {_PIP_TO_UV[name]: value for name, value in found.items()}
    if "extra-index-url" in found:
        # pip takes the best version of all indexes. uv by default takes the first index that
        # has the package, which guards against dependency confusion but resolves differently.
        variables["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    return variables


def configured_indexes() -> tuple[str | None, list[str]]:
    """Returns the default index that uv and pip are configured with, and the extra ones."""
    variables = {**uv_variables(), **os.environ}
    default = variables.get("UV_DEFAULT_INDEX") or variables.get("UV_INDEX_URL")
    extra = f"{variables.get('UV_INDEX', '')} {variables.get('UV_EXTRA_INDEX_URL', '')}"
    # An index may be preceded by a name: `name=https://...`.
    return default, [re.sub(r"^[\w.-]+=", "", index) for index in extra.split()]


def _pip_settings() -> dict[str, str]:
    """Reads pip's files and environment variables; returns lists in uv's syntax."""
    parser = configparser.ConfigParser(interpolation=None)
    for path in _pip_files():
        with suppress(configparser.Error, OSError, UnicodeDecodeError):
            parser.read(path, encoding="utf-8")
    found = {}
    for name in _PIP_TO_UV:
        value = os.environ.get(f"PIP_{name.upper().replace('-', '_')}")
        for section in ("install", "global"):
            value = value or parser.get(section, name, fallback="")
        if value and value.strip():
            # uv separates find-links by commas, everything else by spaces.
            found[name] = ("," if name == "find-links" else " ").join(value.split())
    return found


def _pip_files() -> Iterator[Path]:
    """Yields pip's configuration files in the order in which pip reads them."""
    explicit = os.environ.get("PIP_CONFIG_FILE")
    if explicit == os.devnull:
        return
    for folder in (os.environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(os.pathsep):
        yield Path(folder, "pip", "pip.conf")
    yield Path("/etc/pip.conf")
    home = Path(os.path.expanduser("~"))
    yield home / ".pip" / "pip.conf"
    yield Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config", "pip", "pip.conf")
    if explicit:
        yield Path(explicit)
