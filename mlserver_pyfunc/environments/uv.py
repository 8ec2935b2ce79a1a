"""Runs uv, which finds interpreters and installs packages into environments."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from mlserver_pyfunc import settings
from mlserver_pyfunc.errors import PyFuncError

ERROR_LINES = 8
"""Number of lines of uv's own explanation that an error carries."""

SERVING_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
"""Version of this interpreter in the form that definitions use, such as `3.12`."""

# Lines of uv that do not explain a failure.
_NOTICES = ("Using Python", "hint: ")

_PIP_TO_UV = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "cert": "SSL_CERT_FILE",
    "trusted-host": "UV_INSECURE_HOST",
}
_UV_INDEX_VARIABLES = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL")


class UvError(PyFuncError):
    """uv failed. The message is uv's own explanation."""


def find_uv(need: str = "") -> str:
    """Returns the path of uv; raises `UvError` if it is not installed, and says who needs it."""
    with suppress(ImportError, FileNotFoundError):
        from uv import find_uv_bin

        return str(find_uv_bin())
    if found := shutil.which("uv"):
        return found
    reason = f", which could make an environment of its own for the function ({need})"
    raise UvError(f"uv is not installed{reason if need else ''}: pip install uv")


def run(
    arguments: Sequence[str], *, stdin: str = "", on_line: Callable[[str], None] | None = None
) -> str:
    """Runs uv with text on standard input, and returns its standard output.

    `on_line` gets each line of standard error as it arrives, passwords hidden.
    """
    command = [find_uv(), "--no-progress", "--color", "never", *arguments]
    text: dict[str, Any] = {"encoding": "utf-8", "errors": "replace"}
    with TemporaryFile("w+", **text) as output, TemporaryFile("w+", **text) as source:
        source.write(stdin)
        source.seek(0)
        try:
            process = subprocess.Popen(
                command, stdin=source, stdout=output, stderr=subprocess.PIPE, env=_environment(),
                **text,
            )  # fmt: skip
        except OSError as error:
            raise UvError(f"uv cannot be run: {error}") from None
        lines = []
        with process:
            for line in process.stderr or ():
                lines.append(line)
                if on_line is not None and line.strip():
                    on_line(hide_passwords(line.rstrip()))
        if process.returncode:
            raise UvError(_explanation(lines))
        output.seek(0)
        return str(output.read())


def configured_indexes() -> tuple[str | None, list[str]]:
    """Returns the default index that uv and pip are configured with, and the extra ones."""
    variables = {**_index_variables(), **os.environ}
    default = variables.get("UV_DEFAULT_INDEX") or variables.get("UV_INDEX_URL")
    extra = f"{variables.get('UV_INDEX', '')} {variables.get('UV_EXTRA_INDEX_URL', '')}"
    # An index may be preceded by a name: `name=https://...`.
    return default, [re.sub(r"^[\w.-]+=", "", index) for index in extra.split()]


def find_python(version: str) -> Path:
    """Finds an interpreter of a version such as `3.12` on this machine.

    Looks at the serving interpreter, PATH, pyenv and uv's own interpreters. Downloads one
    only if `MLSERVER_PYFUNC_PYTHON_DOWNLOADS` or uv's own setting allows it.
    """
    for candidate in _candidates(version):
        if release_of(candidate).rpartition(".")[0] == version:
            return candidate
    try:
        if settings.is_switched_on(settings.PYTHON_DOWNLOADS):
            run(["python", "install", version])
        return Path(run(["python", "find", "--no-project", "--system", version]).strip())
    except UvError:
        raise UvError(
            f"no Python {version} on this machine (looked in PATH, pyenv and uv's own): install "
            f"one, or set {settings.PYTHON_DOWNLOADS}=1 to let uv download it"
        ) from None


def _candidates(version: str) -> Iterator[Path]:
    if version == SERVING_PYTHON:
        yield Path(getattr(sys, "_base_executable", "") or sys.executable)
    for entry in os.get_exec_path():
        candidate = Path(entry, f"python{version}")
        # pyenv's shims start whichever version is selected in the current folder.
        if candidate.is_file() and candidate.parent.name != "shims":
            yield candidate
    root = Path(os.environ.get("PYENV_ROOT") or Path("~/.pyenv").expanduser())
    folders = (root / "versions").glob(f"{version}.*")
    releases = [(list(map(int, re.findall(r"\d+", each.name))), each) for each in folders]
    for _, folder in sorted(releases, reverse=True):
        yield folder / "bin" / f"python{version}"


@cache
def release_of(python: Path) -> str:
    """Returns an interpreter's full version, such as `3.12.1`; empty if it does not run."""
    code = "import sys, ssl, venv; print('%d.%d.%d' % sys.version_info[:3])"
    try:
        done = subprocess.run(
            [str(python), "-I", "-c", code], capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


def _environment() -> dict[str, str]:
    environment = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "PYTHONPATH")}
    environment.setdefault("UV_PYTHON_DOWNLOADS", "never")
    if settings.is_switched_on(settings.PYTHON_DOWNLOADS):
        environment["UV_PYTHON_DOWNLOADS"] = "automatic"
    if bundle := os.environ.get(settings.CA_BUNDLE):
        environment["SSL_CERT_FILE"] = bundle
    if os.environ.get(settings.CACHE):
        environment.setdefault("UV_CACHE_DIR", str(settings.cache_folder() / "uv"))
    return {**_index_variables(), **environment}


def _index_variables() -> dict[str, str]:
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


def _explanation(stderr: Sequence[str]) -> str:
    """Joins the last lines of uv's standard error, without its line drawing."""
    lines = (re.sub(r"^[^\w'\"(<]+", "", line).strip() for line in stderr)
    reported = [line for line in lines if line and not line.startswith(_NOTICES)]
    text = hide_passwords(" ".join(reported[-ERROR_LINES:])) or "uv failed without a word"
    hint = settings.trust_hint(text)
    return f"{text}; {hint}" if hint else text


def hide_passwords(text: str) -> str:
    """Replaces the credentials in URLs by asterisks."""
    return re.sub(r"(\w+://)[^/@\s]+@", r"\1***@", text)
