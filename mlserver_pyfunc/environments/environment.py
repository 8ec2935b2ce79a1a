"""From `python_version` and `requirements` to an interpreter that has them.

An environment is made once by uv, in the cache, under a lock, and moved into place whole:

    environments/<key>/            the virtual environment, its facts in `pyfunc.json`
    environments/<key>.lock        held while it is made
    environments/tmp-<random>/     one at work

Functions with equal needs share it. A process holds a shared lock on each that it uses,
so that no other prunes it.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import sys
import sysconfig
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mlserver_pyfunc import settings
from mlserver_pyfunc.definition import FunctionDefinition
from mlserver_pyfunc.errors import PyFuncError
from mlserver_pyfunc.sources import cache_locks
from mlserver_pyfunc.sources.progress import logger

from . import uv
from .installed import problem_of

FACTS = "pyfunc.json"
_SCHEME = 1


class ProvisionError(PyFuncError):
    """The environment cannot be made."""


@dataclass(frozen=True)
class Environment:
    """An interpreter for a function.

    Attributes:
        python: Its path.
        resolved: Installed versions by name; empty for the serving interpreter.
        seconds: What it took to make it; 0 where it was there.
    """

    python: Path
    resolved: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0


def unmet_needs(definition: FunctionDefinition) -> list[str]:
    """Lists what the definition asks for and this interpreter is not or has not.

    Returns:
        One clear line per need; empty where the function can run here.
    """
    unmet = []
    asked = definition.python_version
    if asked not in (None, uv.SERVING_PYTHON):
        unmet.append(f"expected Python {asked}, the server runs {uv.SERVING_PYTHON}")
    for line in definition.requirements:
        problem = problem_of(Requirement(line))
        if problem:
            unmet.append(problem)
    return unmet


def resolve(definition: FunctionDefinition) -> list[str]:
    """Finds the exact versions that a definition's environment gets, without making it.

    Returns:
        `name==version` lines; empty where the serving interpreter will do, or uv is absent.

    Raises:
        PyFuncError: There are none; carries uv's explanation.
    """
    if not unmet_needs(definition) or not uv.is_installed():
        return []
    python = uv.find_python(definition.python_version or uv.SERVING_PYTHON)
    options = ["--quiet", "--no-header", "--no-annotate", "--python", str(python)]
    text = uv.run(["pip", "compile", *options, "-"], given="\n".join(required(definition)))
    return [line.strip() for line in text.splitlines() if line.strip()]


def provide(
    definition: FunctionDefinition, model_name: str, resolved: Sequence[str] = ()
) -> Environment:
    """Gives an interpreter that satisfies a definition: the serving one where it does.

    Args:
        definition: What is needed.
        model_name: For the log.
        resolved: Exact versions to install, from a lock; else as the requirements say.

    Raises:
        PyFuncError: None can be made; carries uv's explanation.
    """
    if not unmet_needs(definition):
        return Environment(Path(sys.executable))
    ready = _ready(definition, model_name)
    if ready:
        return ready
    python = uv.find_python(definition.python_version or uv.SERVING_PYTHON)
    requirements = list(resolved) or required(definition)
    key = _key(python, requirements)
    try:
        return _provided(key, python, requirements, model_name)
    except OSError as error:
        raise ProvisionError(
            f"cache folder {settings.cache_folder()}: {(error.strerror or str(error)).lower()}; "
            f"set {settings.CACHE} to a folder that can be written"
        ) from None


def prune(unused_seconds: float = 0) -> list[Path]:
    """Removes environments that no process uses, and none has for so long.

    Returns:
        What was removed.
    """
    removed = []
    folder = _folder()
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if not path.is_dir() or time.time() - path.stat().st_mtime < unused_seconds:
            continue
        if cache_locks.discard(path, folder):
            removed.append(path)
    return removed


def _provided(key: str, python: Path, requirements: list[str], name: str) -> Environment:
    place = _folder() / key
    found = _found(place)
    if found:
        return found
    place.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(place.with_suffix(".lock")):
        found = _found(place)
        if found:
            return found
        started = time.monotonic()
        version = uv.release_of(python)
        logger.info(
            'function "%s": making an environment of Python %s with %s',
            name,
            version,
            ", ".join(requirements),
        )
        _make(place, python, requirements)
        seconds = time.monotonic() - started
        logger.info('function "%s": environment made in %.1f s', name, seconds)
    found = _found(place)
    assert found is not None
    return Environment(found.python, found.resolved, seconds)


def _make(place: Path, python: Path, requirements: list[str]) -> None:
    work = Path(tempfile.mkdtemp(prefix="tmp-", dir=place.parent))
    try:
        built = work / "environment"
        uv.run(["venv", "--quiet", "--relocatable", "--no-project", "-p", str(python), str(built)])
        interpreter = str(built / "bin" / "python")
        given = "\n".join(requirements)
        uv.run(["pip", "install", "--python", interpreter, "-r", "-"], given=given, on_line=_log)
        listed = json.loads(uv.run(["pip", "list", "--python", interpreter, "--format", "json"]))
        resolved = {item["name"]: item["version"] for item in listed}
        facts = {"python": str(python), "requirements": requirements, "resolved": resolved}
        (built / FACTS).write_text(json.dumps(facts, indent=1), encoding="utf-8")
        if place.exists():
            shutil.rmtree(place)
        built.rename(place)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _log(line: str) -> None:
    logger.info("uv: %s", line)


def _found(place: Path) -> Environment | None:
    try:
        facts = json.loads((place / FACTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    python = place / "bin" / "python"
    # The base interpreter may have been removed since.
    if not python.exists():
        return None
    # Kept from being pruned while this process lives.
    with suppress(OSError):
        os.utime(place)
        cache_locks.hold(place)
    return Environment(python, facts["resolved"])


def _ready(definition: FunctionDefinition, model_name: str) -> Environment | None:
    """The environment that an image brings along, if it was made for such a definition."""
    place = settings.ready_environment()
    if place is None:
        return None
    try:
        facts = json.loads((place / FACTS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ProvisionError(f"{settings.ENVIRONMENT}: {place / FACTS}: {error}") from None
    asked = definition.python_version or facts["python_version"]
    needed = required(definition)
    if asked == facts["python_version"] and sorted(needed) == sorted(facts["requirements"]):
        return Environment(place / "bin" / "python")
    logger.warning(
        'function "%s": the image has an environment of Python %s with %s, but Python %s with %s '
        "is asked for: making another",
        model_name,
        facts["python_version"],
        ", ".join(facts["requirements"]),
        asked,
        ", ".join(needed),
    )
    return None


def required(definition: FunctionDefinition) -> list[str]:
    """What a definition's environment gets: its requirements, and NumPy, without which no
    worker runs."""
    lines = list(definition.requirements)
    names = {canonicalize_name(Requirement(line).name) for line in lines}
    return lines if "numpy" in names else [*lines, "numpy"]


def _key(python: Path, requirements: list[str]) -> str:
    needs = [
        _SCHEME,
        str(python.resolve()),
        uv.release_of(python),
        sysconfig.get_platform(),
        platform.libc_ver(),
        sorted(requirements),
    ]
    return hashlib.sha256(json.dumps(needs).encode()).hexdigest()[:32]


def _folder() -> Path:
    return settings.cache_folder() / "environments"
