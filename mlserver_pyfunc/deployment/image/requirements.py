"""What is installed in an image, to the exact version, and in how many environments.

The server and the function share one where their requirements agree and MLServer runs on the
function's Python; else the function has its own beside the server's.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Sequence
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
"""Of a function that asks for none, and of a server beside one that MLServer cannot run on."""

_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
_UV_PLATFORMS = {"linux/amd64": "x86_64-manylinux_2_28", "linux/arm64": "aarch64-manylinux_2_28"}


@dataclass(frozen=True)
class Installed:
    """What an image has installed. Each text is a requirements file of exact versions.

    Attributes:
        python: Of the function.
        server_python: Of the server.
        server: Requirements of the server's environment.
        function: Of the function, on top of the server's or in an environment of its own.
        own: Whether the function has one of its own.
        given: The lines that an own environment satisfies, as the definition has them.
    """

    python: str
    server_python: str
    server: str
    function: str
    own: bool
    given: Sequence[str] = ()


def resolve(
    definition: FunctionDefinition, locked: Sequence[str] = (), platforms: str | None = None
) -> Installed:
    """Finds the versions that an image gets.

    Args:
        definition: The function.
        locked: Exact versions that a lock holds.
        platforms: To build for; this machine's where not given.

    Raises:
        PyFuncError: There are none; carries uv's explanation.
    """
    _check_local(definition)
    python = definition.python_version or DEFAULT_PYTHON
    server = wheel.requirements()
    platforms = platforms or _here()
    if python in SERVER_PYTHONS:
        shared = _shared(definition.requirements, server, locked, python, platforms)
        if shared is not None:
            return shared
    if definition.serving.isolation == "none":
        raise BuildError(
            "serving.isolation is none, but the requirements cannot be met in the server's "
            f"environment of Python {python if python in SERVER_PYTHONS else DEFAULT_PYTHON}"
        )
    server_python = python if python in SERVER_PYTHONS else DEFAULT_PYTHON
    needed = environment.requirements_with_numpy(definition)
    return Installed(
        python=python,
        server_python=server_python,
        server=_compile(server, (), server_python, platforms),
        function=_compile(needed, locked, python, platforms),
        own=True,
        given=needed,
    )


def is_hashed(compiled: str) -> bool:
    """Whether every entry of a requirements file has a hash."""
    return all("--hash=" in entry for entry in _entries(compiled).values())


def _shared(
    function: Sequence[str],
    server: Sequence[str],
    locked: Sequence[str],
    python: str,
    platforms: str,
) -> Installed | None:
    """One environment for both, None where there is none."""
    alone = _compile(server, (), python, platforms)
    if not function:
        return Installed(python, python, alone, "", own=False)
    # The server's layer stays the one that other functions have, where that can be.
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


def _compile(lines: Sequence[str], constraints: Sequence[str], python: str, platforms: str) -> str:
    with TemporaryDirectory() as work:
        held = Path(work, "constraints.txt")
        held.write_text("".join(f"{line}\n" for line in map(_without_hashes, constraints)))
        options = [
            *("--quiet", "--no-header", "--no-annotate", "--generate-hashes"),
            *("--no-emit-index-url", "--no-emit-find-links"),
            # Looking for an interpreter of that version would take longer than resolving.
            *("--python", sys.executable, "--python-version", python),
            *("--constraints", str(held)),
            *_platform_options(platforms),
        ]
        return uv.run(["pip", "compile", *options, "-"], stdin="\n".join(lines))


def _here() -> str:
    machine = platform.machine().lower()
    return f"linux/{_MACHINES.get(machine, machine)}"


def _platform_options(platforms: str) -> list[str]:
    if platforms in _UV_PLATFORMS:
        return ["--python-platform", _UV_PLATFORMS[platforms]]
    return ["--universal"]


def _entries(compiled: str) -> dict[str, str]:
    """A requirements file's entries, with their hashes, by name."""
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
