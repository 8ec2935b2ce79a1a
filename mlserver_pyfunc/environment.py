"""Whether the serving interpreter is the one that a definition asks for."""

from __future__ import annotations

import sys
from importlib import metadata

from packaging.requirements import Requirement

from .definition import FunctionDefinition


def unmet_needs(definition: FunctionDefinition) -> list[str]:
    """Lists what the definition asks for and this interpreter is not or has not.

    Returns:
        One clear line per need; empty where the function can run here.
    """
    unmet = []
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if definition.serving.isolation == "process":
        unmet.append("serving.isolation: process is not available, expected auto or none")
    if definition.python_version not in (None, here):
        unmet.append(f"expected Python {definition.python_version}, the server runs {here}")
    for line in definition.requirements:
        problem = _problem(Requirement(line))
        if problem:
            unmet.append(problem)
    return unmet


def _problem(requirement: Requirement) -> str | None:
    if requirement.marker is not None and not requirement.marker.evaluate():
        return None
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return f'"{requirement}" is not installed: pip install "{requirement}"'
    if requirement.url or requirement.specifier.contains(version, prereleases=True):
        return None
    return f'expected "{requirement}", installed is {version}'
