"""Completes a definition by what its model file needs: packages, and a version of Python."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from mlserver_pyfunc import models
from mlserver_pyfunc.definition import PYTHON_VERSIONS, FunctionDefinition
from mlserver_pyfunc.definition.yaml_reader import read_yaml
from mlserver_pyfunc.errors import DefinitionError
from mlserver_pyfunc.models.mlflow import light_needs
from mlserver_pyfunc.sources import SourceTree


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
    given = {_name(line) for line in definition.requirements}
    implied = [line for line in lines if _name(line) not in given]
    update = {"requirements": [*definition.requirements, *implied], "python_version": python}
    return definition.model_copy(update=update)


def _name(line: str) -> str:
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
        plain = [line for line in plain if _name(line) != "mlflow"]
    has = {_name(line) for line in plain}
    return [*plain, *(name for name in light if name not in has)], found
