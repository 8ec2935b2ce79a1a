"""What is installed in an image, in exact versions, and in how many environments.

The server and the function share one environment if their requirements agree and MLServer runs on
the function's Python. Otherwise the function has an environment of its own.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mlserver_pyfunc.definition import FunctionDefinition
from mlserver_pyfunc.deployment.names import BuildError
from mlserver_pyfunc.environments import environment, uv

from . import wheel

SERVER_PYTHONS = ("3.10", "3.11", "3.12")
DEFAULT_PYTHON = "3.12"
"""Version for a function that names none, and for a server that cannot run on the function's."""

_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
_UV_PLATFORMS = {"linux/amd64": "x86_64-manylinux_2_28", "linux/arm64": "aarch64-manylinux_2_28"}


@dataclass(frozen=True)
class Installed:
    """What an image has installed."""

    python: str  # version of the function's Python
    server_python: str
    server: str  # requirements file of the server's environment, with exact versions
    function: str  # requirements file of the function, on top of the server's or on its own
    own: bool  # whether the function has an environment of its own
    given: Sequence[str] = ()  # requirements that this one meets, as the definition writes them


def resolve(
    definition: FunctionDefinition,
    locked: Sequence[str] = (),
    platforms: str | None = None,
    kept: Sequence[str] = (),
) -> Installed:
    """Finds the versions to install in an image.

    `locked` has exact versions from the lock, and `kept` those of the server in the image built
    last, which stay if they fit. The platforms are that of this machine if None. An
    error that no versions fit has uv's explanation.
    """
    _check_local(definition)
    python = definition.python_version or DEFAULT_PYTHON
    server = wheel.requirements()
    machine = platform.machine().lower()
    platforms = platforms or f"linux/{_MACHINES.get(machine, machine)}"
    server_python = python if python in SERVER_PYTHONS else DEFAULT_PYTHON
    alone = _compile_server(server, kept, server_python, platforms)
    if python == server_python:
        shared = _shared(definition.requirements, server, locked, alone, python, platforms)
        if shared is not None:
            return shared
    if definition.serving.isolation == "none":
        raise BuildError(
            "serving.isolation is none, but the requirements cannot be met in the server's "
            f"environment of Python {server_python}"
        )
    needed = environment.requirements_with_numpy(definition)
    function = _compile(needed, locked, python, platforms)
    return Installed(python, server_python, alone, function, own=True, given=needed)


def is_hashed(compiled: str) -> bool:
    """Tells whether every entry of a requirements file has a hash."""
    return all("--hash=" in entry for entry in _entries(compiled).values())


def _shared(
    function: Sequence[str],
    server: Sequence[str],
    locked: Sequence[str],
    alone: str,
    python: str,
    platforms: str,
) -> Installed | None:
    """Resolves one environment for server and function; None if their requirements conflict."""
    if not function:
        return Installed(python, python, alone, "", own=False)
    # First with the server's versions fixed, so that images of other functions share its layer.
    for constraints in ([*_entries(alone).values(), *locked], locked):
        try:
            both = _entries(_compile([*server, *function], constraints, python, platforms))
        except uv.UvError:
            continue
        if constraints is locked:
            alone = _compile(server, list(both.values()), python, platforms)
        names = _entries(alone)
        ours = "".join(text for name, text in both.items() if name in names)
        theirs = "".join(text for name, text in both.items() if name not in names)
        return Installed(python, python, ours, theirs, own=False)
    return None


def pins(compiled: str) -> list[str]:
    """Returns the exact versions in a requirements file, without hashes."""
    return [_without_hashes(entry) for entry in _entries(compiled).values()]


def _compile_server(server: Sequence[str], kept: Sequence[str], python: str, platforms: str) -> str:
    if kept:
        with suppress(uv.UvError):
            return _compile(server, kept, python, platforms)
    return _compile(server, (), python, platforms)


def _compile(lines: Sequence[str], constraints: Sequence[str], python: str, platforms: str) -> str:
    with TemporaryDirectory() as work:
        file = Path(work, "constraints.txt")
        file.write_text("".join(f"{line}\n" for line in map(_without_hashes, constraints)))
        options = [
            *("--quiet", "--no-header", "--no-annotate", "--generate-hashes"),
            *("--no-emit-index-url", "--no-emit-find-links"),
            # uv would look for an interpreter of that version, which takes longer than resolving.
            *("--python", sys.executable, "--python-version", python),
            *("--constraints", str(file)),
            f"--python-platform={one}" if (one := _UV_PLATFORMS.get(platforms)) else "--universal",
        ]
        return uv.run(["pip", "compile", *options, "-"], stdin="\n".join(lines))


def _entries(compiled: str) -> dict[str, str]:
    entries: dict[str, str] = {}
    name = ""
    for line in compiled.splitlines(keepends=True):
        if not line.startswith((" ", "#")):
            name = canonicalize_name(Requirement(_without_hashes(line)).name)
        entries[name] = entries.get(name, "") + line
    return entries


def _without_hashes(entry: str) -> str:
    return entry.partition("\n")[0].removesuffix("\\").strip()


def _check_local(definition: FunctionDefinition) -> None:
    for line in definition.requirements:
        url = Requirement(line).url or ""
        if url.startswith("file:") or (url and "://" not in url):
            raise BuildError(
                f'requirement "{line}" is of this machine: an image takes packages from an '
                "index, or from a URL that its build can reach"
            )
