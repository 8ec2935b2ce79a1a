"""Reads a definition, plain or a digitalhub object, and reports its problems key by key.

What is no definition raises DefinitionError, whose message lists every problem.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from mlserver_pyfunc.errors import DefinitionError

from .fields import parsed
from .models import UNION_TAGS, FunctionDefinition, TableDefinition
from .yaml_reader import read_yaml

FILE_NAME = "function.yaml"
_KEPT = ("description", "labels", "project")
"""Keys of the object that describe it. They stand beside `spec`, or under `metadata`."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a definition."""

    location: tuple[int | str, ...]
    kind: str
    message: str


def parse(value: Any, where: str = "function definition") -> FunctionDefinition:
    """Reads a definition from a mapping, plain or a digitalhub `{kind, spec}`."""
    if not isinstance(value, Mapping):
        kind = "nothing" if value is None else type(value).__name__
        raise DefinitionError(f"{where}: expected a mapping, got {kind}")
    try:
        return FunctionDefinition.model_validate(_without_nulls(_unwrapped(value, where)))
    except ValidationError as error:
        messages = (problem.message for problem in problems_in(error))
        raise DefinitionError(f"{where}: " + "; ".join(messages)) from None


def problems(value: Mapping[str, Any], *, keeps_nulls: bool = False) -> list[Problem]:
    """Lists the problems of a mapping; empty if `parse` accepts it, which drops keys with null."""
    definition = _unwrapped(value, "function definition")
    try:
        FunctionDefinition.model_validate(definition if keeps_nulls else _without_nulls(definition))
    except ValidationError as error:
        return list(problems_in(error))
    return []


def read(path: Path) -> FunctionDefinition:
    """Reads a definition from a YAML or JSON file."""
    try:
        return parse(read_yaml(path), str(path))
    except OSError as error:
        raise DefinitionError(f"{path}: {error.strerror}") from None


def _unwrapped(value: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """Returns the definition in a digitalhub object `{kind, spec}`; any other mapping as it is.

    Fills in what digitalhub does: a tensor without a datatype is FP32, and whatever a client sends
    or a handler answers is let through.

    Raises DefinitionError if the object has another kind, or no spec.
    """
    kind = value.get("kind", "openinference")
    if "spec" not in value and "kind" in value:
        raise DefinitionError(f'{where}: spec: missing, expected one in an object of kind "{kind}"')
    if "spec" not in value:
        return value
    if kind != "openinference" or not isinstance(value["spec"], Mapping):
        raise DefinitionError(f'{where}: kind: expected "openinference" with a spec, got "{kind}"')
    spec = {"dialect": "digitalhub", **_described(value), **value["spec"]}
    if spec.get("model_name") is None and value.get("name"):
        spec["model_name"] = value["name"]
    spec["contract"] = _contract(spec)
    for kind in ("inputs", "outputs"):
        if isinstance(tensors := parsed(spec.get(kind)), list):
            spec[kind] = [_completed(t, f"{kind[:-1]}-{i}") for i, t in enumerate(tensors)]
    return spec


def _described(value: Mapping[str, Any]) -> dict[str, Any]:
    metadata = value.get("metadata")
    found = metadata if isinstance(metadata, Mapping) else {}
    given = {key: value.get(key) or found.get(key) for key in _KEPT}
    return {key: text for key, text in given.items() if text}


def _contract(spec: Mapping[str, Any]) -> Any:
    """Returns the spec's `contract`. digitalhub checks neither requests nor answers."""
    given = parsed(spec.get("contract")) or {}
    if not isinstance(given, Mapping):
        return given
    return {"requests": "warn", "responses": "warn", **_without_nulls(given)}


def _completed(tensor: Any, name: str) -> Any:
    if not isinstance(tensor, Mapping):
        return tensor
    given = _without_nulls(tensor)
    if not given.get("name", True):
        del given["name"]
    return {"name": name, "shape": [-1], "datatype": "FP32", **given}


def _without_nulls(value: Any) -> Any:
    """Drops keys whose value is null: digitalhub writes null for a key without a value."""
    if isinstance(value, Mapping):
        return {
            key: item if key == "init_parameters" else _without_nulls(item)
            for key, item in value.items()
            if item is not None
        }
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


def problems_in(
    error: ValidationError, model: type[BaseModel] = FunctionDefinition
) -> Iterator[Problem]:
    """Yields the problems of a mapping that pydantic has refused to read by a model."""
    for problem in error.errors(include_url=False):
        location = tuple(part for part in problem["loc"] if part not in ("[key]", *UNION_TAGS))
        path = ".".join(str(part) for part in location)
        if problem["type"] == "extra_forbidden":
            message = f"{path}: unknown key{_nearest(model, problem['loc'])}"
        elif problem["type"] == "missing":
            message = f"{path}: missing"
        elif problem["type"] == "value_error":
            text = str(problem["ctx"]["error"])
            message = f"{path}: {text}" if path else text
        else:
            message = f"{path}: {expectation(problem)}, got {_shown(problem['input'])}"
        yield Problem(location, problem["type"], message)


_EXPECTED = {
    "a mapping": "dict_type model_type model_attributes_type",
    "a list": "list_type",
    "no key of this name": "extra_forbidden",
    "text": "string_type",
    "a whole number": "int_type int_parsing int_from_float",
    "a number": "float_type float_parsing",
    "true or false": "bool_type bool_parsing",
    "{expected}": "literal_error",
    "at least {ge}": "greater_than_equal",
    "more than {gt}": "greater_than",
    "at most {le}": "less_than_equal",
    "at least {min_length} characters": "string_too_short",
    "text that matches {pattern}": "string_pattern_mismatch",
}
_WORDS = {kind: words for words, kinds in _EXPECTED.items() for kind in kinds.split()}


def expectation(problem: Any) -> str:
    """Says what was expected in place of a value that pydantic has refused."""
    text, message = _WORDS.get(problem["type"]), str(problem["msg"])
    if text is None:
        return f"{message[0].lower()}{message[1:]}"
    return f"expected {text.format(**problem.get('ctx', {}))}"


def _shown(value: Any) -> str:
    try:
        return json.dumps(value, default=str)[:80]
    except TypeError:  # A mapping has a key that JSON does not have, for example a date.
        return repr(value)[:80]


def _nearest(model: type[BaseModel], location: Sequence[int | str]) -> str:
    model = _model_at(model, location[:-1])
    known = list(model.model_fields)
    near = difflib.get_close_matches(str(location[-1]), known, n=1)
    if near:
        return f', did you mean "{near[0]}"?'
    return f", expected one of {', '.join(known)}"


def _model_at(model: type[BaseModel], location: Sequence[int | str]) -> type[BaseModel]:
    if model is FunctionDefinition and list(location[:1]) == ["deployment"]:
        from .deployment import DeploymentDefinition

        return _model_at(DeploymentDefinition, location[1:])
    for key in location:
        model = TableDefinition if key == UNION_TAGS[3] else model
        field = model.model_fields.get(str(key))  # None for an index, or a key of the user's
        model = next(_models_in(field.annotation), model) if field else model
    return model


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)
