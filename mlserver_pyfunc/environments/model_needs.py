"""Completes a definition by what its model file needs."""

from __future__ import annotations

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mlserver_pyfunc import models
from mlserver_pyfunc.definition import FunctionDefinition
from mlserver_pyfunc.sources import SourceTree


def with_needs(definition: FunctionDefinition, tree: SourceTree) -> FunctionDefinition:
    """Adds the packages that a model needs and the definition does not name.

    They are no more than other requirements are: the function runs in the server's interpreter if
    that meets them, else in an environment of its own.
    """
    if not tree.kind:
        return definition
    given = {_name(line) for line in definition.requirements}
    implied = [line for line in models.KINDS[tree.kind].requirements if _name(line) not in given]
    return definition.model_copy(update={"requirements": [*definition.requirements, *implied]})


def _name(line: str) -> str:
    return canonicalize_name(Requirement(line).name)
