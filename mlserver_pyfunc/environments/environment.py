"""Provides an interpreter that has a definition's Python version and requirements.

uv makes each environment once, for all functions with the same needs.
docs/design/cache-and-lock.md explains its locks.
"""

from __future__ import annotations

import hashlib
import json
import platform
import re
import shutil
import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from mlserver_pyfunc import models, settings
from mlserver_pyfunc.definition import PYTHON_VERSIONS, FunctionDefinition
from mlserver_pyfunc.definition.yaml_reader import read_yaml
from mlserver_pyfunc.errors import DefinitionError, PyFuncError
from mlserver_pyfunc.models.mlflow import light_needs
from mlserver_pyfunc.sources import SourceTree, cache, fetch
from mlserver_pyfunc.sources.progress import logger

from . import uv

METADATA_FILE = "pyfunc.json"

# Part of every key: raise it when environments are made differently.
_SCHEME = 1


@dataclass(frozen=True)
class Environment:
    """An interpreter for a function."""

    python: Path
    resolved: Mapping[str, str] = field(default_factory=dict)  # versions; not of this interpreter
    seconds: float = 0  # that making it took


def unmet_needs(definition: FunctionDefinition) -> list[str]:
    """Lists what a definition needs and the serving interpreter lacks, a sentence per need."""
    unmet = []
    expected = definition.python_version
    if expected not in (None, uv.SERVING_PYTHON):
        unmet.append(f"expected Python {expected}, the server runs {uv.SERVING_PYTHON}")
    problems = (next(_missing(Requirement(line), set()), None) for line in definition.requirements)
    return [*unmet, *filter(None, problems)]


def fetched(definition: FunctionDefinition, folder: Path) -> FunctionDefinition:
    """Returns a definition with what its model needs, for which it fetches a model."""
    is_model = definition.source.is_model
    return with_needs(definition, fetch(definition.source, folder)) if is_model else definition


def with_needs(definition: FunctionDefinition, tree: SourceTree) -> FunctionDefinition:
    """Adds what a model needs and the definition does not name.

    That is no more than other requirements are: the function runs in the server's interpreter if
    that meets them, else in an environment of its own.
    """
    if not tree.kind:
        return definition
    python, lines = definition.python_version, [*models.KINDS[tree.kind].requirements]
    if tree.kind == "mlflow":
        folder = (tree.root / tree.model).parent
        try:
            lines, python = _of_mlflow(folder, python)
        except (OSError, LookupError, TypeError) as error:
            raise DefinitionError(f"{tree.model}: no Python function of MLflow: {error}") from None
    given = {_package_of(line) for line in definition.requirements}
    implied = [line for line in lines if _package_of(line) not in given]
    update = {"requirements": [*definition.requirements, *implied], "python_version": python}
    return definition.model_copy(update=update)


def resolve(definition: FunctionDefinition, folder: Path) -> list[str]:
    """Resolves the exact versions of a definition's environment, without making it."""
    definition = fetched(definition, folder)
    if not unmet_needs(definition):
        return []
    try:
        uv.find_uv()
    except uv.UvError:
        return []
    python = uv.find_python(definition.python_version or uv.SERVING_PYTHON)
    options = ["--quiet", "--no-header", "--no-annotate", "--python", str(python)]
    lines = "\n".join(requirements_with_numpy(definition))
    text = uv.run(["pip", "compile", *options, "-"], stdin=lines)
    return [line.strip() for line in text.splitlines() if line.strip()]


def provide(
    definition: FunctionDefinition, model_name: str, resolved: Sequence[str] = ()
) -> Environment:
    """Returns an interpreter that meets a definition's needs; makes one if necessary."""
    needs = unmet_needs(definition)
    if not needs:
        return Environment(Path(sys.executable))
    shipped = _shipped(definition, model_name)
    if shipped:
        return shipped
    python = uv.find_python(definition.python_version or uv.SERVING_PYTHON)
    requirements = list(resolved) or requirements_with_numpy(definition)
    folder = _root() / _key(python, requirements)
    make = partial(_make, folder, python, requirements, model_name, needs[0])
    return cache.once(f"environment {folder.name}", partial(_find, folder), make)


def prune() -> list[Path]:
    """Removes environments that nothing uses; returns their folders."""
    root = _root()
    folders = sorted(root.iterdir()) if root.is_dir() else []
    return [path for path in folders if path.is_dir() and cache.discard(path, root)]


def requirements_with_numpy(definition: FunctionDefinition) -> list[str]:
    """Returns a definition's requirements, and NumPy, which every worker imports."""
    lines = list(definition.requirements)
    names = {canonicalize_name(Requirement(line).name) for line in lines}
    return lines if "numpy" in names else [*lines, "numpy"]


def _make(
    folder: Path, python: Path, requirements: list[str], model_name: str, need: str, work: Path
) -> Environment:
    uv.find_uv(need.partition(": pip install")[0])
    started = time.monotonic()
    logger.info(
        'function "%s": making an environment of Python %s with %s',
        model_name,
        uv.release_of(python),
        ", ".join(requirements),
    )
    built = work / "environment"
    uv.run(["venv", "--quiet", "--relocatable", "--no-project", "-p", str(python), str(built)])
    interpreter = str(built / "bin" / "python")
    lines, log = "\n".join(requirements), partial(logger.info, "uv: %s")
    uv.run(["pip", "install", "--python", interpreter, "-r", "-"], stdin=lines, on_line=log)
    listed = json.loads(uv.run(["pip", "list", "--python", interpreter, "--format", "json"]))
    resolved = {item["name"]: item["version"] for item in listed}
    metadata = {"python": str(python), "requirements": requirements, "resolved": resolved}
    (built / METADATA_FILE).write_text(json.dumps(metadata, indent=1), encoding="utf-8")
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.exists():
        shutil.rmtree(folder)
    built.rename(folder)
    seconds = time.monotonic() - started
    logger.info('function "%s": environment made in %.1f s', model_name, seconds)
    found = _find(folder)
    assert found is not None
    return replace(found, seconds=seconds)


def _find(folder: Path) -> Environment | None:
    try:
        metadata = json.loads((folder / METADATA_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    python = folder / "bin" / "python"
    # This is a link to the base interpreter, which may have been removed since.
    if not python.exists():
        return None
    # Protects it from `prune` as long as this process lives. A read-only cache needs no lock.
    with suppress(OSError):
        cache.hold(folder)
    return Environment(python, metadata["resolved"])


def _shipped(definition: FunctionDefinition, model_name: str) -> Environment | None:
    """Returns the environment that the image contains, if it was made for these needs."""
    folder = settings.shipped_environment()
    if folder is None:
        return None
    try:
        metadata = json.loads((folder / METADATA_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PyFuncError(f"{settings.ENVIRONMENT}: {folder / METADATA_FILE}: {error}") from None
    expected = definition.python_version or metadata["python_version"]
    needed = requirements_with_numpy(definition)
    needs = (expected, sorted(needed))
    if needs == (metadata["python_version"], sorted(metadata["requirements"])):
        return Environment(folder / "bin" / "python")
    provided = f"Python {metadata['python_version']} with {', '.join(metadata['requirements'])}"
    logger.warning('function "%s": the image has an environment of %s only', model_name, provided)
    return None


def _key(python: Path, requirements: list[str]) -> str:
    identity = [
        _SCHEME,
        str(python.resolve()),
        uv.release_of(python),
        sysconfig.get_platform(),
        platform.libc_ver(),
        sorted(requirements),
    ]
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]


def _root() -> Path:
    return settings.cache_folder() / "environments"


def _package_of(line: str) -> str:
    """Returns the name of a package without what tells its build: onnxruntime-gpu, xgboost-cpu."""
    try:
        return re.sub("-(cpu|gpu|skinny)$", "", canonicalize_name(Requirement(line).name))
    except InvalidRequirement:
        message = f'the model requires "{line}", which is no package: write one in its place'
        raise DefinitionError(message) from None


def _of_mlflow(folder: Path, python: str | None) -> tuple[list[str], str]:
    """Returns the requirements and the version of Python that a folder records."""
    recorded: Any = read_yaml(folder / models.MLFLOW)
    light = light_needs(recorded)
    environment = folder / "python_env.yaml"
    version = read_yaml(environment)["python"] if environment.is_file() else None
    version = version or recorded["flavors"]["python_function"]["python_version"]
    found = python or ".".join(str(version).split(".")[:2])
    if found not in PYTHON_VERSIONS:
        expected = ", ".join(PYTHON_VERSIONS)
        raise DefinitionError(f"the model is of Python {found}: set python_version to {expected}")
    if (file := folder / "requirements.txt").is_file():
        listed = file.read_text(encoding="utf-8").splitlines()
    else:
        of_conda = read_yaml(folder / "conda.yaml")["dependencies"]
        listed = [line for each in of_conda if isinstance(each, dict) for line in each["pip"]]
    plain = [text for line in listed if (text := re.sub(r"(^|\s)#.*", "", line).strip())]
    if light:
        plain = [line for line in plain if _package_of(line) != "mlflow"]
    has = {_package_of(line) for line in plain}
    return [*plain, *(name for name in light if name not in has)], found


def _missing(requirement: Requirement, seen: set[tuple[str, str]]) -> Iterator[str]:
    """Yields the reasons why a requirement is not met, its extras included.

    A requirement whose marker excludes this interpreter is met.
    """
    if requirement.marker is not None and not requirement.marker.evaluate():
        return
    try:
        found = distribution(requirement.name)
    except PackageNotFoundError:
        yield f'"{requirement}" is not installed: pip install "{requirement}"'
        return
    if not requirement.url and not requirement.specifier.contains(found.version, prereleases=True):
        yield f'expected "{requirement}", installed is {found.version}'
        return
    for extra in sorted(requirement.extras):
        # Two extras may require each other.
        key = (canonicalize_name(requirement.name), canonicalize_name(extra))
        if key in seen:
            continue
        seen.add(key)
        if key[1] not in map(canonicalize_name, found.metadata.get_all("Provides-Extra") or ()):
            yield f'"{requirement}": installed {requirement.name} {found.version} has no such extra'
        for needed in _requirements_of(found, extra):
            for problem in _missing(needed, seen):
                yield f'"{requirement}" needs more: {problem}'


def _requirements_of(found: Distribution, extra: str) -> Iterator[Requirement]:
    """Yields what an extra requires in addition to the distribution, markers removed."""
    for line in found.requires or ():
        requirement = Requirement(line)
        marker, requirement.marker = requirement.marker, None
        if marker and not marker.evaluate({"extra": ""}) and marker.evaluate({"extra": extra}):
            yield requirement
