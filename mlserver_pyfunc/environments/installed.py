"""Compares a requirement with what this interpreter has installed."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def find_problem(requirement: Requirement) -> str | None:
    """Returns the first reason why a requirement is not met, or None if it is met.

    Extras are checked too, and the extras of their requirements. A requirement whose marker
    excludes this interpreter is met.
    """
    if requirement.marker is not None and not requirement.marker.evaluate():
        return None
    return next(_problems(requirement, set()), None)


def _problems(requirement: Requirement, seen: set[tuple[str, str]]) -> Iterator[str]:
    try:
        found = metadata.distribution(requirement.name)
    except metadata.PackageNotFoundError:
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
            for problem in _problems(needed, seen):
                yield f'"{requirement}" needs more: {problem}'


def _requirements_of(distribution: metadata.Distribution, extra: str) -> Iterator[Requirement]:
    """Yields what an extra requires in addition to the distribution, markers removed."""
    for line in distribution.requires or ():
        requirement = Requirement(line)
        marker, requirement.marker = requirement.marker, None
        if marker and not marker.evaluate({"extra": ""}) and marker.evaluate({"extra": extra}):
            yield requirement
