"""Checks the definition itself: its keys, values, tensors and requirements."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from mlserver_pyfunc.definition import FunctionDefinition, Problem, parse, problems
from mlserver_pyfunc.definition.fields import parsed
from mlserver_pyfunc.errors import DefinitionError

from .document import Document
from .findings import Finding


def check(document: Document) -> Iterator[Finding]:
    """Checks the text of a definition."""
    value = document.value()
    if not isinstance(value, Mapping):
        kind = "nothing" if value is None else type(value).__name__
        yield document.finding("D002", f"expected a mapping, got {kind}")
        return
    for line, key in document.repeated_keys:
        yield Finding("D003", f'"{key}" is given twice in one mapping', document.path, line)
    try:
        listed = problems(value)
    except DefinitionError as error:
        yield document.finding("D002", str(error), ["kind"])
        return
    keys = ["spec"] if "spec" in value else []
    spec: Any = value.get("spec", value)
    for problem in listed:
        location = [*keys, *(problem.location or _tensor(problem.message, spec))]
        fix = _fix(document, problem, location)
        yield document.finding(_rule(problem), problem.message, location, fix)
    # digitalhub writes null for keys that have no value.
    for problem in () if keys else problems(value, keeps_nulls=True):
        if problem.kind == "extra_forbidden" and problem not in listed:
            message = problem.message.replace("unknown key", "unknown key without a value")
            if document.is_cut(problem.location):
                path = ".".join(map(str, problem.location))
                message = f"{path}: a comma ends a value in {{ }}: write the value in quotes"
            yield document.finding(_rule(problem), message, problem.location)
    is_empty = "outputs" in spec and not spec["outputs"]
    if not listed and is_empty and parse(value).contract.responses == "enforce":
        message = "outputs: expected at least one tensor, got none"
        yield document.finding("D106", message, [*keys, "outputs"])
    if not listed:
        yield from _serving(document, keys, parse(value))


def _rule(problem: Problem) -> str:
    by_kind = {"extra_forbidden": "D101", "missing": "D102"}
    if problem.location[:1] == ("deployment",):
        return "D109"
    if problem.kind in by_kind:
        return by_kind[problem.kind]
    if problem.location[:1] == ("requirements",):
        return "R501"
    if problem.location == ("source",) and problem.kind == "value_error":
        return "D104"
    return "D105" if not problem.location else "D103"


def _fix(document: Document, problem: Problem, location: list[int | str]) -> str | None:
    """Returns what to replace a value or key by, if the message leaves no doubt."""
    written = document.written(location)
    if meant := re.search(r', did you mean "([^"]+)"\?$', problem.message):
        others = document.value(location[:-1]) or ()
        is_sure = problem.kind != "extra_forbidden" or meant[1] not in others
        return meant[1] if is_sure else None
    return f'"{written}"' if written and "write it in quotes" in problem.message else None


def _tensor(message: str, spec: Mapping[str, Any]) -> list[int | str]:
    """Returns the location of the last tensor that a message names, else of its list."""
    kind, named = message.partition(":")[0], re.findall(r'"([^"]+)"', message)
    tensors = parsed(spec.get(kind)) or ()
    found = [index for index, tensor in enumerate(tensors) if tensor.get("name") in named]
    return [kind, *found[-1:]]


def _serving(
    document: Document, keys: list[str], definition: FunctionDefinition
) -> Iterator[Finding]:
    serving = definition.serving
    if serving.batch is not None:
        tensors = (*definition.inputs, *definition.outputs)
        rows = {size for t in tensors for size in t.shape[:1] if isinstance(size, str)}
        for kind in ("inputs", "outputs"):
            for tensor in getattr(definition, kind):
                if tensor.sizes[:1] != [-1]:
                    message = (
                        f'{kind}: "{tensor.name}": expected a shape with a leading -1, as '
                        f"serving.batch combines requests, got {tensor.shape_text}"
                    )
                elif later := rows.intersection(tensor.shape[1:]):
                    message = (
                        f'{kind}: "{tensor.name}": expected axis "{later.pop()}" first in each '
                        "shape, as it counts the rows that serving.batch combines"
                    )
                else:
                    continue
                # A table stands in the document, and its columns in the definition.
                named = message.partition(": expected")[0]
                location = _tensor(named, document.value(keys) or {})
                yield document.finding("D107", message, [*keys, *location])
    is_model = definition.source.is_model  # The needs of a model are known when it is fetched.
    if not serving.for_processes or serving.isolation == "process" or is_model:
        return
    from mlserver_pyfunc.environments.environment import unmet_needs

    if serving.isolation == "auto" and unmet_needs(definition):
        return
    for key in serving.for_processes:
        message = (
            f"serving.{key}: takes effect only in processes of the function's own, and this "
            "function would run in the server's: set serving.isolation to process"
        )
        yield document.finding("D108", message, [*keys, "serving", key])
